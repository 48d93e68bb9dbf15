"""Orders to a suite: shown from the moment they are given, and taken back."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engines import messages as m
from tests.workbench.tui import sample_suites
from workbench.suites import control, run_summary, suite_reader, warden_file
from workbench.suites.control import Command
from workbench.suites.orders import Orders
from workbench.suites.state import SuiteState
from workbench.suites.suite import SuiteError
from workbench.supervisor.control_queue import ControlQueue

CELLS = [("emoji_train", "clip-nano"), ("emoji_val", "clip-nano")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sample_suites.make_suite(tmp_path, CELLS, state="running")


def ids(folder: Path) -> list[str]:
    return [view.spec.run_id for view in suite_reader.SuiteReader(folder).poll().runs]


def states(suite: SuiteState) -> list[str]:
    return [run_summary.describe_order(suite, view) for view in suite.runs]


def test_an_order_is_seen_at_once_and_is_gone_when_taken_back(folder: Path) -> None:
    reader, (first, second) = suite_reader.SuiteReader(folder), ids(folder)
    journal = sample_suites.begin(folder, 1)
    for do, run, expected in (
        ("cancel", second, ["", "to be cancelled"]),
        ("restore", second, ["", ""]),
        ("skip", first, ["skipping", ""]),
    ):
        control.send_command(folder, Command.model_validate({"do": do, "run": run}))
        assert states(reader.poll()) == expected
    journal.put(m.End(t=2.0, cause="skipped"))
    assert states(reader.poll()) == ["", ""]
    for do, paused in (("pause", True), ("resume", False)):
        control.send_command(folder, Command.model_validate({"do": do}))
        assert reader.poll().orders.paused is paused


def test_the_warden_obeys_what_was_taken_back(folder: Path) -> None:
    queue, (_, second) = ControlQueue(folder), ids(folder)
    for do, reason in (("cancel", "stopped"), ("restore", None)):
        control.send_command(folder, Command.model_validate({"do": do, "run": second}))
        assert queue.poll()[0].by, "who gave it"
        assert (queue.stop_reason(second) or (None,))[0] == reason
    assert ControlQueue(folder, resumed=True).stop_reason(second) is None


def test_of_earlier_wardens_orders_only_removals_hold(folder: Path) -> None:
    first, _ = ids(folder)
    for command in (Command(do="pause"), Command(do="cancel", run=first), Command(do="stop")):
        control.send_command(folder, command)
    assert control.read_orders(folder, 0.0) == Orders(True, True, {first: "cancel"})
    assert control.read_orders(folder, time.time() + 1) == Orders(None, False, {first: "cancel"})


def test_runs_that_are_tried_again_count_as_open(folder: Path) -> None:
    for number, cause in ((1, "failed"), (2, "completed")):
        journal = sample_suites.begin(folder, number, wall=time.time() - 5_000)
        journal.put(m.End.model_validate({"t": 2.0, "cause": cause}))
    suite = suite_reader.SuiteReader(folder).poll()
    assert states(suite) == ["queued again", ""]
    assert run_summary.format_outcomes(suite) == "1 of 2 runs completed"
    alone = replace(suite, to_retry=frozenset())
    assert run_summary.format_outcomes(alone) == "1 of 2 runs completed · 1 failed"


def test_a_command_without_a_name_means_what_is_at_work(tmp_path: Path) -> None:
    choose = warden_file.choose_suite_at_work
    old = sample_suites.make_suite(tmp_path, CELLS, state="running", stamp="20261101-000000")
    sample_suites.make_suite(tmp_path, CELLS, state="ended", stamp="20261102-000000")
    sample_suites.make_suite(tmp_path, CELLS, state="running", pid=1 << 30)
    assert choose(tmp_path, None) == old, "not the newest, nor one whose warden is gone"
    sample_suites.write_warden(old, "ended")
    assert choose(tmp_path, None) is None
    sample_suites.write_warden(old, "queued")
    sample_suites.make_suite(tmp_path, CELLS, state="running", name="b")
    with pytest.raises(SuiteError, match=r"2 suites are at work.*\(queued\)"):
        choose(tmp_path, None)
    assert choose(tmp_path, "20261101") == old


def test_an_order_that_a_full_disk_cuts_is_an_error_and_spoils_no_later_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, line: write(fd, line[:20]))
        with pytest.raises(OSError, match="No space left"):
            control.send_command(folder, Command(do="stop"))
    control.send_command(folder, Command(do="pause"))
    assert [command.do for command in control.read_commands(folder, 0)[0]] == ["pause"]
