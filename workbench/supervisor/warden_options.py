"""Options of a warden, as its command line has them."""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple


class WardenOptions(NamedTuple):
    """How a warden treats its suite."""

    share: bool = False
    """Run beside other suites on a device."""
    resume: bool = False
    """Start ended runs again from their checkpoints."""
    time_limit: float = math.inf
    """Seconds after which the suite stops at a checkpoint, to be continued."""

    def to_arguments(self) -> list[str]:
        """The options as arguments of `python -m workbench.supervisor.warden`."""
        arguments = ["--share"] if self.share else []
        arguments += ["--resume"] if self.resume else []
        limited = math.isfinite(self.time_limit)
        return arguments + (["--time-limit", str(self.time_limit)] if limited else [])

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments that `to_arguments` gives."""
        parser.add_argument("--share", action="store_true", help="run beside others on a device")
        parser.add_argument("--resume", action="store_true", help="start ended runs again")
        parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> WardenOptions:
        """The options of parsed arguments."""
        return cls(**{name: getattr(arguments, name) for name in cls._fields})
