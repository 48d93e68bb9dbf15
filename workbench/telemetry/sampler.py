"""GPU sampler: a child process of the warden that makes all NVML calls.

Prints one JSON line per period. A blocking driver blocks only this process. It ends when its stdin
closes or its parent dies. `--once` prints the facts and one reading.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from workbench.processes import tree
from workbench.telemetry.nvml import Nvml, NvmlAbsentError

Json = dict[str, Any]


@dataclass
class Tiers:
    """Latest readings of each tier, and when each is due next (CLOCK_MONOTONIC)."""

    nvml: Nvml
    slow_seconds: float
    processes_seconds: float
    slow_due: float = 0.0
    processes_due: float = 0.0
    activity: list[Json] = field(default_factory=list)
    processes: list[tuple[list[tuple[int, int | None]] | None, str]] = field(default_factory=list)

    def read(self, now: float, *, marked: bool = False) -> Json:
        """One line: the fast tier always, the others when due or when a phase begins."""
        indexes = range(self.nvml.count)
        if now >= self.slow_due:
            self.activity = [self.nvml.activity(index) for index in indexes]
            self.slow_due = now + self.slow_seconds
        if marked or now >= self.processes_due:
            self.processes = [self.nvml.processes(index) for index in indexes]
            self.processes_due = now + self.processes_seconds
        return {
            "t": time.monotonic(),
            "cpu": time.process_time(),
            "gpus": [self._gpu(index) for index in indexes],
        }

    def _gpu(self, index: int) -> Json:
        memory, energy = self.nvml.memory(index), self.nvml.energy(index)
        activity = self.activity[index]
        processes, reason = self.processes[index]
        return {
            "index": index,
            **memory,
            **energy,
            **activity,
            "processes": processes,
            "processes_reason": reason,
            "reasons": {**memory["reasons"], **energy["reasons"], **activity["reasons"]},
        }


def main() -> int:
    """Entry point of `python -m workbench.telemetry.sampler`."""
    parser = argparse.ArgumentParser(prog="sampler", description=__doc__)
    parser.add_argument("--fast", type=float, default=0.5, help="seconds between memory readings")
    parser.add_argument("--slow", type=float, default=1.0, help="seconds between the others")
    parser.add_argument("--processes", type=float, default=5.0, help="seconds between VRAM by pid")
    parser.add_argument("--parent", type=int, default=0, help="die with this process")
    parser.add_argument("--once", action="store_true", help="print one reading and end")
    options = parser.parse_args()
    if options.parent:
        tree.die_with_parent(options.parent)
    try:
        nvml = Nvml.open()
    except NvmlAbsentError as absent:
        _print_line({"absent": str(absent), "permanent": absent.permanent})
        return 0
    _print_line({"facts": nvml.facts(), "cpu": time.process_time()})
    tiers = Tiers(nvml, options.slow, options.processes)
    if options.once:
        _print_line(tiers.read(time.monotonic()))
        return 0
    _loop(tiers, options.fast)
    return 0


def _loop(tiers: Tiers, period: float) -> None:
    due = time.monotonic()
    marked = False
    while True:
        _print_line(tiers.read(time.monotonic(), marked=marked))
        due = max(due + period, time.monotonic() + period / 2)  # after a blocked call, no burst
        ready, _, _ = select.select([0], [], [], max(0.0, due - time.monotonic()))
        marked = bool(ready)
        if marked and not os.read(0, 4096):
            return


def _print_line(line: Json) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(0)
