"""Every ending of an engine has its true cause, and none leaves a process behind."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import messages
from engines.messages import Sample, Step
from results.records import store
from tests.fixtures.fake_engine import BAD_LINES
from tests.fixtures.wardens import PATIENCE, Sandbox, end_of, entries, until
from workbench.suites import control, suite, suite_reader
from workbench.suites.control import Command
from workbench.suites.state import RunView

ENDINGS = {
    "ok": ("completed", 0, None, ""),
    "nan": ("completed", 0, None, ""),
    "exit0": ("protocol-error", 0, None, "never said"),
    "close-pipe": ("protocol-error", 0, None, "never said"),
    "exit3": ("failed", 3, None, "did not say why"),
    "done-exit2": ("failed", 2, None, "then exited with 2"),
    "failed": ("failed", 1, None, "The data is wrong."),
    "bad-artifact": ("failed", 0, None, "no whole safetensors"),
    "segv": ("failed", None, signal.SIGSEGV, "crashed (SIGSEGV)"),
    "kill9": ("killed", None, signal.SIGKILL, "SIGKILL"),
    "half-line": ("killed", None, signal.SIGKILL, "SIGKILL"),
    "oom-cuda": ("oom-cuda", 1, None, "CUDA out of memory"),
    "oom-host": ("oom-host", 1, None, "MemoryError"),
    "oom-exit": ("oom-cuda", 1, None, "a library ended the engine: the GPU ran out of memory"),
    "protocol99": ("protocol-error", None, signal.SIGTERM, "protocol 99"),
    "leave-behind": ("completed", 0, None, ""),
    "hold-pipe": ("completed", 0, None, ""),
    "garbage": ("completed", 0, None, ""),
    "malformed": ("completed", 0, None, ""),
    "oversize": ("completed", 0, None, ""),
}


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, Path]]:
    """One suite with a run for every ending; each has to leave the next one undisturbed."""
    with Sandbox(tmp_path_factory.mktemp("endings")) as sandbox:
        folder, _ = sandbox.run(*ENDINGS)
        yield sandbox, folder


def index_of(mode: str) -> int:
    return list(ENDINGS).index(mode)


@pytest.mark.parametrize("mode", ENDINGS)
def test_each_ending_has_its_cause(endings: tuple[Sandbox, Path], mode: str) -> None:
    _, folder = endings
    cause, code, number, detail = ENDINGS[mode]
    end = end_of(folder, index_of(mode))
    assert (end.cause, end.exit_code, end.signal) == (cause, code, number)
    assert detail in end.detail
    assert end.survivors == ()
    assert entries(folder, index_of(mode))[0].msg.model_dump()["kind"] == "attempt"


def test_every_run_leaves_one_record_and_a_summary(endings: tuple[Sandbox, Path]) -> None:
    sandbox, _ = endings
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [r.identity.model for r in records] == list(ENDINGS)
    assert [r.exit.cause for r in records] == [cause for cause, *_ in ENDINGS.values()]
    for record in records:
        summary = json.loads((sandbox.logs / record.folder / "summary.json").read_text())
        assert summary == json.loads(record.model_dump_json())


def test_the_last_step_before_a_kill_is_in_the_journal(endings: tuple[Sandbox, Path]) -> None:
    folder = endings[1]
    steps = [e.msg.step for e in entries(folder, index_of("kill9")) if isinstance(e.msg, Step)]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert end_of(folder, index_of("half-line")).counters["torn_lines"] == 1


def test_garbage_on_stdout_reaches_the_log_and_no_event(endings: tuple[Sandbox, Path]) -> None:
    folder = endings[1]
    read = entries(folder, index_of("garbage"))
    assert sum(isinstance(e.msg, Step) for e in read) == 100
    log = (sorted((folder / "runs").iterdir())[index_of("garbage")] / "engine.log").read_bytes()
    assert len(log) == 100 * (200 + 12 + 50)


def test_bad_lines_are_counted_and_nothing_else_is_lost(endings: tuple[Sandbox, Path]) -> None:
    folder = endings[1]
    counters = end_of(folder, index_of("malformed")).counters
    assert counters["malformed_lines"] == len(BAD_LINES)
    assert counters["unknown_messages"] == 1
    read = entries(folder, index_of("malformed"))
    assert [e.msg.model_dump()["colour"] for e in read if e.msg.model_dump()["kind"] == "aura"] == [
        "blue"
    ]
    assert sum(isinstance(e.msg, Step) for e in read) == 1
    assert sum(isinstance(e.msg, messages.End) for e in read) == 1, "an engine cannot end itself"


def test_an_oversize_line_costs_itself_only(endings: tuple[Sandbox, Path]) -> None:
    folder = endings[1]
    steps = [e.msg.step for e in entries(folder, index_of("oversize")) if isinstance(e.msg, Step)]
    assert steps == [1, 2]
    assert end_of(folder, index_of("oversize")).counters["oversize_lines"] == 1


def test_a_nan_loss_stays_a_nan(endings: tuple[Sandbox, Path]) -> None:
    losses = [e.msg.loss for e in entries(endings[1], index_of("nan")) if isinstance(e.msg, Step)]
    assert len(losses) == 1
    assert math.isnan(losses[0])


def test_what_a_finished_engine_left_behind_is_killed_and_named(
    endings: tuple[Sandbox, Path],
) -> None:
    folder = endings[1]
    left = sorted((folder / "runs").iterdir())[index_of("leave-behind")]
    pids = {int(line) for line in (left / "pids").read_text().splitlines()}
    assert len(pids) == 5
    assert set(end_of(folder, index_of("leave-behind")).killed) == pids
    held = end_of(folder, index_of("hold-pipe"))
    assert held.counters["pipe_held_open"] == 1
    assert held.t < 1.0, "the wait for the pipe is not the engine's time"


def test_the_suite_ends_and_its_journals_have_no_gap(endings: tuple[Sandbox, Path]) -> None:
    view = suite_reader.SuiteReader(endings[1]).poll()
    assert view.warden == "ended"
    for run in view.runs:
        assert run.state.gaps == 0
    for index in range(len(ENDINGS)):
        assert [e.seq for e in entries(endings[1], index)] == list(
            range(len(entries(endings[1], index)))
        )


def test_samples_see_memory_of_the_whole_tree(sandbox: Sandbox) -> None:
    folder, view = sandbox.run("allocate", pss_seconds=0.0)
    mib = 1 << 20
    peaks = view.runs[0].state.peaks
    assert 64 * mib < peaks["rss_main_peak"] < 110 * mib
    assert 128 * mib < peaks["rss_tree"] < 220 * mib
    assert 110 * mib < peaks["pss_tree"] < peaks["rss_tree"] + mib
    samples = [e.msg for e in entries(folder) if isinstance(e.msg, Sample)]
    assert max(s.processes for s in samples) == 2
    assert all(s.gpus == () and s.gpu_reason for s in samples), "absent, and it says why"
    assert len(samples) >= 3


@pytest.mark.parametrize("mode", ["polite", "steps-forever", "ignore-term", "stop-itself"])
def test_stop_ends_every_temper_of_engine(sandbox: Sandbox, mode: str) -> None:
    folder = sandbox.suite(mode, "ok")
    sandbox.start(folder)
    if mode == "stop-itself":
        until(lambda: suite_reader.SuiteReader(folder).poll().current, "the run's start")
        until(
            lambda: "T" in stat_of(suite_reader.SuiteReader(folder).poll().current),
            "a stopped engine",
        )
    else:
        sandbox.until_step(folder)
    began = time.monotonic()
    control.send_command(folder, Command(do="stop"))
    view = sandbox.finish(folder)
    assert time.monotonic() - began < 0.5 + 0.3 + 3, "grace, groups, and a busy machine"
    assert [r.state.cause for r in view.runs] == ["stopped", "stopped"]
    assert "before this run started" in end_of(folder, 1).detail
    end = end_of(folder)
    if mode == "polite":
        assert (end.exit_code, end.killed) == (143, ())
        assert view.runs[0].state.failed is not None
    elif mode == "ignore-term":
        assert end.signal == signal.SIGKILL
        assert end.t > 0.5, "not before the grace"


def stat_of(view: RunView | None) -> str:
    assert view is not None
    return Path(f"/proc/{view.state.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_second_stop_does_not_wait_for_the_grace(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ignore-term")
    sandbox.start(folder, grace_seconds=60, group_seconds=60)
    sandbox.until_step(folder)
    for _ in range(3):
        control.send_command(folder, Command(do="stop"))
    assert sandbox.finish(folder).runs[0].state.cause == "stopped"
    assert end_of(folder).t < 20


@pytest.mark.parametrize("mode", ["storm", "stubborn-storm"])
def test_grandchildren_in_their_own_sessions_die_with_the_run(sandbox: Sandbox, mode: str) -> None:
    folder = sandbox.suite(mode)
    sandbox.start(folder)
    sandbox.until_step(folder, 2)
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    pids = (next((folder / "runs").iterdir()) / "pids").read_text().splitlines()
    assert len(pids) == 5
    deaf = {int(pid) for pid in pids[:4]}  # the fifth may have heeded a SIGTERM
    assert deaf <= set(end_of(folder).killed)


def test_kill_9_of_the_engine_takes_its_grandchildren(sandbox: Sandbox) -> None:
    folder = sandbox.suite("storm", "ok")
    sandbox.start(folder)
    sandbox.until_step(folder, 2)
    current = suite_reader.SuiteReader(folder).poll().current
    assert current is not None
    assert current.state.pid is not None
    os.kill(current.state.pid, signal.SIGKILL)
    view = sandbox.finish(folder)
    assert [r.state.cause for r in view.runs] == ["killed", "completed"]
    assert len(end_of(folder).killed) == 5


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_kill_9_of_the_warden_leaves_nothing_within_two_seconds(
    sandbox: Sandbox, tie: bool
) -> None:
    """Also when the engine neither asks for PDEATHSIG nor reads the life pipe."""
    folder = sandbox.suite("stubborn-storm", tie=tie)
    sandbox.start(folder)
    sandbox.until_step(folder, 2)
    os.kill(sandbox.warden_pid(folder), signal.SIGKILL)
    until(lambda: not sandbox.survivors(), "an empty sandbox", seconds=2)
    assert suite_reader.SuiteReader(folder).poll().warden == "lost"
    until(lambda: "the warden ended with -9" in sandbox.log(folder), "the guard's word")


def test_kill_9_of_the_guard_disturbs_nothing(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite", "ok")
    guard = sandbox.start(folder)
    sandbox.until_step(folder)
    guard.kill()
    guard.wait()
    control.send_command(folder, Command(do="skip"))
    reader = suite_reader.SuiteReader(folder)
    until(lambda: reader.poll().ended, "the suite's end")
    assert [r.state.cause for r in reader.poll().runs] == ["skipped", "completed"]


def test_kill_9_of_both_ends_the_engine_too(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ignore-term")
    guard = sandbox.start(folder)
    sandbox.until_step(folder)
    pid = sandbox.warden_pid(folder)
    guard.kill()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not sandbox.survivors(), "an empty sandbox", seconds=2)


def test_the_end_of_the_life_pipe_stops_the_suite(sandbox: Sandbox) -> None:
    folder = sandbox.suite("steps-forever", "ok")
    reading, writing = os.pipe()
    sandbox.start(folder, life_fd=reading)
    os.close(reading)
    sandbox.until_step(folder)
    os.close(writing)
    view = sandbox.finish(folder)
    assert [r.state.cause for r in view.runs] == ["stopped", "stopped"]
    assert "has ended" in end_of(folder).detail


def test_signals_to_the_warden_stop_the_suite(sandbox: Sandbox) -> None:
    """SIGINT and SIGTERM: `tests/e2e/test_run.py`, `test_run_warden.py`."""
    number = signal.SIGHUP
    folder = sandbox.suite("polite")
    warden = sandbox.start(folder)
    sandbox.until_step(folder)
    warden.send_signal(number)
    sandbox.finish(folder)
    end = end_of(folder)
    assert (end.cause, end.detail, end.exit_code) == ("stopped", f"stopped by {number.name}", 143)


def test_skip_and_cancel_of_runs_now_and_later(sandbox: Sandbox) -> None:
    folder = sandbox.suite("steps-forever", "ok", "polite", "ok")
    sandbox.start(folder)
    sandbox.until_step(folder)
    ids = [spec.run_id for _, spec in suite.read_runs(folder)]
    control.send_command(folder, Command(do="cancel", run=ids[1]))
    control.send_command(folder, Command(do="skip"))
    until(lambda: suite_reader.SuiteReader(folder).poll().runs[2].state.step, "the third run")
    control.send_command(folder, Command(do="cancel", run=ids[2]))
    view = sandbox.finish(folder)
    assert [r.state.cause for r in view.runs] == ["skipped", "stopped", "stopped", "completed"]
    assert view.runs[1].state.attempt == 0
    assert len(list(store.read_records(sandbox.logs / "results.jsonl"))) == 4


def test_pause_waits_before_the_next_run_until_resume(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ok", "ok")
    control.send_command(folder, Command(do="pause"))
    sandbox.start(folder)
    reader = suite_reader.SuiteReader(folder)
    until(lambda: reader.poll().warden == "paused", "paused")
    assert reader.poll().runs[0].state.status == "queued"
    control.send_command(folder, Command(do="resume"))
    assert [r.state.cause for r in sandbox.finish(folder).runs] == ["completed", "completed"]


def test_a_failed_need_skips_what_needs_it(sandbox: Sandbox) -> None:
    folder = sandbox.suite("exit3", "ok", "ok", "ok", needs={1: [0], 2: [1], 3: [3]})
    sandbox.start(folder)
    view = sandbox.finish(folder)
    assert [r.state.cause for r in view.runs] == ["failed", "skipped", "skipped", "skipped"]
    assert end_of(folder, 1).detail == "needs 01-fake-none-exit3, which ended as failed"
    assert "is no earlier run" in end_of(folder, 3).detail


def test_a_second_suite_waits_behind_the_first(sandbox: Sandbox) -> None:
    first = sandbox.suite("steps-forever", name="first")
    sandbox.start(first)
    sandbox.until_step(first)
    second = sandbox.suite("ok", name="second")
    sandbox.start(second)
    reader = suite_reader.SuiteReader(second)
    until(lambda: reader.poll().warden == "queued", "queued")
    assert reader.poll().detail == f"behind {first.name} on cpu"
    control.send_command(first, Command(do="stop"))
    assert sandbox.finish(second).runs[0].state.cause == "completed"
    assert "contaminated" not in end_of(second).counters


def test_a_suite_waits_for_the_end_of_the_one_it_is_queued_behind(sandbox: Sandbox) -> None:
    """Also where it shares the device, and so could start, and where the other one's warden has
    not begun yet."""
    first, second = sandbox.suite("steps-forever", name="first"), sandbox.suite("ok", name="second")
    os.utime(first / "plan.toml", (4e9, 4e9))  # made just now, for long
    behind = sandbox.start(second, share=True, after=first)
    reader = suite_reader.SuiteReader(second)
    until(lambda: reader.poll().warden == "queued", "queued")
    assert reader.poll().detail == f"behind {first.name}"
    sandbox.start(first)
    sandbox.until_step(first)
    assert reader.poll().warden == "queued"
    control.send_command(first, Command(do="stop"))
    sandbox.finish(first)
    assert behind.wait(PATIENCE) == 0
    ends = [end_of(folder) for folder in (first, second)]
    third = sandbox.suite("ok", name="third")
    sandbox.start(third, after=first)  # it has ended: nothing to wait for
    assert sandbox.finish(third).runs[0].state.cause == "completed"
    assert [end.cause for end in ends] == ["stopped", "completed"]


def test_a_queued_suite_can_be_stopped(sandbox: Sandbox) -> None:
    first = sandbox.suite("steps-forever", name="first")
    blocker = sandbox.start(first)
    sandbox.until_step(first)
    second = sandbox.suite("ok", name="second")
    sandbox.start(second)
    until(lambda: suite_reader.SuiteReader(second).poll().warden == "queued", "queued")
    control.send_command(second, Command(do="stop"))
    assert sandbox.finish(second).runs[0].state.cause == "stopped"
    control.send_command(first, Command(do="stop"))
    blocker.wait()


def test_sharing_a_device_marks_both(sandbox: Sandbox) -> None:
    first = sandbox.suite("polite", name="first")
    blocker = sandbox.start(first)
    sandbox.until_step(first)
    second = sandbox.suite("allocate", name="second")
    sandbox.start(second, share=True)
    assert sandbox.finish(second).runs[0].state.cause == "completed"
    control.send_command(first, Command(do="stop"))
    blocker.wait()
    assert end_of(first).counters["contaminated"] == 1
    assert end_of(second).counters["contaminated"] == 1


def test_a_second_warden_of_one_suite_is_refused(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite")
    first = sandbox.start(folder)
    sandbox.until_step(folder)
    second = sandbox.start(folder)
    assert second.wait(20) == 2
    assert "has a warden already" in sandbox.log(folder)
    sandbox.wardens.pop()
    control.send_command(folder, Command(do="stop"))
    first.wait()
    assert sandbox.finish(folder).runs[0].state.cause == "stopped"


def test_a_run_that_ended_is_not_repeated_by_a_new_warden(sandbox: Sandbox) -> None:
    folder, _ = sandbox.run("ok")
    before = entries(folder)
    sandbox.start(folder)
    sandbox.finish(folder)
    assert entries(folder) == before
    assert len(list(store.read_records(sandbox.logs / "results.jsonl"))) == 1
