"""Overhead of supervision: CPU seconds of warden and reader, as a share of the run's wall time.

Runs the stdlib engine with ten events a second, detached, and lets each reader follow it in turn:
`attach` into a pipe, and the screen in a real pseudo-terminal. CPU is read from /proc after the
reader has started up (its start is printed apart) and again before the run ends.

    python benchmarks/overhead.py [--seconds 60]
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 5.0
STEPS_PER_SECOND = 10


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drain(terminal: int, seconds: float) -> None:
    """Read what a program paints, so that it never waits for its terminal."""
    end = time.monotonic() + seconds
    while (remaining := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], remaining)[0]:
            try:
                os.read(terminal, 65_536)
            except OSError:  # the program has ended
                return


def spawn(words: list[str]) -> tuple[int, int]:
    """A command in a pseudo-terminal of 120 x 36."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="120", LINES="36")
        os.execv(sys.executable, [sys.executable, "-m", "workbench", *words])
    return pid, terminal


def watched(words: list[str], keys: bytes, seconds: float) -> tuple[float, float]:
    """CPU seconds of a reader's start, and its share of wall time after that."""
    pid, terminal = spawn(words)
    drain(terminal, START_SECONDS / 2)
    os.write(terminal, keys)
    drain(terminal, START_SECONDS / 2)
    started, began = cpu_seconds(pid), time.monotonic()
    drain(terminal, seconds)
    share = (cpu_seconds(pid) - started) / (time.monotonic() - began)
    os.kill(pid, signal.SIGTERM)
    drain(terminal, 1.0)
    os.waitpid(pid, 0)
    os.close(terminal)
    return started, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    sys.path.insert(0, str(ROOT))
    from workbench.suites import control, suite, warden_file

    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(WORKBENCH_LOG_ROOT=folder, WORKBENCH_LOCKS=folder)
        steps = int(2 * (seconds + 3 * START_SECONDS) * STEPS_PER_SECOND)
        settings = [f"steps={steps}", f"delay_seconds={1 / STEPS_PER_SECOND - 0.001}", "rounds=1"]
        words = ["run", "-e", "probe", "-d", "none", "-m", "none", "--detach"]
        for setting in settings:
            words += ["--set", setting]
        pid, terminal = spawn(words)
        drain(terminal, 1.0)
        os.waitpid(pid, 0)
        suite_folder = suite.find_suite(Path(folder), None)
        warden = warden_file.read_warden(suite_folder)
        if warden is None:
            raise SystemExit("the warden did not start")
        time.sleep(1.0)
        before, began = cpu_seconds(warden.pid), time.monotonic()
        attach = watched(["attach"], b"", seconds)
        screen = watched([], b"2", seconds)
        share = (cpu_seconds(warden.pid) - before) / (time.monotonic() - began)
        control.send_command(suite_folder, control.Command(do="stop"))
        while warden_file.is_alive(warden):
            time.sleep(0.1)
    print(f"warden (no GPU: no sampler)     {share:7.2%} of wall time")
    for name, (start, reader) in (("attach", attach), ("screen", screen)):
        total = share + reader
        print(f"reader: {name:<8} start {start:.2f} s, then {reader:7.2%}; with warden {total:.2%}")


if __name__ == "__main__":
    main()
