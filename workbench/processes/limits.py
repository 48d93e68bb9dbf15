"""Limits of the warden: every timeout, interval, size and count in one table.

`docs/warden.md` has the same table. Only tests and `WORKBENCH_GRACE` change values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Self

from engines.protocol import MAX_LINE

KIB: Final = 1024
MIB: Final = 1024 * KIB


PHASE_SHARES: Final = {"import": 0.5, "load": 2.0, "compile": 3.0}
"""Factor on `stall_seconds` and `hang_seconds` by phase; 1 for every other one.

Loading 16 GB of weights and compiling are silent for long; a silent import is stuck.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Waits in seconds, sizes in bytes."""

    grace_seconds: float = 10.0
    """Between SIGTERM to the engine and SIGTERM to every group of its tree: one checkpoint."""
    ranks_grace_seconds: float = 40.0
    """The same for a run of several ranks, which are given 30 s before they are killed."""
    save_seconds: float = 120.0
    """Instead of the grace, from the moment on that a stopping engine says that it saves."""
    group_seconds: float = 2.0
    """Between SIGTERM to the groups and SIGKILL to everything."""
    kill_seconds: float = 5.0
    """SIGKILL and look again, until two looks in a row find nothing; then survivors are named."""
    vram_seconds: float = 2.0
    """Where there are GPUs: how long after an ending they may take to have their memory back."""
    drain_seconds: float = 1.0
    """The event pipe is read this long after the engine's exit; a stray child may hold it open."""
    start_seconds: float = 10.0
    """`launch` waits this long for a new warden to say that it works or waits."""
    sample_seconds: float = 0.5
    """Fast tier: resident memory, CPU, VRAM."""
    slow_seconds: float = 1.0
    """Slow tier: the tree, VmHWM, GPU utilisation, power, temperature; and journal fsync."""
    processes_seconds: float = 5.0
    """VRAM per process: about 4.5 ms of driver lock a call, so rarely, and at phase marks."""
    pss_seconds: float = 10.0
    """At most one PSS reading in this time, at phase marks: 18-35 ms for a 1 GiB tree."""
    stale_periods: int = 3
    """A GPU reading that is older than so many sampling periods is not shown as present."""
    sampler_restart_seconds: float = 30.0
    """A sampler that died or hangs is started again no sooner."""
    beat_seconds: float = 0.5
    """How often the loop wakes by itself: reads events and commands, samples, looks at the clock.
    Each waking costs about 0.3 ms of cold caches, so everything periodic happens at a beat."""
    stall_seconds: float = 600.0
    """Silence of an engine, outside training, after which its stacks are dumped and noted."""
    stall_step_seconds: float = 60.0
    """The same in training, or 20 times the slowest of the last 50 steps if that is longer."""
    hang_seconds: float = 3600.0
    """Silence after which the run is stopped as hung."""
    pipe_bytes: int = MIB
    """Event pipe, so that a busy warden does not make the engine drop messages."""
    line_bytes: int = MAX_LINE
    """A longer line from an engine is skipped and counted."""
    turn_bytes: int = 2 * MIB
    """Read from the event pipe in one turn of the loop, so that a flood cannot starve the clock."""
    messages_per_second: int = 200
    """Steps, progress and notices beyond it are dropped and counted; emitters stay below 12."""
    journal_bytes: int = 2048 * MIB
    """A run that writes more is stopped as a protocol error."""
    log_bytes: int = 32 * MIB
    """engine.log; beyond it the middle is cut out, the first and last MiB stay."""
    reserve_bytes: int = 256 * KIB
    """Kept on disk for the ends and records of runs that a full disk has stopped."""
    processes: int = 512
    """An engine with more processes than this is stopped: a fork bomb, not a loader."""

    @classmethod
    def from_environment(cls) -> Self:
        """The table, with `WORKBENCH_GRACE` (seconds) in force if it is set."""
        grace = os.environ.get("WORKBENCH_GRACE")
        if not grace:
            return cls()
        try:
            seconds = float(grace)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 3600:
            raise ValueError(f"WORKBENCH_GRACE is {grace!r}; give seconds between 0 and 3600")
        return cls(
            grace_seconds=seconds,
            ranks_grace_seconds=seconds,
            group_seconds=min(cls().group_seconds, seconds),
        )
