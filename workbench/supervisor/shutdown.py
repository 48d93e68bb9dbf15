"""The stop ladder: how an engine is asked, told and at last made to end. Every rung is bounded.

1 SIGTERM to the engine alone, which finishes its step and writes a checkpoint · 2 SIGTERM to every
process of its tree · 3 freeze, enumerate, SIGKILL, until nothing is left. The loop of the warden
goes on between the rungs, so that the engine's last messages are read.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from workbench.processes.limits import Limits
from workbench.processes.tree import Tree, send


@dataclass
class Ladder:
    """One stop of one tree. Times are CLOCK_MONOTONIC."""

    tree: Tree
    limits: Limits
    grace_seconds: float
    """What the first rung allows: several ranks need longer than one process."""
    rung: int = 0
    deadline: float = float("inf")
    killed: list[int] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)

    def climb(self, now: float) -> None:
        """The next rung, because somebody insists or because its time is over."""
        self.rung = min(3, self.rung + 1)
        if self.rung == 1:
            send(self.tree.root, signal.SIGTERM)
            send(self.tree.root, signal.SIGCONT)  # a stopped process hears nothing else
            self.deadline = now + self.grace_seconds
        elif self.rung == 2:
            self.tree.signal_all(signal.SIGTERM)
            self.tree.signal_all(signal.SIGCONT)
            self.deadline = now + self.limits.group_seconds
        else:
            self.kill()

    def saves(self, now: float) -> None:
        """The engine says that it writes its checkpoint: let it, for a bounded time."""
        if self.rung == 1:
            self.deadline = max(self.deadline, now + self.limits.save_seconds)

    def kill(self) -> None:
        """The last rung, also taken after an engine's own end: whatever it left behind goes."""
        self.rung, self.deadline = 3, float("inf")
        killed, self.survivors = self.tree.kill(self.limits.kill_seconds)
        self.killed += [pid for pid in killed if pid not in self.killed]

    def tick(self, now: float) -> None:
        """Climb if the present rung has had its time."""
        if now >= self.deadline:
            self.climb(now)
