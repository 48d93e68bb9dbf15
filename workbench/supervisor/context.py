"""What all attempts of a suite share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.processes.limits import Limits
from workbench.telemetry.gpus import GpuWatch
from workbench.tuning.searcher_process import SearcherProcess


@dataclass(frozen=True)
class SupervisorContext:
    """What all attempts of a suite share: limits, token, pipes, sampler and searcher."""

    limits: Limits
    token: str
    life_fd: int
    """Read end of the life pipe, inherited by engines."""
    command: Sequence[str]
    gpus: GpuWatch
    environment: Mapping[str, Any]
    """Content of `Attempt.environment`."""
    reserve: Path
    """A preallocated file, deleted when the disk is full to make room for the last events."""
    searcher: SearcherProcess | None = None
    """None: the suite is no search."""
    engine_pids: set[int] = field(default_factory=set)
    """Engines of all attempts at work."""

    @property
    def protected_pids(self) -> frozenset[int]:
        """Children of the warden that a shutdown must not kill: sampler, searcher and engines."""
        searcher = self.searcher.pid if self.searcher else None
        return frozenset(pid for pid in (self.gpus.pid, searcher) if pid) | self.engine_pids
