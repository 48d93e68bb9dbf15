"""What the screens read and write: suites, logs, records, exports."""

from __future__ import annotations

import csv
import io
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workbench.tui import canned
from tests.workbench.tui.conftest import until
from workbench.suites import warden_file
from workbench.tui.app import WorkbenchApp
from workbench.tui.system import cli_commands
from workbench.tui.view_models import (
    control_actions,
    export,
    record_detail,
    result_rows,
    suite_feed,
)


def test_busy_suites_come_first_then_the_newest(log_root: Path) -> None:
    cells = [("emoji_train", "clip-nano")]
    for stamp, state in (("20261101-000000", "running"), ("20261103-000000", "ended"),
                         ("20261102-000000", "ended")):  # fmt: skip
        canned.make_suite(log_root, cells, stamp=stamp, state=state)
    found = suite_feed.read_suites(log_root)
    assert [s.name[:8] for s in found] == ["20261101", "20261103", "20261102"]
    assert [s.busy for s in found] == [True, False, False]


def test_a_suite_whose_warden_died_is_lost(log_root: Path) -> None:
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")], state="running")
    warden = warden_file.read_warden(folder)
    assert warden is not None
    warden_file.write_warden(
        folder, warden.model_copy(update={"start_ticks": warden.start_ticks + 1})
    )
    assert suite_feed.read_suites(log_root)[0].state == "lost"


def test_no_log_root_is_no_suites(tmp_path: Path) -> None:
    assert suite_feed.read_suites(tmp_path / "none") == ()


def test_feed_follows_the_run_at_work_and_its_log(log_root: Path) -> None:
    folder = canned.busy_root(log_root)
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
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")])
    canned.log(folder, 1, "".join(f"line {n}\n" for n in range(200_000)))
    source = suite_feed.SuiteFeed(folder)
    began = time.perf_counter()
    lines = source.poll(None).log
    assert lines[-1] == "line 199999"
    assert len(lines) <= suite_feed.LOG_LINES
    assert time.perf_counter() - began < 1.0


def test_follow_delivers_news_only_and_asks_again(log_root: Path) -> None:
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")])
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
            canned.begin(folder, 1)
        return waits == 7

    suite_feed.poll_feed(suite_feed.SuiteFeed(folder), lambda: None, deliver, wait)
    statuses = [s.suite.runs[0].state.status for s in taken]
    assert statuses == ["queued", "queued", "running"]  # refused once, then once for each news


def test_the_last_attempt_of_a_run_is_its_row(log_root: Path) -> None:
    made = canned.record("s", 1, random.Random(1))
    identity = made.identity.model_copy(update={"attempt": 2})
    canned.append_record(log_root, made.model_copy(update={"identity": identity, "steps": 9}))
    canned.append_record(log_root, made)
    (batch,) = result_rows.read_batches(log_root / "results.jsonl")
    assert [row.attempt for row in batch.rows] == [2]
    assert batch.complete


def test_a_long_file_shows_its_newest_records_first(log_root: Path) -> None:
    canned.write_records(log_root, 400)
    path = log_root / "results.jsonl"
    assert path.stat().st_size > result_rows.TAIL_BYTES
    first, last = result_rows.read_batches(path)
    assert 0 < len(first.rows) < 400
    assert not first.complete
    assert last.complete
    assert len(last.rows) == 400
    assert last.rows[: len(first.rows)] == first.rows


def test_unreadable_lines_are_counted_and_the_rest_is_shown(log_root: Path) -> None:
    canned.write_records(log_root, 3)
    path = log_root / "results.jsonl"
    path.write_bytes(b"{torn\n" + path.read_bytes())
    (batch,) = result_rows.read_batches(path)
    assert len(batch.rows) == 3
    assert "1 line is unreadable" in batch.trouble


def test_find_reads_one_record_again(log_root: Path) -> None:
    canned.write_records(log_root, 30)
    path = log_root / "results.jsonl"
    *_, batch = result_rows.read_batches(path)
    found = result_rows.find_record(path, batch.rows[7].key)
    assert found is not None
    assert (found.identity.suite, found.identity.run_id) == batch.rows[7].key
    assert result_rows.find_record(path, ("no", "such")) is None


def rows_of(*losses: float | None) -> tuple[result_rows.ResultRow, ...]:
    made = canned.record("s", 1, random.Random(1))
    return tuple(
        result_rows.make_row(made.model_copy(update={"train": {} if x is None else {"loss": x}}))
        for x in losses
    )


LOSS = next(i for i, c in enumerate(result_rows.COLUMNS) if c.key == "loss")


def test_unmeasured_numbers_sort_last_both_ways() -> None:
    rows = rows_of(2.0, None, 1.0, 3.0)

    def order(descending: bool) -> list[float]:
        return [
            r.order[LOSS] for r in result_rows.select_rows(rows, "", LOSS, descending=descending)
        ]

    assert order(descending=False)[:3] == [1.0, 2.0, 3.0]
    assert order(descending=True)[:3] == [3.0, 2.0, 1.0]


def test_a_filter_needs_all_its_words() -> None:
    rows = rows_of(1.0)
    subset = str(rows[0].cells[4])
    assert result_rows.select_rows(rows, subset.upper(), None, descending=True)
    assert result_rows.select_rows(rows, f"{subset} retrieval", None, descending=True)
    assert not result_rows.select_rows(rows, f"{subset} nothing", None, descending=True)


def hostile_row() -> result_rows.ResultRow:
    made = canned.record("=HYPERLINK(1)", 1, random.Random(1))
    identity = made.identity.model_copy(update={"subset": "a|b\x1b[31m`<x>", "label": "@sum"})
    return result_rows.make_row(made.model_copy(update={"identity": identity}))


def test_csv_holds_no_formula_and_reads_back() -> None:
    header, line = list(csv.reader(io.StringIO(export.comma_separated([hostile_row()]))))
    assert len(header) == len(line) == len(result_rows.COLUMNS)
    assert line[1] == "'=HYPERLINK(1)"
    assert line[2] == "'@sum"
    assert "\x1b" not in "".join(line)


def test_csv_leaves_negative_numbers_alone() -> None:
    assert export.comma_separated(rows_of(-1.5)).count(",-1.500,") == 1


def test_markdown_keeps_its_columns() -> None:
    head, rule, line = export.markdown([hostile_row()]).splitlines()
    cells = line.replace(r"\|", "").strip("| ").split(" | ")
    assert len(cells) == len(result_rows.COLUMNS) == head.count(" | ") + 1 == rule.count(" | ") + 1
    assert r"a\|b" in line
    assert r"\<x\>" in line


def test_detail_shows_reasons_and_every_reading() -> None:
    made = canned.record("s", 1, random.Random(1), cause="failed")
    groups = {
        g.title: {line.name: line for line in g.lines} for g in record_detail.build_groups(made)
    }
    assert groups["Memory"]["VRAM of the run"].value == "n/a (no GPU)"
    assert groups["Time"]["training of 1 epoch"].value == "n/a (no whole epoch)"
    assert groups["Time"]["step, median"].remark == "86.1 ms to 86.9 ms, block bootstrap"
    assert groups["End"]["why"].failed
    assert groups["Machine"]["GPUs"].value == "n/a (no GPU)"
    readings = {n for n, f in type(made.timing).model_fields.items() if "Reading" in str(f)}
    of_an_epoch = {"epoch_wall_seconds", "epoch_stall_seconds"}  # shown as what is left of it
    assert readings == {key for _, key, _ in record_detail.TIMES} | of_an_epoch
    assert set(type(made.memory).model_fields) == {key for _, key in record_detail.PEAKS}


@pytest.mark.parametrize(
    ("do", "refused"),
    [
        ("stop", False), ("skip", False), ("cancel", True), ("hold", False), ("continue", False),
        ("resume", True),
    ],
)  # fmt: skip
def test_questions_of_a_running_suite(
    log_root: Path, do: control_actions.ControlAction, refused: bool
) -> None:
    state = suite_feed.SuiteFeed(canned.busy_root(log_root)).poll(None).suite
    asked = control_actions.make_question(do, state, state.current)
    assert bool(asked.refusal) is refused
    if not refused:
        assert asked.text
        assert asked.yes


def test_only_a_queued_run_is_cancelled(log_root: Path) -> None:
    state = suite_feed.SuiteFeed(canned.busy_root(log_root)).poll(None).suite
    asked = control_actions.make_question("cancel", state, state.runs[3])
    assert asked.run == "04-retrieval-oven_train-tinyclip-61m"
    assert "its record says stopped" in asked.text, "as Orders ends it"


def test_stop_counts_what_is_not_started(log_root: Path) -> None:
    state = suite_feed.SuiteFeed(canned.busy_root(log_root)).poll(None).suite
    assert "1 queued run is not started" in control_actions.make_question("stop", state, None).text


@pytest.mark.parametrize("state", ["ended", "lost"])
def test_a_suite_that_is_over_can_go_on(log_root: Path, state: str) -> None:
    over = replace(suite_feed.SuiteFeed(canned.busy_root(log_root)).poll(None).suite, warden=state)
    asked = control_actions.make_question("resume", over, None)
    assert asked.text.startswith("3 runs start again")
    done = replace(over, runs=tuple(r for r in over.runs if r.state.cause == "completed"))
    assert "All runs" in control_actions.make_question("resume", done, None).refusal
    words = cli_commands.resume_arguments(over.name, log_root)
    assert words[:3] == ["resume", over.name, "--detach"]


@pytest.mark.parametrize("state", ["ended", "lost"])
def test_nothing_is_asked_of_a_suite_that_is_over(log_root: Path, state: str) -> None:
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")], state="ended")
    shown = suite_feed.SuiteFeed(folder).poll(None).suite
    from dataclasses import replace

    asked = control_actions.make_question("stop", replace(shown, warden=state), None)
    assert asked.refusal


async def test_a_screenshot_is_saved_in_the_log_root(app: WorkbenchApp, log_root: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list(log_root.glob("*.svg")))
    assert "<svg" in next(log_root.glob("*.svg")).read_text("utf-8")
