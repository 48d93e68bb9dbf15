"""Options of a warden, as its command line has them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

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

    def to_arguments(self) -> list[str]:
        """The options as arguments of `python -m workbench.supervisor.warden`."""
        arguments = ["--share"] if self.share else []
        arguments += ["--resume"] if self.resume else []
        limited = math.isfinite(self.time_limit)
        arguments += ["--time-limit", str(self.time_limit)] if limited else []
        return arguments + (["--run", self.run] if self.run else [])

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments that `to_arguments` gives."""
        parser.add_argument("--share", action="store_true", help="run beside others on a device")
        parser.add_argument("--resume", action="store_true", help="start ended runs again")
        parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds")
        parser.add_argument("--run", default="", help="the only run to execute")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> WardenOptions:
        """The options of parsed arguments."""
        return cls(**{name: getattr(arguments, name) for name in cls._fields})
