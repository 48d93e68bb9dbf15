"""Which run of a suite may start next, on one lane and on several."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.messages import End
from engines.protocol import Entry, RunSpec
from workbench.suites import control, state
from workbench.supervisor.control_queue import ControlQueue
from workbench.supervisor.run_queue import RunQueue


def ended(cause: str) -> state.RunState:
    return state.reduce_entries([Entry(seq=0, wall=1.0, src="warden", msg=End(cause=cause))])


class Suite:
    """A queue of runs a, b, … and what their needs are."""

    def __init__(self, folder: Path, *, resumed: bool = False, **runs: dict[str, object]) -> None:
        self.folder = folder
        self.control = ControlQueue(folder, resumed=resumed)
        self.queue = RunQueue(self.control, resumed=resumed)
        for name, fields in runs.items():
            (folder / name).mkdir()
            base = {"suite": "s", "run_id": name, "engine": "e", "subset": "d", "model": "m"}
            spec = RunSpec.model_validate({**base, "cache_root": "/none", **fields})
            self.queue.add(folder / name, spec)

    def startable(self) -> str:
        assert self.queue.take_refused(turn=True) == []
        return "".join(run.run_id for run in self.queue.startable())

    def start(self, names: str) -> None:
        for run in [run for run in self.queue.pending if run.run_id in names]:
            self.queue.start(run)

    def end(self, name: str, cause: str = "completed", *, retry: bool = False) -> None:
        run = next(run for run in self.queue.running if run.run_id == name)
        self.queue.end(run, ended(cause), retry=retry)

    def refused(self, *, turn: bool = True) -> dict[str, tuple[str, str]]:
        refusals = self.queue.take_refused(turn=turn)
        return {r.run.run_id: (r.cause, r.need) for r in refusals}


def test_runs_pass_one_whose_need_is_not_over(tmp_path: Path) -> None:
    suite = Suite(tmp_path, a={}, b={}, c={"needs": ("a", "b")}, d={})
    assert suite.startable() == "abd"
    suite.start("ab")
    assert suite.startable() == "d"
    suite.end("a")
    assert suite.startable() == "d"
    suite.end("b")
    assert suite.startable() == "cd"


def test_a_run_whose_need_fails_is_skipped_and_so_is_what_needs_it(tmp_path: Path) -> None:
    suite = Suite(tmp_path, a={}, b={"needs": ("a",)}, c={"needs": ("b",)}, d={"needs": ("e",)},
                  e={})  # fmt: skip
    assert suite.refused() == {"d": ("skipped", "e")}, "a need must come before"
    suite.start("a")
    suite.end("a", "failed")
    assert suite.refused() == {"b": ("skipped", "a"), "c": ("skipped", "b")}
    assert suite.startable() == "e"


def test_an_exclusive_run_waits_for_all_and_none_passes_it(tmp_path: Path) -> None:
    suite = Suite(tmp_path, a={}, b={}, c={"exclusive": True}, d={}, e={"exclusive": True})
    suite.start("ab")
    assert suite.startable() == ""
    suite.end("b")
    assert suite.startable() == ""
    suite.end("a")
    assert suite.startable() == "c"
    suite.start("c")
    assert suite.startable() == ""
    suite.end("c")
    suite.start("d")
    assert suite.startable() == "", "e waits for d"


def test_a_retried_run_is_the_next_one(tmp_path: Path) -> None:
    suite = Suite(tmp_path, a={}, b={"needs": ("a",)}, c={})
    suite.start("a")
    suite.end("a", "oom-cuda", retry=True)
    assert suite.startable() == "ac"
    suite.start("a")
    suite.end("a", "oom-cuda")
    assert suite.refused() == {"b": ("skipped", "a")}


def test_commands_reach_runs_at_work_and_later_ones(tmp_path: Path) -> None:
    suite = Suite(tmp_path, a={}, b={}, c={}, d={})
    asked = []

    class Working:
        def __init__(self, run_id: str) -> None:
            self.spec = suite.queue.pending[0].spec.model_copy(update={"run_id": run_id})

        def request_stop(self, cause: str, detail: str) -> None:
            asked.append((self.spec.run_id, cause))

    suite.control.working += [Working("a"), Working("b")]
    suite.start("ab")
    for run in ("b", "c", None):
        control.send_command(tmp_path, control.Command(do="skip", run=run))
    suite.control.poll()
    assert asked == [("b", "skipped"), ("a", "skipped")]
    assert suite.refused(turn=False) == {}, "it may be taken back until its turn"
    assert suite.refused() == {"c": ("skipped", "")}
    control.send_command(tmp_path, control.Command(do="stop"))
    suite.control.poll()
    assert asked[2:] == [("a", "stopped"), ("b", "stopped")]
    assert suite.refused() == {"d": ("stopped", "")}


def test_a_run_left_out_lets_the_others_pass_and_may_be_taken_back(tmp_path: Path) -> None:
    suite = Suite(tmp_path, a={}, b={}, c={"needs": ("b",)})
    for do in ("cancel", "restore", "cancel"):
        control.send_command(tmp_path, control.Command(do=do, run="b"))
        suite.control.poll()
        assert suite.startable() == ("ab" if do == "restore" else "a")
    suite.start("a")
    assert suite.refused() == {"b": ("stopped", ""), "c": ("skipped", "b")}


@pytest.mark.parametrize("resumed", [False, True])
def test_runs_that_ended_before_are_kept_or_tried_again(tmp_path: Path, resumed: bool) -> None:
    suite = Suite(tmp_path, resumed=resumed, a={}, b={}, c={"needs": ("a",)}, d={"needs": ("b",)})
    for run, cause in zip(suite.queue.pending, ("completed", "killed"), strict=False):
        run.state = ended(cause)
    assert suite.refused() == ({} if resumed else {"d": ("skipped", "b")})
    assert suite.startable() == ("bc" if resumed else "c")
