"""GPUs of one attempt: which ones its engine uses, their NVML readings, and throttling.

The engine names its GPUs by UUID in its Hello, and only these are read. Before the Hello, and if
NVML does not list a named GPU, there is a reason instead of readings.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from engines.gpu_readings import Gpu
from engines.messages import Hello, Memory, Message, Notice, Phase
from engines.protocol import RunSpec
from results.records.schema import GpuInfo
from results.text import formats
from workbench.processes import gpu_selection, host_memory
from workbench.processes.gpu_selection import RunGpus
from workbench.telemetry.gpus import GpuWatch

COMPUTING: Final = frozenset({"warmup", "train", "eval", "encode", "search", "generate"})
"""Phases whose times are results; throttling is counted only in them."""

THROTTLED_SHARE: Final = 0.01
"""Smallest share of throttled readings that is reported; below it times change by < 1 %."""


class ReleasedVram(NamedTuple):
    """VRAM of an attempt's GPUs after its end, in bytes."""

    released: int
    """Fall of the used VRAM since the last sample, of all processes."""
    held: int
    """What processes of the attempt still hold."""


def find_gpu_obstacle(
    spec: RunSpec, gpus: Sequence[GpuInfo], watch: GpuWatch, every: Sequence[GpuInfo]
) -> str:
    """Why a run must not start yet on a lane's idle GPUs; empty: it may, or nothing is known.

    Processes of others on them, or less free memory than the run's forecast. `every`: the GPUs of
    all lanes; a forecast larger than all of them was overruled by `--force`.
    """
    need = _forecast_bytes(spec, on_gpu=True)
    if need > max((gpu.memory_bytes or 0 for gpu in every), default=0):
        need = 0
    for gpu in gpus:
        if others := watch.count_processes(gpu.index):
            word = "process" if others == 1 else "processes"
            return f"GPU {gpu.card}: {others} {word} of others on it"
        readings, _ = watch.read((), {gpu.index})
        for reading in readings:
            if reading.used is None or reading.total is None:
                continue
            if (free := reading.total - reading.used) < need:
                sizes = f"{formats.size(free)} free, the run's forecast is {formats.size(need)}"
                return f"GPU {gpu.card}: {sizes}"
    return ""


def find_host_obstacle(spec: RunSpec) -> str:
    """Why a run on the CPU must not start beside others; empty: it may."""
    need, free = _forecast_bytes(spec, on_gpu=False), host_memory.read_memory().available
    if free >= need:
        return ""
    return f"memory: {formats.size(free)} free, the run's forecast is {formats.size(need)}"


def _forecast_bytes(spec: RunSpec, *, on_gpu: bool) -> int:
    """The largest phase of the run's memory forecast for a GPU or the host; 0: there is none."""
    if bool(spec.fit.get("gpu")) is not on_gpu:
        return 0
    return int(max(spec.fit.get("total", {}).values(), default=0))


class AttemptGpus:
    """Readings of the GPUs that one attempt computes on."""

    def __init__(self, spec: RunSpec, watch: GpuWatch, variables: Mapping[str, str]) -> None:
        """`variables`: the environment that the engine is started from."""
        self._spec = spec
        self._watch = watch
        self._variables = variables
        self._hello: Hello | None = None
        self._reserved = self._computing = False
        self._throttling = Throttling()

    def receive(self, message: Message) -> None:
        """Update from a message of the engine: its GPUs, phase and allocator."""
        match message:
            case Hello():
                self._hello = message
            case Phase():
                self._computing = message.name in COMPUTING
            case Memory():
                self._reserved |= bool(message.vram_reserved_peak)

    @property
    def rows(self) -> RunGpus:
        """The run's GPUs as rows of the sampler's list, or the reason why they are unknown."""
        gpus, hello = self._watch.known_gpus(), self._hello
        if not gpus:  # what the sampler says is the reason
            return RunGpus(reason=self._watch.reason or "NVML lists no GPU")
        visible = gpu_selection.resolve_visible(
            self._spec.devices, self._variables, gpus, cpu=self._spec.cpu
        )
        if not visible.gpus:
            return RunGpus(reason=visible.reason)
        if hello is None or not (hello.device or hello.gpus):
            return RunGpus(reason="the engine has not said yet which GPU it takes")
        if hello.gpus:
            return gpu_selection.match_engine_gpus(hello.gpus, visible, gpus)
        if hello.device == "cpu":
            return RunGpus(reason="the run computes on the CPU")
        if len(visible.gpus) == 1:
            return RunGpus(frozenset({visible.gpus[0].index}))
        return RunGpus(reason=f"the engine does not say which of {len(visible.gpus)} GPUs it takes")

    def read(self, pids: Iterable[int]) -> tuple[tuple[Gpu, ...], str]:
        """Current readings of the run's GPUs, and a reason if there are none."""
        rows = self.rows
        if not rows.indexes:
            return (), rows.reason
        gpus, reason = self._watch.read(pids, rows.indexes, reserved=self._reserved)
        if self._computing:
            self._throttling.count(gpus)
        return gpus, reason

    def count_foreign_processes(self, pids: Iterable[int]) -> int:
        """How many foreign processes compute on the run's GPUs; 0 if that is unknown."""
        rows = self.rows
        return self._watch.count_foreign_processes(pids, rows.indexes) if rows.indexes else 0

    def wait_for_release(
        self, before: Sequence[Gpu], pids: Sequence[int], deadline: float
    ) -> ReleasedVram:
        """Read the GPUs until `pids` hold no VRAM, at most until `deadline` (CLOCK_MONOTONIC).

        `before`: the last readings while the attempt ran.
        """
        indexes = {gpu.index for gpu in before}
        gpus = self._watch.read_now(pids, indexes, deadline)
        while any(gpu.process for gpu in gpus) and time.monotonic() < deadline:
            gpus = self._watch.read_now(pids, indexes, deadline) or gpus
        gpu_of_index = {gpu.index: gpu for gpu in gpus}
        released = held = 0
        for earlier in before:
            if (gpu := gpu_of_index.get(earlier.index)) is None:
                continue
            held += gpu.process or 0
            if earlier.used is not None and gpu.used is not None:
                released += max(0, earlier.used - gpu.used)
        return ReleasedVram(released, held)

    def notices(self, t: float) -> list[Notice]:
        """Notices about throttling, at the attempt's end; `t`: seconds since its start."""
        return [Notice(t=t, code="throttled", text=text) for text in self._throttling.sentences()]


class Throttling:
    """Counts of throttled readings of each GPU, by reason, in computing phases."""

    def __init__(self) -> None:
        self._readings: Counter[int] = Counter()
        self._throttled: Counter[int] = Counter()
        self._reasons: Counter[tuple[int, str]] = Counter()
        self._megahertz: Counter[int] = Counter()
        self._limits: dict[int, float] = {}

    def count(self, gpus: Iterable[Gpu]) -> None:
        """Count one reading of each GPU; readings with an unknown throttle state are skipped."""
        for gpu in gpus:
            if gpu.throttle is None:
                continue
            self._readings[gpu.index] += 1
            self._throttled[gpu.index] += bool(gpu.throttle)
            self._reasons.update((gpu.index, reason) for reason in gpu.throttle)
            self._megahertz[gpu.index] += round(gpu.clock or 0)
            if gpu.power_limit is not None:
                self._limits[gpu.index] = gpu.power_limit

    def sentences(self) -> list[str]:
        """One sentence for each GPU throttled in at least `THROTTLED_SHARE` of its readings."""
        return [
            self._sentence(index, number)
            for index, number in sorted(self._readings.items())
            if self._throttled[index] >= THROTTLED_SHARE * number
        ]

    def _sentence(self, index: int, number: int) -> str:
        shares = [
            f"{reason} in {count / number:.0%}"
            for (gpu, reason), count in self._reasons.most_common()
            if gpu == index
        ]
        clock, limit = self._megahertz[index] / number, self._limits.get(index)
        facts = [f"{clock:,.0f} MHz on average"] if clock else []
        facts += [f"power limit {limit:.0f} W"] if limit is not None else []
        return (
            f"the clocks of GPU {index} were held down in {self._throttled[index] / number:.0%} of "
            f"{number} samples while it computed: {', '.join(shares)}"
            + (f" ({', '.join(facts)})" if facts else "")
        )
