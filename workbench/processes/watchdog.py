"""Watchdogs of an engine: hang detection, suspend detection and a rate limit of its messages.

Only messages that stand for completed work reset the hang detector: a heartbeat may come from a
thread while the work hangs.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engines import messages
from engines.messages import Message
from workbench.processes import tree
from workbench.processes.limits import PHASE_SHARES, Limits

NOT_PROGRESS: Final = frozenset({"notice", "hello"})


class HangDetector:
    """Time since the last progress of the engine. Times are CLOCK_MONOTONIC."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._since = now
        self._phase = ""
        self._noted = self._suspended = False
        self._mark: object = None
        self._steps: deque[float] = deque(maxlen=50)

    def record_message(self, message: Message, now: float) -> None:
        """Update from one message of the engine."""
        if isinstance(message, messages.Phase):
            self._phase = message.name
        if isinstance(message, messages.Step) and message.count:
            self._steps.append(max(message.step_seconds, default=message.seconds / message.count))
        if not self._advances(message):
            return
        self._since, self._noted = now, False
        self._suspended = False

    def _advances(self, message: Message) -> bool:
        match message:
            case messages.Progress() | messages.Step():
                mark = (message.done, message.total) if message.kind == "progress" else message.step
                moved, self._mark = mark != self._mark, mark
                return moved
            case messages.Unknown():
                return False
            case _:
                return getattr(message, "kind", "") not in NOT_PROGRESS

    def idle_seconds(self, now: float) -> float:
        """Seconds since the last progress."""
        return now - self._since

    def newly_stalled(self, now: float) -> bool:
        """True once for each idle time that is longer than the phase allows."""
        budget = self._limits.stall_seconds * PHASE_SHARES.get(self._phase, 1.0)
        if self._phase == "train" and self._steps:
            budget = max(self._limits.stall_step_seconds, 20 * max(self._steps))
        budget = min(budget, self._hang_seconds)
        if self._noted or self.idle_seconds(now) < budget:
            return False
        self._noted = True
        return True

    def newly_suspended(self, now: float) -> bool:
        """Note that a signal has stopped the engine, which is no hang; True once until progress."""
        self._since = now
        first, self._suspended = not self._suspended, True
        return first

    def is_hung(self, now: float) -> bool:
        """Whether the run must be stopped; a stall (with a stack dump) was reported before."""
        return self._noted and self.idle_seconds(now) >= self._hang_seconds

    @property
    def _hang_seconds(self) -> float:
        return self._limits.hang_seconds * PHASE_SHARES.get(self._phase, 1.0)

    def dump_stacks(self, process: tree.Process) -> bool:
        """Have the engine write its stacks to engine.log; False: it has no handler of SIGUSR1.

        Without a handler the signal would kill it.
        """
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return False
        caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "0")
        listens = int(caught.split()[-1], 16) >> (signal.SIGUSR1 - 1) & 1
        return bool(listens) and tree.send_signal(process, signal.SIGUSR1)


def seconds_suspended_since_boot() -> float:
    """Seconds of suspension since boot: CLOCK_BOOTTIME counts them, CLOCK_MONOTONIC not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class SuspendDetector:
    """Detects that the machine was suspended: a laptop's lid, a paused virtual machine."""

    MIN_SECONDS: Final = 1.0

    def __init__(self, gap: Callable[[], float] = seconds_suspended_since_boot) -> None:
        self._gap = gap
        self._before = gap()

    def suspended_seconds(self) -> float:
        """Seconds of suspension since the last call; 0 below `MIN_SECONDS`."""
        now = self._gap()
        seconds = now - self._before
        if seconds < self.MIN_SECONDS:
            return 0.0
        self._before = now
        return seconds


class RateLimit:
    """Token bucket: `per_second` messages a second, with bursts of one second's worth."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._stock = float(per_second)
        self._last = 0.0

    def allows(self, now: float) -> bool:
        """Whether one more may pass."""
        self._stock = min(float(self._rate), self._stock + (now - self._last) * self._rate)
        self._last = now
        if self._stock < 1:
            return False
        self._stock -= 1
        return True
