"""What Slurm's accounting (sacct) says about jobs that the queue has forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from workbench.slurm import commands, states


class Accounting(NamedTuple):
    """How jobs ended that the queue has forgotten."""

    rows: Mapping[str, states.JobState] = {}
    gap: str = "not asked for"
    """Why a job has no row."""

    def describe(self, job: str, row: states.JobState | None) -> str:
        """How a job ended: `OUT_OF_MEMORY`; `row`: what the queue still says of it."""
        row = self.rows.get(job) or row
        return row.describe() if row else f"unknown: {self.gap}"


def read_accounting(jobs: list[str]) -> Accounting:
    """What sacct says about jobs that are over."""
    if not jobs:
        return Accounting()
    words = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}"]
    try:
        answer = commands.run_command(*words, f"--format={states.SACCT_FIELDS}")
    except commands.SlurmError as error:
        return Accounting(gap=f"no accounting ({error})")
    rows = {row.job: row for row in states.parse_rows(answer) if row.over}
    return Accounting(rows, "the accounting does not have it")
