"""The warden's side of the sampler: starting it, reading its lines without ever waiting.

Turns the sampler's raw figures into `protocol.Gpu`, and says honestly what is not known: a reading
that is too old, a driver that does not see our pids, a library that is not there.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, Final

from engines.protocol import Gpu
from results.records.schema import GpuInfo
from workbench.processes.gpu_selection import NOT_COUNTED
from workbench.processes.limits import Limits
from workbench.suites.journal import LineSplitter

INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""The kernel's fixed number of the namespace in which the driver counts pids."""

NOT_OURS: Final = "the driver names none of our pids, and counts them in another pid namespace"


class GpuWatch:
    """The sampler of one warden. `receive` is to be called at every beat."""

    def __init__(self, limits: Limits, environment: Mapping[str, str]) -> None:
        self.fd = -1
        self.reason = "no reading yet"
        """Why there are no figures."""
        self.facts: dict[str, Any] = {}
        self.bad_lines = 0
        self.starts = 0
        self._mark_fd = -1
        self._limits = limits
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._splitter = LineSplitter(limits.line_bytes)
        self._last: dict[str, Any] = {}
        self._cpu_before = self._cpu = 0.0
        self._started = float("-inf")
        self._permanent = False

    @property
    def pid(self) -> int | None:
        """The sampler's process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def cpu_seconds(self) -> float:
        """CPU that all samplers of this watch have used so far, by their own account."""
        return self._cpu_before + self._cpu

    def start(self) -> bool:
        """Start the sampler if it may have something to say. True if it runs now."""
        if self._process is not None:
            return True
        if self._permanent or time.monotonic() - self._started < self._wait:
            return False
        self._started = time.monotonic()
        if not library_present():
            self._permanent = True
            self.reason = "libnvidia-ml.so.1 is not on this machine"
            return False
        self.starts += 1
        self.fd, lines = os.pipe()
        marks, self._mark_fd = os.pipe()
        self._process = subprocess.Popen(
            self._command(), stdin=marks, stdout=lines,
            env=self._environment, start_new_session=True,
        )  # fmt: skip
        for theirs in (lines, marks):
            os.close(theirs)
        for ours in (self.fd, self._mark_fd):
            os.set_blocking(ours, False)
        self._splitter = LineSplitter(self._limits.line_bytes)
        return True

    @property
    def _wait(self) -> float:
        return self._limits.sampler_restart_seconds if self.starts else 0.0

    def _command(self) -> list[str]:
        limits = self._limits
        periods = {
            "--fast": limits.sample_seconds,
            "--slow": limits.slow_seconds,
            "--processes": limits.processes_seconds,
            "--parent": os.getpid(),
        }
        options = [text for name, value in periods.items() for text in (name, str(value))]
        return [sys.executable, "-m", "workbench.telemetry.sampler", *options]

    def receive(self) -> None:
        """Take in what has arrived; at its end, let the sampler go."""
        if self.fd < 0:
            return
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return
        for line in self._splitter.feed(data):
            self._take(line)
        if not data:
            self.stop()

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            self._cpu = float(said.get("cpu", self._cpu))
            if "absent" in said:
                self.reason, self._permanent = str(said["absent"]), bool(said["permanent"])
            elif "facts" in said:
                self.facts = dict(said["facts"])
            else:
                self._last = {"t": float(said["t"]), "gpus": list(said["gpus"])}
                self.reason = ""
        except (ValueError, KeyError, TypeError, AttributeError):
            self.bad_lines += 1

    def wait_for_facts(self, seconds: float) -> None:
        """Before the first run only: give the driver a moment to say what there is."""
        deadline = time.monotonic() + seconds
        while self.fd >= 0 and not self.facts and (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                self.receive()

    def mark(self) -> None:
        """A phase begins: VRAM by process is wanted now."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.write(self._mark_fd, b"mark\n")

    def read(
        self, own_pids: Iterable[int], shown: Set[int] | None, *, reserved: bool = False
    ) -> tuple[tuple[Gpu, ...], str]:
        """The GPUs now, and why there are none.

        `shown`: only these indexes; None: all. `reserved`: torch has memory on each of them.
        """
        if self.reason:
            return (), self.reason
        age = time.monotonic() - self._last["t"]
        if age > self._limits.stale_periods * self._limits.sample_seconds:
            return (), f"stale: NVML has not answered for {age:.0f} s"
        own = set(own_pids)
        try:
            gpus = tuple(
                gpu_of(raw, own, reserved=reserved)
                for raw in self._last["gpus"]
                if shown is None or raw["index"] in shown
            )
        except (ValueError, KeyError, TypeError):
            self.bad_lines += 1
            return (), "the sampler's last line cannot be read"
        return gpus, "" if gpus else "the run is shown no GPU"

    def fresh(
        self, own_pids: Iterable[int], shown: Set[int] | None, deadline: float
    ) -> tuple[Gpu, ...]:
        """The GPUs as they are after this call, or nothing where no reading came in time."""
        asked = time.monotonic()
        self.mark()
        while self.fd >= 0 and (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                self.receive()
            if self._last.get("t", 0.0) > asked:
                return self.read(own_pids, shown)[0]
        return ()

    def strangers(self, own_pids: Iterable[int], shown: Set[int] | None) -> int:
        """How many processes that are not ours compute on these GPUs; 0 where nobody can tell.

        Told only where the driver's pids are ours: in a container our own have other numbers.
        """
        if self.reason or not in_initial_namespace():
            return 0
        own, found = set(own_pids), set[int]()
        try:
            for raw in self._last["gpus"]:
                if shown is None or raw["index"] in shown:
                    found |= {int(pid) for pid, _ in raw["processes"] or ()}
        except (ValueError, KeyError, TypeError):
            return 0
        return len(found - own)

    def known_gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs of the machine, for the record's environment."""
        return tuple(GpuInfo.model_validate(gpu) for gpu in self.facts.get("gpus", ()))

    def stop(self) -> None:
        """End the sampler. SIGKILL, since it may be stuck in the driver; it holds nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        os.close(self.fd)
        os.close(self._mark_fd)
        self.fd = self._mark_fd = -1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)  # longer only if it sleeps uninterruptibly in the driver
        self._cpu_before, self._cpu = self._cpu_before + self._cpu, 0.0
        self.reason = self.reason or "the sampler has ended"


def gpu_of(raw: Mapping[str, Any], own: set[int], *, reserved: bool = False) -> Gpu:
    """One GPU's raw figures, with the share of the run's own processes.

    `reserved`: torch has memory on it, so that a share of 0 is no figure.
    """
    reasons = dict(raw["reasons"])
    held, reason = held_by(raw["processes"], raw["processes_reason"], own)
    if held == 0 and reserved:
        held, reason = None, NOT_COUNTED
    if held is None:
        reasons["process"] = reason
    names = (
        "index", "used", "total", "utilisation", "power", "power_limit", "temperature", "clock",
        "memory_clock", "throttle",
    )  # fmt: skip
    figures = {name: raw[name] for name in names}
    if "interface" in raw:
        figures["interface"] = raw["interface"]
    return Gpu.model_validate({**figures, "process": held, "reasons": reasons})


def held_by(
    processes: list[tuple[int, int | None]] | None, reason: str, own: set[int]
) -> tuple[int | None, str]:
    """Bytes that our own processes hold on a GPU, or why nobody knows.

    "None of them is ours" is 0 only in the namespace in which the driver counts. In a container the
    driver's pids are the host's, ours among them under other numbers, or it names no pid at all.
    """
    if processes is None:
        return None, reason
    mine = [held for pid, held in processes if pid in own]
    if not mine:
        return (0, "") if in_initial_namespace() else (None, NOT_OURS)
    if not all(mine):  # a process in the list has a CUDA context, so 0 bytes are no answer
        return None, "the driver does not say how much a process holds"
    return sum(held for held in mine if held is not None), ""


def in_initial_namespace(link: Path = Path("/proc/self/ns/pid")) -> bool:
    """Whether our pids are those that the kernel's drivers see."""
    try:
        return str(link.readlink()) == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def library_present() -> bool:
    """Whether the loader finds NVIDIA's library. Nothing of it is called, nor kept."""
    try:
        _ctypes.dlclose(ctypes.CDLL("libnvidia-ml.so.1")._handle)
    except OSError:
        return False
    return True
