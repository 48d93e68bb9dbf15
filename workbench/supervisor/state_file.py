"""Writer of a suite's warden.json: the warden's process and the suite's state."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Final

from workbench.processes import tree
from workbench.processes.lanes import LaneStatus
from workbench.slurm import commands
from workbench.suites import warden_file
from workbench.suites.state import WardenState

REFRESH_SECONDS: Final = 20.0
"""Interval of rewriting warden.json, by which readers on other hosts see it alive."""


class StateFile:
    """warden.json of the suite that this process supervises."""

    def __init__(self, suite: Path, token: str) -> None:
        self._suite = suite
        self._content = warden_file.WardenFile(
            pid=os.getpid(),
            start_ticks=tree.read_start_ticks(os.getpid()),
            host=socket.gethostname(),
            place=tree.pid_namespace(),
            token=token,
            state="starting",
            job=commands.job_name(os.environ),
            started_wall=time.time(),
        )
        self.lanes: tuple[LaneStatus, ...] = ()
        """What each lane does, for the next `write`; empty: the suite has no lanes."""
        self.refresh_due = 0.0
        """When it must be written again (CLOCK_MONOTONIC)."""

    @property
    def state(self) -> WardenState:
        """The state of the suite."""
        return self._content.state

    @property
    def detail(self) -> str:
        """What the state is about: a run, a holder of its devices, or a stop's reason."""
        return self._content.detail

    def write(self, state: WardenState, detail: str = "") -> None:
        """Write the file if the state is new or `REFRESH_SECONDS` have passed.

        Raises:
            OSError: it cannot be written; the new state is kept for the next time.
        """
        clock = time.monotonic()
        content = self._content
        now = (state, detail, self.lanes)
        if (content.state, content.detail, content.lanes) == now and clock < self.refresh_due:
            return
        self.refresh_due = clock + REFRESH_SECONDS
        update = {"state": state, "detail": detail, "lanes": self.lanes}
        self._content = content.model_copy(update={**update, "updated_wall": time.time()})
        warden_file.write_warden(self._suite, self._content)

    def mark_suspended(self) -> None:
        """Note that the suite is to be continued; the next `write` stores it."""
        self._content = self._content.model_copy(update={"suspended": True})

    def count_lost_record(self) -> None:
        """Count a record that could not be written; the next `write` stores the number."""
        lost = self._content.records_lost + 1
        self._content = self._content.model_copy(update={"records_lost": lost})
