"""What Slurm's queue says about the jobs of this user: one squeue for all suites, rarely.

A squeue is a load on the controller of the whole cluster; administrators ask for one in 15 seconds
at most. After the first answer nobody waits for the next: it is read when it is there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Final, NamedTuple

from workbench.slurm import commands, states

SECONDS: Final = 15.0
"""Shortest time between two calls."""
HURRY_SECONDS: Final = 2.0
"""Time between two calls for `HURRIED_SECONDS` after something has changed."""
HURRIED_SECONDS: Final = 30.0
FIRST_SECONDS: Final = 10.0
"""Longest wait for the first answer."""
HANG_SECONDS: Final = 60.0
"""A squeue that has run for longer is killed, and another one asked."""


class QueueAnswer(NamedTuple):
    """An answer of squeue."""

    rows: Mapping[str, states.JobState] = {}
    """Job (`1234_5`) -> its state."""
    wall: float = 0.0
    """Unix time of the question; 0: there is no answer."""

    def find_task(self, job: str, suite: str, number: int) -> states.JobState | None:
        """The row of a run: its job, or the suite's newest task of this number (by hand)."""
        if job:
            return self.rows.get(job)
        tasks = [r for r in self.rows.values() if r.name == suite and r.job.endswith(f"_{number}")]
        return max(tasks, key=lambda row: int(row.job.partition("_")[0]), default=None)


class QueueWatch:
    """The newest answer of squeue; may be used by several threads."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._users: set[str] = set()
        self._answer = QueueAnswer()
        self._asked = -seconds
        self._asked_wall = 0.0
        self._asked_users: frozenset[str] = frozenset()
        self._hurried_until = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def read(self, user: str, after: float = 0.0) -> QueueAnswer:
        """The newest answer about the user's jobs; a question before `after` (Unix) is too old.

        Waits for the first answer and for one that is not too old; without squeue, or while its
        controller is down, the answer has no time.
        """
        with self._lock:
            self._users.add(user)
            self._finish(0.0)
            covered = user in self._asked_users and self._asked_wall >= min(after, time.time())
            pause = self._interval() if self._process is None else HANG_SECONDS
            if not covered or time.monotonic() - self._asked >= pause:
                self._cancel()
                self._ask()
            if not covered:
                self._finish(FIRST_SECONDS)
            return self._answer

    def hurry(self) -> None:
        """A job has ended or was cancelled: ask more often for a while."""
        with self._lock:
            if time.monotonic() >= self._hurried_until:
                self._hurried_until = time.monotonic() + HURRIED_SECONDS

    def _interval(self) -> float:
        hurried = time.monotonic() < self._hurried_until
        return min(HURRY_SECONDS, self._seconds) if hurried else self._seconds

    def _ask(self) -> None:
        self._asked, self._asked_wall = time.monotonic(), time.time()
        self._asked_users = frozenset(self._users)
        if not commands.is_installed("squeue"):
            return
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is read
        users = ",".join(sorted(self._users))
        words = ["squeue", "--noheader", "--array", "--states=all", f"--user={users}"]
        try:
            self._process = subprocess.Popen(
                [*words, f"--format={states.SQUEUE_FORMAT}"], stdin=subprocess.DEVNULL,
                stdout=self._output, stderr=subprocess.DEVNULL,
                env=commands.clean_variables(os.environ),
            )  # fmt: skip
        except OSError:
            self._output.close()

    def _cancel(self) -> None:
        """Kill a squeue whose answer would be too old, or that hangs."""
        if self._process is not None:
            self._process.kill()
            self._finish(FIRST_SECONDS)

    def _finish(self, seconds: float) -> None:
        """Read the answer of the running squeue, if it comes within `seconds`."""
        if self._process is None or self._output is None:
            return
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        self._output.seek(0)
        text = self._output.read().decode("utf-8", "replace")
        self._output.close()
        self._process = self._output = None
        if code == 0:
            rows = {row.job: row for row in states.parse_rows(text)}
            self._answer = QueueAnswer(rows, self._asked_wall)
        elif self._asked_wall - self._answer.wall > 4 * self._seconds:
            self._answer = QueueAnswer()  # too old to say anything


WATCH: Final = QueueWatch()
"""Shared by all readers of this process."""
