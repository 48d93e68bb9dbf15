"""States of jobs as squeue and sacct print them. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

SQUEUE_FORMAT: Final = "%i|%T|%r|%N|%j"
SACCT_FIELDS: Final = "JobID,State,Reason,NodeList,JobName"

OVER: Final = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
        "REVOKED", "TIMEOUT",
    }
)  # fmt: skip
"""States of a job that never runs again. PREEMPTED is none: the job is requeued, and one that is
not is gone from the queue soon. An unknown state counts as a job that is there."""
_TASK: Final = re.compile(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]")
"""Pending tasks of an array in one row: `1234_[3-5,8%2]`."""


class JobState(NamedTuple):
    """One job, or one task of an array."""

    job: str
    """`1234_5` or `1234`."""
    state: str
    """Slurm's word in capitals: PENDING, RUNNING, …"""
    reason: str = ""
    """Why it waits or ended: Priority, Dependency, TimeLimit; empty: Slurm says nothing."""
    node: str = ""
    name: str = ""
    """The job's name, which is that of its suite."""

    @property
    def over(self) -> bool:
        """It never runs again."""
        return self.state in OVER

    def describe(self) -> str:
        """`PENDING (Priority)`."""
        return f"{self.state} ({self.reason})" if self.reason else self.state


def parse_rows(text: str) -> list[JobState]:
    """The rows of `squeue --format=SQUEUE_FORMAT` or `sacct --parsable2 --format=SACCT_FIELDS`.

    A name may have the separator in it, so it is the last column.
    """
    rows = []
    for line in text.splitlines():
        cells = line.strip().split("|", 4)
        if len(cells) < 5 or not cells[0][:1].isdigit():
            continue
        job, state, reason, node, name = cells
        word = state.split()[0].rstrip("+") if state.strip() else ""  # `CANCELLED by 1000`
        reason = "" if reason in ("None", "(null)") else reason
        node = "" if node in ("None assigned", "(null)") else node
        rows += [JobState(task, word, reason, node, name) for task in _expand_tasks(job)]
    return rows


def _expand_tasks(job: str) -> list[str]:
    if (match := _TASK.fullmatch(job)) is None:
        return [job]
    array, spans = match.groups()
    tasks: list[str] = []
    for span in spans.split(","):
        first, _, last = span.partition("-")
        tasks += [f"{array}_{number}" for number in range(int(first), int(last or first) + 1)]
    return tasks
