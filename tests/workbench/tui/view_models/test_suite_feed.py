"""Suites of a log root, and snapshots of one with its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench.tui import sample_suites
from workbench.suites import journal as journal_file
from workbench.suites import suite_reader, warden_file
from workbench.suites.journal import Tail
from workbench.tui.view_models import (
    suite_feed,
)


def test_busy_suites_come_first_then_the_newest(log_root: Path) -> None:
    cells = [("emoji_train", "clip-nano")]
    for stamp, state in (("20261101-000000", "running"), ("20261103-000000", "ended"),
                         ("20261102-000000", "ended")):  # fmt: skip
        sample_suites.make_suite(log_root, cells, stamp=stamp, state=state)
    found = suite_feed.read_suites(log_root)
    assert [s.name[:8] for s in found] == ["20261101", "20261103", "20261102"]
    assert [s.busy for s in found] == [True, False, False]


def test_a_suite_whose_warden_died_is_lost(log_root: Path) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")], state="running")
    warden = warden_file.read_warden(folder)
    assert warden is not None
    warden_file.write_warden(
        folder, warden.model_copy(update={"start_ticks": warden.start_ticks + 1})
    )
    assert suite_feed.read_suites(log_root)[0].state == "lost"


def test_no_log_root_is_no_suites(tmp_path: Path) -> None:
    assert suite_feed.read_suites(tmp_path / "none") == ()


def test_feed_follows_the_run_at_work_and_its_log(log_root: Path) -> None:
    folder = sample_suites.busy_root(log_root)
    source = suite_feed.SuiteFeed(folder)
    snapshot = source.poll(None)
    assert snapshot.watched == "03-retrieval-evqa_train-tinyclip-61m"
    assert snapshot.log[-1] == "epoch 1 of 1: 2,616 steps of 64"
    assert [r.state.cause for r in snapshot.suite.runs] == ["completed", "oom-cuda", "", ""]
    assert source.poll(None) == snapshot  # nothing new: nothing to deliver
    assert source.poll("01-retrieval-okvqa_mm_train-tinyclip-61m").log == ()


def test_log_lines_are_clean_and_redrawn_lines_show_their_last_state() -> None:
    data = b"10%\r50%\r100%\n\x1b[1;31mplain\x1b[0m\r\n\x1b]52;c;aGk=\x07evil \x9b31m\xff\n"
    assert suite_feed.clean_log(data) == ("100%", "plain", "\\x1b]52;c;aGk=\\x07evil �31m�")
    assert suite_feed.clean_log(b"half of a line\nwhole\n", whole=False) == ("whole",)


def test_a_log_is_read_from_its_end(log_root: Path) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")])
    path = folder / "runs" / suite_feed.SuiteFeed(folder).poll(None).watched / "engine.log"
    sample_suites.log(folder, 1, "")
    with path.open("r+b") as file:
        file.truncate(1 << 36)  # a hole, larger than the memory
        file.seek(0, 2)
        file.write(b"".join(b"\nline %d" % n for n in range(200_000)) + b"\n")
    lines = suite_feed.SuiteFeed(folder).poll(None).log
    assert lines[-1] == "line 199999"
    assert len(lines) <= suite_feed.LOG_LINES


def test_the_log_of_each_attempt_is_shown_apart() -> None:
    data = b"first\nRuntimeError\n==== attempt 2, now ====\nsecond\n==== attempt 3, now ====\n"
    assert suite_feed.clean_log(data) == ("==== attempt 3, now ====",)
    assert suite_feed.clean_log(data, back=1) == ("==== attempt 2, now ====", "second")
    assert suite_feed.clean_log(data, back=2) == ("first", "RuntimeError")
    assert suite_feed.clean_log(data, back=9) == ("first", "RuntimeError")


def test_earlier_runs_of_the_subset_or_model_are_references(log_root: Path) -> None:
    old = sample_suites.make_suite(
        log_root, [("emoji_train", "a"), ("other", "b"), ("emoji_train", "b")],
        stamp="20260101-000000",
    )  # fmt: skip
    for number in (1, 2, 3):
        sample_suites.begin(old, number)
    new = sample_suites.make_suite(log_root, [("emoji_train", "a"), ("emoji_val", "a")])
    for number in (1, 2):
        sample_suites.train(sample_suites.begin(new, number), 30, 60)
    view = suite_feed.SuiteFeed(new).poll(None).suite.runs[0]
    runs = suite_feed.list_references(log_root, new, view)
    assert [run.name.split("-", 2)[2] for run in runs] == [
        "emoji_train-a", "emoji_val-a", "emoji_train-b"
    ]  # fmt: skip
    assert suite_feed.read_run(runs[1]).state.curves["loss"].last is not None


def test_follow_delivers_news_only_and_asks_again(log_root: Path) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")])
    taken: list[suite_feed.SuiteSnapshot] = []
    answers = iter([False, True, True])
    waits = 0

    def deliver(snapshot: suite_feed.SuiteSnapshot) -> bool:
        taken.append(snapshot)
        return next(answers)

    def wait(seconds: float) -> bool:
        nonlocal waits
        waits += 1
        assert seconds >= 0.25
        if waits == 4:
            sample_suites.begin(folder, 1)
        return waits == 7

    suite_feed.poll_feed(suite_feed.SuiteFeed(folder), lambda: None, deliver, wait)
    statuses = [s.suite.runs[0].state.status for s in taken]
    assert statuses == ["queued", "queued", "running"]  # refused once, then once for each news


def test_a_long_journal_is_shown_while_it_is_read_and_the_feed_can_be_left(
    log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")])
    journal = sample_suites.begin(folder, 1)
    for part in range(3):
        sample_suites.train(journal, 3_000, 9_000, seed=part)
    monkeypatch.setattr(suite_feed, "READ_SECONDS", 0.0)
    monkeypatch.setattr(journal_file, "TURN_BYTES", 65_536)
    turns: list[int] = []
    feed, steps = suite_feed.SuiteFeed(folder, lambda: turns.append(1)), list[int]()
    pauses: list[float] = []

    def deliver(snapshot: suite_feed.SuiteSnapshot) -> bool:
        steps.append(snapshot.suite.runs[0].state.message_count)
        return True

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 2

    suite_feed.poll_feed(feed, lambda: None, deliver, wait)
    assert pauses == [suite_feed.CATCH_UP_SECONDS] * 2
    assert 0 < steps[0] < steps[1]
    while feed.behind:
        last = feed.poll(None)
    assert last.suite == suite_reader.SuiteReader(folder).poll()
    assert len(turns) > 2
    assert last.suite.runs[0].state.message_count > steps[1]


def test_reading_ends_where_a_growing_journal_ended(log_root: Path) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")])
    journal = sample_suites.begin(folder, 1)
    entries = []
    for entry in Tail(journal.path).iterate():
        entries.append(entry)
        sample_suites.train(journal, 1, 10)  # more with each entry that is read
        assert len(entries) < 10
    assert len(entries) == 2
