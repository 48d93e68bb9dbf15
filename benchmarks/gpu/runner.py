"""Runs the steps in their order, within a budget, and survives whatever one of them does.

A worker process runs them, so that torch is imported once. It is replaced after a step that failed
(an error of CUDA may stick to the process) or that took longer than it may.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.journal import Journal

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 120.0
"""For a worker to import torch, on a cold disk."""


@dataclass(frozen=True)
class Step:
    """One named check or measurement."""

    name: str
    function: str
    """`module:function`; it is handed a `Report`."""
    seconds: float
    """It is ended after so long, and not begun where less than `least` of that is left."""
    least: float = 0.0
    """Seconds without which it is not worth beginning; 0: half of `seconds`."""
    cuda: bool = False
    """It is nothing without a GPU."""
    after: tuple[str, ...] = ()
    """Steps whose failure makes this one meaningless."""


@dataclass(frozen=True)
class Setup:
    """What every worker is told."""

    scratch: Path
    log: Path
    small: bool
    stretch: float = 1.0
    """Multiplies the seconds of every step: for a slow or busy machine."""


class Runner:
    """One run of the script."""

    def __init__(
        self, steps: Sequence[Step], journal: Journal, setup: Setup, budget: float
    ) -> None:
        self._steps, self._journal, self._setup = steps, journal, setup
        self._deadline = time.monotonic() + budget
        self._worker: Worker | None = None
        self.standing: dict[str, str] = {}
        """Of each step: ok, FAILED, skipped."""

    def run(self) -> int:
        """All steps; 1 if one FAILED, else 0."""
        try:
            for step in self._steps:
                start = time.monotonic()
                standing, remark = self._run_step(step)
                self.standing[step.name] = standing
                took = round(time.monotonic() - start, 2)
                self._journal.write(step.name, standing, took, remark or "seconds")
        finally:
            self._end_worker()
        failures = [name for name, standing in self.standing.items() if standing == "FAILED"]
        counts = {s: list(self.standing.values()).count(s) for s in ("ok", "FAILED", "skipped")}
        remark = f"FAILED: {', '.join(failures)}" if failures else ""
        self._journal.write("all", str(counts), None, remark)
        return int(bool(failures))

    def _run_step(self, step: Step) -> tuple[str, str]:
        """Standing and remark of a step."""
        if failed := [name for name in step.after if self.standing.get(name) == "FAILED"]:
            return "skipped", f"means nothing after the failure of {', '.join(failed)}"
        remaining = self._deadline - time.monotonic()
        least = step.least or step.seconds / 2
        seconds = step.seconds * self._setup.stretch
        if remaining < least:
            return (
                "skipped",
                f"needs {least:.0f} s and {max(0.0, remaining):.0f} s of the budget remain",
            )
        try:
            worker = self._started()
        except (TimeoutError, EOFError) as error:
            return "FAILED", f"no worker: {error}; see {self._setup.log.name}"
        if step.cuda and not worker.cuda:
            return "skipped", "needs a CUDA GPU"
        remaining = self._deadline - time.monotonic()
        standing, remark = self._follow(worker, step, min(seconds, remaining))
        if standing == "FAILED":
            self._end_worker()
        return standing, remark

    def _follow(self, worker: Worker, step: Step, seconds: float) -> tuple[str, str]:
        """Write what the worker sends until the step ends, or its time does."""
        deadline = time.monotonic() + seconds
        try:
            worker.begin(step)
            while message := worker.receive(deadline - time.monotonic()):
                kind, name, value, remark = message
                if kind == "end":
                    return name, remark
                self._journal.write(step.name, name, value, remark)
        except (EOFError, BrokenPipeError):
            return "FAILED", f"its process ended ({worker.ending()}); see {self._setup.log.name}"
        return "FAILED", f"ended after {seconds:.0f} s, with the figures so far"

    def _started(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(self._setup)
        return self._worker

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
        self._worker = None


class Worker:
    """A process that runs steps by name, in a session of its own; `worker.py` is its other side.

    Raises:
        TimeoutError, EOFError: it does not come up.
    """

    def __init__(self, setup: Setup) -> None:
        self._read, write = os.pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with setup.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.worker", str(write), str(setup.scratch),
                 str(int(setup.small))],
                stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[write],
                start_new_session=True, env=os.environ | {"PYTHONPATH": path},
            )  # fmt: skip
        os.close(write)
        self._buffer = b""
        try:
            message = self.receive(START_SECONDS)
        except EOFError:
            self.end()
            raise
        if message is None:
            self.end()
            raise TimeoutError(f"torch was not imported within {START_SECONDS:.0f} s")
        self.cuda = bool(message[0])

    def begin(self, step: Step) -> None:
        """Have it run a step."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([step.name, step.function]).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, seconds: float) -> list[Any] | None:
        """Its next message; None: there is none within so many seconds.

        Raises:
            EOFError: the process has ended.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([self._read], [], [], remaining)[0]:
                return None
            piece = os.read(self._read, 1 << 16)
            if not piece:
                raise EOFError("the process ended")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: list[Any] = json.loads(line)
        return message

    def ending(self) -> str:
        """How the process ended."""
        return f"exit code {self._process.wait(5)}"

    def end(self) -> None:
        """Kill it with all that it has started."""
        with contextlib.suppress(ProcessLookupError):  # gone, and waited for
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        os.close(self._read)
