"""Shutdown of an engine's process tree in three stages, each with a deadline.

1. SIGTERM to the engine alone, which finishes its step and writes a checkpoint.
2. SIGTERM to every process of its tree.
3. SIGSTOP, enumerate, SIGKILL, until no process is left.

The warden's loop keeps running between the stages, so that the engine's last messages are read.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from workbench.processes.limits import Limits
from workbench.processes.tree import Tree, send_signal


@dataclass
class Shutdown:
    """Shutdown of one process tree. Times are CLOCK_MONOTONIC."""

    tree: Tree
    limits: Limits
    grace_seconds: float
    """Duration of stage 1: several ranks need longer than one process."""
    stage: int = 0
    deadline: float = float("inf")
    killed: list[int] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)

    def escalate(self, now: float) -> None:
        """Go to the next stage, on a repeated request or when the deadline has passed."""
        self.stage = min(3, self.stage + 1)
        if self.stage == 1:
            send_signal(self.tree.root, signal.SIGTERM)
            send_signal(self.tree.root, signal.SIGCONT)  # a stopped process hears nothing else
            self.deadline = now + self.grace_seconds
        elif self.stage == 2:
            self.tree.signal_all(signal.SIGTERM)
            self.tree.signal_all(signal.SIGCONT)
            self.deadline = now + self.limits.group_seconds
        else:
            self.kill()

    def extend_for_save(self, now: float) -> None:
        """The engine writes a checkpoint: extend stage 1 to `Limits.save_seconds` from now."""
        if self.stage == 1:
            self.deadline = max(self.deadline, now + self.limits.save_seconds)

    def kill(self) -> None:
        """Stage 3; also called after an engine's own exit, to kill what it left behind."""
        self.stage, self.deadline = 3, float("inf")
        killed, self.survivors = self.tree.kill(self.limits.kill_seconds)
        self.killed += [pid for pid in killed if pid not in self.killed]

    def tick(self, now: float) -> None:
        """Escalate if the deadline of the present stage has passed."""
        if now >= self.deadline:
            self.escalate(now)
