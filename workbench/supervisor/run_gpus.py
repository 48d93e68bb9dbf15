"""The GPUs of one attempt: which ones its engine took, their figures, and what slowed them down.

The engine names them in its Hello, by UUID; NVML's figures are given of exactly these. Until then,
and where NVML does not list what the engine named, there are no figures and a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from engines.protocol import Gpu, Hello, Memory, Message, Notice, Phase, RunSpec
from workbench.processes import gpu_selection
from workbench.processes.gpu_selection import RunGpus
from workbench.telemetry.gpus import GpuWatch

COMPUTING: Final = frozenset({"warmup", "train", "eval", "encode", "search", "generate"})
"""Phases whose times are results: only in them does it matter whether clocks are held down."""

THROTTLED_SHARE: Final = 0.01
"""Of the readings in these phases; below it no step time moves by more than 1 %."""


class AttemptGpus:
    """What one attempt has of the machine's GPUs."""

    def __init__(self, spec: RunSpec, watch: GpuWatch, variables: Mapping[str, str]) -> None:
        """`variables`: the environment that the engine is started from."""
        self._spec = spec
        self._watch = watch
        self._variables = variables
        self._hello: Hello | None = None
        self._reserved = self._computing = False
        self._throttling = Throttling()

    def receive(self, message: Message) -> None:
        """Take in what the engine says of itself."""
        match message:
            case Hello():
                self._hello = message
            case Phase():
                self._computing = message.name in COMPUTING
            case Memory():
                self._reserved |= bool(message.vram_reserved_peak)

    @property
    def rows(self) -> RunGpus:
        """The rows of the sampler's list that the run computes on."""
        gpus, hello = self._watch.known_gpus(), self._hello
        if not gpus:  # what the sampler says is the reason
            return RunGpus(reason=self._watch.reason or "NVML lists no GPU")
        visible = gpu_selection.resolve(
            self._spec.devices, self._variables, gpus, cpu=self._spec.cpu
        )
        if not visible.gpus:
            return RunGpus(reason=visible.reason)
        if hello is None or not (hello.device or hello.gpus):
            return RunGpus(reason="the engine has not said yet which GPU it takes")
        if hello.gpus:
            return gpu_selection.match_engine(hello.gpus, visible, gpus)
        if hello.device == "cpu":
            return RunGpus(reason="the run computes on the CPU")
        if len(visible.gpus) == 1:
            return RunGpus(frozenset({visible.gpus[0].index}))
        return RunGpus(reason=f"the engine does not say which of {len(visible.gpus)} GPUs it takes")

    def read(self, pids: Iterable[int]) -> tuple[tuple[Gpu, ...], str]:
        """The figures of the run's GPUs now, and why there are none."""
        rows = self.rows
        if not rows.indexes:
            return (), rows.reason
        gpus, reason = self._watch.read(pids, rows.indexes, reserved=self._reserved)
        if self._computing:
            self._throttling.count(gpus)
        return gpus, reason

    def strangers(self, pids: Iterable[int]) -> int:
        """How many processes of others compute on the run's GPUs; 0 where nobody can tell."""
        rows = self.rows
        return self._watch.strangers(pids, rows.indexes) if rows.indexes else 0

    def notices(self, t: float) -> list[Notice]:
        """What a reader of the record should know of the GPUs, at the attempt's end."""
        return [Notice(t=t, code="throttled", text=text) for text in self._throttling.sentences()]


class Throttling:
    """How often the clocks of each GPU were held down, and by what, while it computed."""

    def __init__(self) -> None:
        self._readings: Counter[int] = Counter()
        self._throttled: Counter[int] = Counter()
        self._reasons: Counter[tuple[int, str]] = Counter()
        self._megahertz: Counter[int] = Counter()
        self._limits: dict[int, float] = {}

    def count(self, gpus: Iterable[Gpu]) -> None:
        """Count one reading of each GPU; one that does not know its state counts for nothing."""
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
        """One for each GPU that was held down for more than `THROTTLED_SHARE`."""
        return [
            self._sentence(index, number)
            for index, number in sorted(self._readings.items())
            if self._throttled[index] >= THROTTLED_SHARE * number
        ]

    def _sentence(self, index: int, number: int) -> str:
        shares = [
            f"{reason} in {count / number:.0%}"
            for (of, reason), count in self._reasons.most_common()
            if of == index
        ]
        clock, limit = self._megahertz[index] / number, self._limits.get(index)
        facts = [f"{clock:,.0f} MHz on average"] if clock else []
        facts += [f"power limit {limit:.0f} W"] if limit is not None else []
        return (
            f"the clocks of GPU {index} were held down in {self._throttled[index] / number:.0%} of "
            f"{number} samples while it computed: {', '.join(shares)}"
            + (f" ({', '.join(facts)})" if facts else "")
        )
