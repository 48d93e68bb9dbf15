"""GPU readings in the warden: starts the sampler and reads its lines without blocking.

Converts the sampler's raw values to `gpu_readings.Gpu`, with a reason for each missing one: a stale
reading, a driver that does not see this namespace's pids, a missing library.
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

from engines.gpu_readings import Gpu
from results.records.schema import GpuInfo
from workbench.processes.gpu_selection import NOT_COUNTED
from workbench.processes.limits import Limits
from workbench.suites.journal import LineSplitter

INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""The kernel's fixed number of the pid namespace that the driver uses."""

NOT_OURS: Final = "the driver names none of our pids, and counts them in another pid namespace"


class GpuWatch:
    """The sampler process of one warden; `receive` must be called at every beat."""

    def __init__(self, limits: Limits, environment: Mapping[str, str]) -> None:
        self.fd = -1
        self.reason = "no reading yet"
        """Why there are no readings; empty if there are."""
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
        """CPU seconds used by all samplers of this watch so far, as reported by them."""
        return self._cpu_before + self._cpu

    def start(self) -> bool:
        """Start the sampler, unless it was useless or ended too recently; True: it runs now.

        Raises:
            OSError: no process can be made now; it is tried again later.
        """
        if self._process is not None:
            return True
        if self._permanent or time.monotonic() - self._started < self._restart_delay:
            return False
        self._started = time.monotonic()
        if not is_library_present():
            self._permanent = True
            self.reason = "libnvidia-ml.so.1 is not on this machine"
            return False
        self.starts += 1
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            pipes = [os.pipe(), os.pipe()]
            (fd, lines), (marks, mark_fd) = pipes
            for stack, ends in ((theirs, (lines, marks)), (ours, (fd, mark_fd))):
                for end in ends:
                    stack.callback(os.close, end)
            self._process = subprocess.Popen(
                self._command(), stdin=marks, stdout=lines,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
            ours.pop_all()
        for end in (fd, mark_fd):
            os.set_blocking(end, False)
        self.fd, self._mark_fd = fd, mark_fd
        self._splitter = LineSplitter(self._limits.line_bytes)
        return True

    @property
    def _restart_delay(self) -> float:
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
        """Read available lines; stop the sampler when its pipe has ended."""
        if self.fd < 0:
            return
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return
        for line in self._splitter.feed(data):
            self._parse_line(line)
        if not data:
            self.stop()

    def _parse_line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            self._cpu = float(message.get("cpu", self._cpu))
            if "absent" in message:
                self.reason, self._permanent = str(message["absent"]), bool(message["permanent"])
            elif "facts" in message:
                self.facts = dict(message["facts"])
            else:
                self._last = {"t": float(message["t"]), "gpus": list(message["gpus"])}
                self.reason = ""
        except (ValueError, KeyError, TypeError, AttributeError):
            self.bad_lines += 1

    def wait_for_facts(self, seconds: float) -> None:
        """Wait up to `seconds` for the list of GPUs; before the first run only."""
        deadline = time.monotonic() + seconds
        while self.fd >= 0 and not self.facts and (remaining := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], remaining)[0]:
                self.receive()

    def mark(self) -> None:
        """Request a reading of VRAM by process now, at the start of a phase."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.write(self._mark_fd, b"mark\n")

    def read(
        self, run_pids: Iterable[int], shown: Set[int] | None, *, reserved: bool = False
    ) -> tuple[tuple[Gpu, ...], str]:
        """The last readings of the GPUs, and a reason if there are none.

        Args:
            run_pids: processes of the run.
            shown: only these indexes; None: all.
            reserved: torch has memory on each of them.
        """
        if self.reason:
            return (), self.reason
        if self._is_stale():
            age = time.monotonic() - self._last["t"]
            return (), f"stale: NVML has not answered for {age:.0f} s"
        pids = set(run_pids)
        try:
            gpus = tuple(
                build_gpu(raw, pids, reserved=reserved)
                for raw in self._last["gpus"]
                if shown is None or raw["index"] in shown
            )
        except (ValueError, KeyError, TypeError):
            self.bad_lines += 1
            return (), "the sampler's last line cannot be read"
        return gpus, "" if gpus else "the run is shown no GPU"

    def _is_stale(self) -> bool:
        """Whether the last readings are too old to be of the present."""
        age = time.monotonic() - self._last["t"]
        return bool(age > self._limits.stale_periods * self._limits.sample_seconds)

    def read_now(
        self, run_pids: Iterable[int], shown: Set[int] | None, deadline: float
    ) -> tuple[Gpu, ...]:
        """A reading made after this call; empty if none arrives before `deadline`."""
        start = time.monotonic()
        self.mark()
        while self.fd >= 0 and (remaining := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], remaining)[0]:
                self.receive()
            if self._last.get("t", 0.0) > start:
                return self.read(run_pids, shown)[0]
        return ()

    def count_foreign_processes(self, run_pids: Iterable[int], shown: Set[int] | None) -> int:
        """How many processes outside the run compute on these GPUs; 0 if unknown.

        Known only in the initial pid namespace: in a container the driver's pids differ. A list
        from before a driver blocked may name the run before this one.
        """
        if self.reason or not is_initial_pid_namespace() or self._is_stale():
            return 0
        foreign = set[int]()
        try:
            for raw in self._last["gpus"]:
                if shown is None or raw["index"] in shown:
                    foreign |= {int(pid) for pid, _ in raw["processes"] or ()}
        except (ValueError, KeyError, TypeError):
            return 0
        return len(foreign - set(run_pids))

    def count_processes(self, index: int) -> int:
        """How many processes compute on a GPU, whoever's; 0 if unknown."""
        if self.reason:
            return 0
        try:
            rows = [raw for raw in self._last["gpus"] if raw["index"] == index]
            return sum(len(raw["processes"] or ()) for raw in rows)
        except (ValueError, KeyError, TypeError):
            return 0

    def known_gpus(self) -> tuple[GpuInfo, ...]:
        """All GPUs of the machine, for the record's environment; empty before the facts arrive."""
        return tuple(GpuInfo.model_validate(gpu) for gpu in self.facts.get("gpus", ()))

    def stop(self) -> None:
        """Kill the sampler (SIGKILL, since it may be stuck in the driver)."""
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


def build_gpu(raw: Mapping[str, Any], pids: set[int], *, reserved: bool = False) -> Gpu:
    """Reading of one GPU, with the memory of the run's processes (`pids`).

    `reserved`: torch has memory on it, so that 0 bytes are no valid reading.
    """
    reasons = dict(raw["reasons"])
    held, reason = sum_process_memory(raw["processes"], raw["processes_reason"], pids)
    if held == 0 and reserved:
        held, reason = None, NOT_COUNTED
    if held is None:
        reasons["process"] = reason
    names = (
        "index", "used", "total", "utilisation", "power", "energy", "power_limit", "temperature",
        "clock", "memory_clock", "throttle",
    )  # fmt: skip
    figures = {name: raw.get(name) for name in names}
    if "interface" in raw:
        figures["interface"] = raw["interface"]
    return Gpu.model_validate({**figures, "process": held, "reasons": reasons})


def sum_process_memory(
    processes: list[tuple[int, int | None]] | None, reason: str, pids: set[int]
) -> tuple[int | None, str]:
    """Bytes that the run's processes hold on a GPU, or None and a reason.

    Without a match the sum is 0 only in the initial pid namespace. In a container the driver's
    pids are the host's, or it names none at all.
    """
    if processes is None:
        return None, reason
    mine = [held for pid, held in processes if pid in pids]
    if not mine:
        return (0, "") if is_initial_pid_namespace() else (None, NOT_OURS)
    if not all(mine):  # a process in the list has a CUDA context, so 0 bytes are no answer
        return None, "the driver does not say how much a process holds"
    return sum(held for held in mine if held is not None), ""


def is_initial_pid_namespace(link: Path = Path("/proc/self/ns/pid")) -> bool:
    """Whether this process is in the pid namespace that drivers use."""
    try:
        return str(link.readlink()) == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def is_library_present() -> bool:
    """Whether the loader finds NVIDIA's library; it is closed again without a call."""
    try:
        _ctypes.dlclose(ctypes.CDLL("libnvidia-ml.so.1")._handle)
    except OSError:
        return False
    return True
