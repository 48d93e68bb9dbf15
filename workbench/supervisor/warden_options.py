"""Options of a warden, as its command line has them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from workbench.processes.lanes import LaneChoice, LanePlan, format_lanes
from workbench.slurm import collector


class WardenOptions(NamedTuple):
    """How a warden treats its suite."""

    share: bool = False
    """Run beside other suites on a device."""
    resume: bool = False
    """Start ended runs again from their checkpoints."""
    time_limit: float = math.inf
    """Seconds after which the suite stops at a checkpoint, to be continued."""
    run: str = ""
    """Id of the only run that it executes, beside wardens of other runs; empty: all of them."""
    lanes: str = ""
    """Lanes of the machine that execute runs at the same time (`lanes.parse_lanes`); empty: one."""
    gpus_per_run: int = 0
    """GPUs of a lane; 0: as many as the largest run has processes."""
    after: str = ""
    """Folder of a suite whose end it waits for before its first run; empty: none."""

    def state_folder(self, suite: Path) -> Path:
        """Where the warden's own files are: with one run in its folder, since each node writes
        only there."""
        return suite / "runs" / self.run if self.run else suite

    def records_path(self, run: Path) -> Path:
        """Where the record of the run in this folder is appended."""
        return run / collector.RECORDS if self.run else run.parents[2] / "results.jsonl"

    @property
    def module(self) -> str:
        """Module of the warden."""
        return f"workbench.supervisor.{'run_warden' if self.run else 'warden'}"

    def with_lanes(self, plan: LanePlan) -> WardenOptions:
        """The options with these lanes."""
        return self._replace(lanes=format_lanes(plan.choice), gpus_per_run=plan.gpus_per_run)

    @property
    def lane_plan(self) -> LanePlan:
        """The lanes, parsed.

        Raises:
            ValidationError: they are none.
        """
        choice = TypeAdapter(LaneChoice).validate_python(self.lanes or None)
        return LanePlan(choice, self.gpus_per_run)

    def to_arguments(self) -> list[str]:
        """The options as arguments of `python -m workbench.supervisor.warden`."""
        arguments = ["--share"] if self.share else []
        arguments += ["--resume"] if self.resume else []
        limited = math.isfinite(self.time_limit)
        arguments += ["--time-limit", str(self.time_limit)] if limited else []
        if self.lanes:
            arguments += ["--lanes", self.lanes, "--gpus-per-run", str(self.gpus_per_run)]
        arguments += ["--after", self.after] if self.after else []
        return arguments + (["--run", self.run] if self.run else [])

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments that `to_arguments` gives."""
        parser.add_argument("--share", action="store_true", help="run beside others on a device")
        parser.add_argument("--resume", action="store_true", help="start ended runs again")
        parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds")
        parser.add_argument("--run", default="", help="the only run to execute")
        parser.add_argument("--lanes", default="", help="all, a number, or GPUs: 0,1,3")
        parser.add_argument("--gpus-per-run", type=int, default=0, help="0: as its processes")
        parser.add_argument("--after", default="", help="suite that is to end before the first run")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> WardenOptions:
        """The options of parsed arguments."""
        return cls(**{name: getattr(arguments, name) for name in cls._fields})
