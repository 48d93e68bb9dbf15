"""Faults of processes and events, by their numbers in docs/faults.md, that have no better place."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines import protocol
from engines.emitter import Emitter
from engines.messages import Notice, Progress, Step
from engines.protocol import Entry, RunSpec
from tests.fixtures.wardens import Sandbox, end_of, entries, until
from workbench.suites import control, record, state, suite_reader
from workbench.suites.control import Command


def log_of(folder: Path) -> str:
    return (next((folder / "runs").iterdir()) / "engine.log").read_text(errors="replace")


def test_a_crash_in_native_code_leaves_its_stack(sandbox: Sandbox) -> None:
    """[2] SIGSEGV."""
    folder, _ = sandbox.run("segv")
    assert end_of(folder).signal == signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in log_of(folder)
    assert "string_at" in log_of(folder)


def test_kill_9_of_a_watcher_leaves_no_gap(sandbox: Sandbox) -> None:
    """[5] The run goes on; who attaches anew sees everything."""
    folder = sandbox.suite("polite")
    sandbox.start(folder)
    command = [sys.executable, "-m", "workbench", "attach", str(folder), "--json"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, env=sandbox.environment)
    assert watcher.stdout is not None
    watcher.stdout.read(1)
    watcher.kill()
    watcher.communicate()
    step = suite_reader.SuiteReader(folder).poll().runs[0].state.step
    sandbox.until_step(folder, step + 3)
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    assert [e.seq for e in entries(folder)] == list(range(len(entries(folder))))


def test_a_suspended_engine_is_named_and_neither_hung_nor_lost(sandbox: Sandbox) -> None:
    """[11] SIGSTOP for longer than the hang limit; SIGCONT, and it goes on."""
    folder = sandbox.suite("polite")
    sandbox.start(folder, stall_seconds=0.3, stall_step_seconds=0.3, hang_seconds=1.0)
    sandbox.until_step(folder, 2)
    pid = suite_reader.SuiteReader(folder).poll().runs[0].state.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)
    run = suite_reader.SuiteReader(folder).poll().runs[0].state
    assert run.status == "running"
    assert run.notice_counts.get("suspended") == 1
    assert "stalled" not in run.notice_counts
    os.kill(pid, signal.SIGCONT)
    sandbox.until_step(folder, run.step + 3)
    control.send_command(folder, Command(do="stop"))
    assert sandbox.finish(folder).runs[0].state.cause == "stopped"


def test_an_engine_that_never_speaks_is_hung(sandbox: Sandbox) -> None:
    """[22] Not even a Hello; and its silence is noted before it is killed."""
    folder, view = sandbox.run("mute", hang_seconds=1.0)
    assert view.runs[0].state.cause == "hung"
    codes = [e.msg.code for e in entries(folder) if isinstance(e.msg, Notice)]
    assert codes == ["stalled"]


def test_a_long_phase_is_no_hang_in_a_phase_that_may_be_long(sandbox: Sandbox) -> None:
    """[24] Silence of eval is measured by stall_seconds, of training by the steps."""
    _, view = sandbox.run("allocate", stall_seconds=30.0, stall_step_seconds=0.1)
    assert view.runs[0].state.cause == "completed"
    assert "stalled" not in view.runs[0].state.notice_counts


def test_words_after_the_last_are_counted_and_change_nothing(sandbox: Sandbox) -> None:
    """[3, 33] A Failed after the Done is as little believed as a step."""
    folder, view = sandbox.run("late-words")
    assert view.runs[0].state.cause == "completed"
    assert view.runs[0].state.step == 1
    assert end_of(folder).counters["messages_after_the_last"] == 2


def test_a_slow_checkpoint_is_waited_for(sandbox: Sandbox) -> None:
    """[8, 44] 1.5 s for a checkpoint in a grace of 0.5 s: the engine says that it saves."""
    folder = sandbox.suite("slow-save")
    sandbox.start(folder)
    sandbox.until_step(folder)
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    end = end_of(folder)
    assert (end.cause, end.exit_code, end.signal) == ("stopped", 143, None)
    short = sandbox.suite("slow-save", name="short")
    sandbox.start(short, save_seconds=0.2)
    sandbox.until_step(short)
    control.send_command(short, Command(do="stop"))
    sandbox.finish(short)
    assert end_of(short).signal == signal.SIGTERM or end_of(short).signal == signal.SIGKILL


def test_a_writer_never_waits_for_a_stopped_reader() -> None:
    """[29] 20,000 steps into a pipe that nobody reads: no call takes long, drops are counted."""
    reading, writing = os.pipe()
    emit = Emitter(writing)
    longest = 0.0
    for number in range(1, 20_001):
        began = time.perf_counter()
        emit.send(Step(step=number, count=1, samples=1, seconds=0.1, loss=1.0, lr=0.1))
        if number % 40 == 0:
            emit.send(Progress(done=number, total=20_000))
        longest = max(longest, time.perf_counter() - began)
    assert longest < 0.25, f"{longest * 1000:.1f} ms; a blocked write would take for ever"
    assert emit.dropped > 0
    os.close(reading)
    os.close(writing)


def test_a_stopped_warden_does_not_slow_the_engine(sandbox: Sandbox) -> None:
    """[29] SIGSTOP of the warden for two seconds: the engine's steps go on; the journal has all."""
    folder = sandbox.suite("polite")
    sandbox.start(folder)
    sandbox.until_step(folder)
    pid = sandbox.warden_pid(folder)
    os.kill(pid, signal.SIGSTOP)
    before = suite_reader.SuiteReader(folder).poll().runs[0].state.step
    time.sleep(2.0)
    os.kill(pid, signal.SIGCONT)
    sandbox.until_step(folder, before + 20)
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    steps = [e.msg.step for e in entries(folder) if isinstance(e.msg, Step)]
    assert steps == list(range(1, len(steps) + 1))
    times = [e.msg.t for e in entries(folder) if isinstance(e.msg, Step)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.quantiles(gaps, n=20)[-1] < 0.5, "50 ms a step, whoever sleeps"


def test_entries_that_come_twice_count_once() -> None:
    """[33] A journal read twice gives the same state as read once; a gap is counted."""
    read = [
        Entry(seq=n, wall=0.0, src="engine", msg=Notice(t=float(n), code="a", text="b"))
        for n in (0, 1, 2, 5)
    ]
    once = state.reduce_entries(read)
    assert state.reduce_entries(read, once) == once
    assert (once.gaps, once.notice_counts) == (2, {"a": 4})


def test_lines_of_two_ranks_do_not_mix() -> None:
    """[36] Two writers on one pipe: every line comes whole, because it is short enough."""
    reading, writing = os.pipe()
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            for number in range(300):
                text = chr(97 + rank) * 1500
                line = protocol.encode(Notice(t=1.0, code=str(number), text=text))
                os.write(writing, line)  # below PIPE_BUF, so it cannot be divided
            os._exit(0)
        children.append(pid)
    os.close(writing)
    data = b""
    while part := os.read(reading, 65_536):
        data += part
    for pid in children:
        os.waitpid(pid, 0)
    messages = [protocol.decode(line) for line in data.splitlines()]
    assert len(messages) == 600
    assert all(len(set(m.model_dump()["text"])) == 1 for m in messages)


def test_memory_that_the_system_refuses_is_oom_host(sandbox: Sandbox) -> None:
    """[51] RLIMIT_AS of 300 MiB, an allocation of 400."""
    folder, view = sandbox.run("eat-memory")
    assert view.runs[0].state.cause == "oom-host"
    assert end_of(folder).exit_code == 1


def test_durations_do_not_come_from_the_wall_clock(sandbox: Sandbox) -> None:
    """[59] A wall clock that jumps by an hour at every entry moves labels and nothing else."""
    folder, view = sandbox.run("ok")
    read = entries(folder)
    jumped = [e.model_copy(update={"wall": e.wall - 3600.0 * n}) for n, e in enumerate(read)]
    spec = RunSpec.model_validate(view.runs[0].spec)
    true, strange = (
        record.build_record(spec, state.reduce_entries(r), "x") for r in (read, jumped)
    )
    assert strange.timing == true.timing
    assert strange.counters == true.counters


def test_sleep_of_the_machine_marks_the_run(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[60] CLOCK_BOOTTIME goes on while CLOCK_MONOTONIC stands still."""
    from workbench.processes.watchdog import SuspendDetector

    gap = [0.0]
    sleep = SuspendDetector(lambda: gap[0])
    assert sleep.suspended_seconds() == 0.0
    gap[0] = 0.5
    assert sleep.suspended_seconds() == 0.0, "clocks are read one after the other"
    gap[0] = 90.0
    assert sleep.suspended_seconds() == pytest.approx(90.0)
    assert sleep.suspended_seconds() == 0.0, "once"


def test_a_lock_says_who_holds_it(sandbox: Sandbox) -> None:
    """[45] A second warden of a suite is refused and told about the first."""
    folder = sandbox.suite("polite")
    sandbox.start(folder)
    sandbox.until_step(folder)
    pid = sandbox.wardens[-1].pid  # the guard, which holds the lock together with the warden
    second = sandbox.start(folder)
    assert second.wait(20) == 2
    sandbox.wardens.pop()
    assert f"has a warden already (pid {pid} on " in sandbox.log(folder)
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)


def test_no_engine_has_a_zombie_or_is_one(sandbox: Sandbox) -> None:
    """[17, 18] A child that blocks in a full pipe does not outlive its parent's death."""
    folder = sandbox.suite("full-pipe")
    sandbox.start(folder)
    run = next((folder / "runs").iterdir())
    until((run / "pids").exists, "the blocked child")
    pid = suite_reader.SuiteReader(folder).poll().runs[0].state.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    sandbox.finish(folder)
    blocked = int((run / "pids").read_text())
    assert blocked in end_of(folder).killed
    assert not Path(f"/proc/{blocked}").exists()
    assert ctypes.CDLL(None).kill(blocked, 0) == -1
