"""Endings as a person causes them, at a real terminal: Ctrl-C, a dropped line, a closed window.

The kernel's terminal is the witness here: who gets which signal is decided by sessions and process
groups, and a test that sends signals by pid would not see a mistake in those.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.wardens import Sandbox, end_of, until
from workbench.suites import suite, suite_reader, warden_file

ENDLESS = [
    "run", "-e", "probe", "-d", "none", "-m", "none", "--set", "steps=1000000",
    "--set", "delay_seconds=0.02", "--set", "rounds=1",
]  # fmt: skip


class Terminal:
    """A terminal with one command in it, which is its session leader and foreground group."""

    def __init__(self, sandbox: Sandbox, *words: str) -> None:
        self.screen = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(sandbox.root)
            command = [sys.executable, "-m", "workbench", *words]
            os.execve(sys.executable, command, {**sandbox.environment, "TERM": "dumb"})

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def close(self) -> None:
        """The line drops: the kernel hangs up on everybody in the foreground."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def wait(self, seconds: float = 30) -> int:
        """Its exit status, negative for a signal; reads the screen meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.master >= 0 and select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.screen += os.read(self.master, 65_536)
                except OSError:  # EIO: everybody has closed the other side
                    time.sleep(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still there after {seconds} s; the screen: {self.screen[-2000:]!r}")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= {"WORKBENCH_GRACE": "2", "WORKBENCH_LOG_ROOT": str(sandbox.logs)}
        yield sandbox


@pytest.fixture
def terminal(sandbox: Sandbox) -> Iterator[Terminal]:
    """`workbench run` in the foreground, at work."""
    built = Terminal(sandbox, *ENDLESS)
    yield built
    built.close()
    if built.pid:
        os.kill(built.pid, signal.SIGKILL)
        os.waitpid(built.pid, 0)


def at_work(sandbox: Sandbox) -> Path:
    """The suite, once its engine has done a step."""
    until(lambda: suite.list_suites(sandbox.logs), "a suite")
    folder = suite.list_suites(sandbox.logs)[0]
    until(lambda: warden_file.read_warden(folder) is not None, "a warden")
    sandbox.until_step(folder)
    return folder


def gone(sandbox: Sandbox, folder: Path) -> None:
    until(lambda: not sandbox.survivors() and not sandbox.warden_pid(folder), "an empty sandbox")


def test_ctrl_c_reaches_the_command_only_and_the_engine_saves(
    sandbox: Sandbox, terminal: Terminal
) -> None:
    folder = at_work(sandbox)
    terminal.press(b"\x03")
    assert terminal.wait() == 130
    gone(sandbox, folder)
    end = end_of(folder)
    assert (end.cause, end.exit_code, end.signal) == ("stopped", 143, None), "asked, not killed"
    state = suite_reader.SuiteReader(folder).poll()
    assert state.runs[0].state.failed is not None, "it said its last word"


def test_a_dropped_line_takes_a_foreground_suite_with_it(
    sandbox: Sandbox, terminal: Terminal
) -> None:
    folder = at_work(sandbox)
    terminal.close()
    terminal.wait()
    gone(sandbox, folder)
    assert end_of(folder).cause == "stopped"


def test_a_dropped_line_does_not_touch_a_detached_suite(sandbox: Sandbox) -> None:
    terminal = Terminal(sandbox, *ENDLESS, "--detach")
    assert terminal.wait() == 0
    folder = at_work(sandbox)
    watcher = Terminal(sandbox, "attach", folder.name)
    until(lambda: select.select([watcher.master], [], [], 0)[0], "the watcher's first words")
    watcher.close()
    terminal.close()
    watcher.wait()
    step = suite_reader.SuiteReader(folder).poll().runs[0].state.step
    sandbox.until_step(folder, step + 10)
    stopped = subprocess.run(
        [sys.executable, "-m", "workbench", "stop", folder.name],
        env=sandbox.environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert stopped.returncode == 0, stopped.stderr
    gone(sandbox, folder)
    assert end_of(folder).cause == "stopped"


def test_a_frozen_command_does_not_slow_the_run(sandbox: Sandbox, terminal: Terminal) -> None:
    """Ctrl-Z, a stuck terminal, a TUI that hangs: the warden and the engine never notice."""
    folder = at_work(sandbox)
    os.kill(terminal.pid, signal.SIGSTOP)
    before = suite_reader.SuiteReader(folder).poll().runs[0].state.step
    time.sleep(1.0)
    during = suite_reader.SuiteReader(folder).poll().runs[0].state.step - before
    os.kill(terminal.pid, signal.SIGCONT)
    assert during > 10, "20 ms a step"
    terminal.press(b"\x03")
    assert terminal.wait() == 130
    gone(sandbox, folder)


def test_kill_9_of_a_terminal_and_all_its_children(sandbox: Sandbox, terminal: Terminal) -> None:
    """What a closing multiplexer does: SIGKILL to every process of the command's session."""
    folder = at_work(sandbox)
    os.killpg(terminal.pid, signal.SIGKILL)
    assert terminal.wait() == -signal.SIGKILL
    gone(sandbox, folder)
    assert end_of(folder).cause == "stopped"
    row = json.loads((sandbox.logs / "results.jsonl").read_text())
    assert row["exit"]["cause"] == "stopped"


REFERENCE = """if True:
    import sys, time
    from engines import messages, protocol
    step = messages.Step(t=1, step=5, count=5, samples=5, seconds=0.1, loss=1, lr=0.1)
    line = protocol.encode(step)
    began = time.process_time()
    with open(sys.argv[1], "ab", buffering=0) as journal:
        for n in range(100):
            time.sleep(0.1)
            step = protocol.decode(line)
            entry = protocol.Entry(seq=n, wall=1.0, src="engine", msg=step)
            journal.write(protocol.encode(entry))
    print(time.process_time() - began)"""
"""What cannot be spared: ten seconds of ten events a second are read, checked and written."""


@pytest.mark.slow
def test_the_observer_costs_little_more_than_its_journal(sandbox: Sandbox) -> None:
    """CPU seconds of warden and sampler over ten seconds of an engine with 10 events a second, as a
    ratio to a process that only keeps such a journal, at the same time: 2.2 to 2.5 idle and busy.

    Seconds alone say nothing: a virtual machine charges an idle process for waking up, 0.02 s in
    one hour and 0.4 in another.
    """
    steps = ["--set", "steps=450", "--set", "delay_seconds=0.02", "--set", "rounds=1"]
    words = [*ENDLESS[:7], *steps, "--headless"]
    reference = subprocess.Popen(
        [sys.executable, "-c", REFERENCE, str(sandbox.root / "journal")],
        env=sandbox.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        env=sandbox.environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counters = end_of(suite.list_suites(sandbox.logs)[0]).counters
    assert counters["wall_seconds"] > 8
    spent = counters["warden_cpu_seconds"] + counters["sampler_cpu_seconds"]
    assert spent < 4 * float(reference.communicate(timeout=120)[0])
