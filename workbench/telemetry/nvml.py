"""NVML readings of the GPUs; each missing value has a reason.

Only the sampler process uses this, since a call into the driver may block for seconds. `pynvml` is
imported when the library is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from workbench.telemetry.nvml_library import LIBRARY, find_package_problem, is_stub, library_path

T = TypeVar("T")
Json = dict[str, Any]

THROTTLE: Final = {
    0x4: "power limit", 0x8: "hardware slowdown", 0x20: "temperature (driver)",
    0x40: "temperature (hardware)", 0x80: "power brake", 0x200: "board limit",
    0x400: "reliability limit",
}  # fmt: skip
"""Bits of nvmlClocksEventReasons_t that hold clocks below what was set. Left out: idle (1), clocks
that a person set (2), several boards in step (16), a display (256)."""

SLICE_HAS_NONE: Final = "NVML has no {} of a MIG slice"

WRONG_PID_DRIVERS: Final = ((535, 43), (535, 86))
"""Drivers from the first up to the second used a wider process struct: their pids are nonsense."""


class NvmlAbsentError(RuntimeError):
    """NVML is not available; the message is the reason. `permanent`: a retry is useless."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class GpuLocation(NamedTuple):
    """NVML's card and slice of a GPU in the list."""

    card_index: int
    """NVML's index."""
    slice: int | None = None
    """Index among the card's MIG slices; None: the card itself."""
    usable: bool = True
    """False: MIG is on and has no slice."""


class Nvml:
    """Initialized NVML. Its list of GPUs has MIG slices instead of divided cards."""

    def __init__(self, pynvml: Any) -> None:
        self._nvml = pynvml
        self._no_v2 = False
        self.driver = self._ask(pynvml.nvmlSystemGetDriverVersion)[0] or ""
        self.library = library_path()
        self.stub = is_stub(self.driver, self.library, os.environ, self._exports)
        cards, reason = self._ask(pynvml.nvmlDeviceGetCount)
        if cards is None:
            raise NvmlAbsentError(f"NVML cannot count the GPUs: {reason}")
        self.locations = [
            location for card in range(cards) for location in self._find_locations(card)
        ]

    @property
    def count(self) -> int:
        """GPUs in the list."""
        return len(self.locations)

    def _exports(self, symbol: str) -> bool:
        return hasattr(self._nvml.nvmlLib, symbol)

    def _find_locations(self, card: int) -> list[GpuLocation]:
        """The card, or its MIG slices if MIG is on."""
        nvml = self._nvml
        parent, _ = self._ask(nvml.nvmlDeviceGetHandleByIndex, card)
        mode, _ = self._ask(nvml.nvmlDeviceGetMigMode, parent) if parent else (None, "")
        if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return [GpuLocation(card)]
        most, _ = self._ask(nvml.nvmlDeviceGetMaxMigDeviceCount, parent)
        slices = [
            GpuLocation(card, index)
            for index in range(most or 0)
            if self._ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, index)[0] is not None
        ]
        return slices or [GpuLocation(card, usable=False)]

    @classmethod
    def open(cls) -> Nvml:
        """Load and initialize it.

        Raises:
            NvmlAbsentError: no library, the wrong package, or the driver refuses.
        """
        try:
            import pynvml
        except ImportError:
            raise NvmlAbsentError(
                "the package nvidia-ml-py is not installed", permanent=True
            ) from None
        if problem := find_package_problem(str(pynvml.__file__)):
            raise NvmlAbsentError(problem, permanent=True)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            absent = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
            text = f"{LIBRARY}.1 is not on this machine" if absent else f"NVML: {error}"
            raise NvmlAbsentError(text, permanent=absent) from None
        return cls(pynvml)

    def facts(self) -> Json:
        """Driver, library and GPUs, for the record's environment."""
        return {
            "driver": self.driver,
            "library": self.library,
            "cuda": self._cuda(),
            "stub": self.stub,
            "gpus": [self._gpu_facts(index) for index in range(self.count)],
        }

    def _cuda(self) -> tuple[int, int] | None:
        """CUDA version (major, minor) of the libcuda that programs load; newer than the driver's
        own if NVIDIA's compatibility library precedes it.
        """
        version, _ = self._ask(self._nvml.nvmlSystemGetCudaDriverVersion_v2)
        return None if version is None else (version // 1000, version % 1000 // 10)

    def _gpu_facts(self, index: int) -> Json:
        """One row of the list: the fields of `results.records.schema.GpuInfo`."""
        nvml, location = self._nvml, self.locations[index]
        handle, _ = self._handle(index)
        card, _ = self._card(index)
        memory, _ = self._memory(handle) if handle else (None, "")
        pci = self._fact(nvml.nvmlDeviceGetPciInfo, card)
        return {
            "index": index,
            "name": self._fact(nvml.nvmlDeviceGetName, handle) or "",
            "uuid": self._fact(nvml.nvmlDeviceGetUUID, handle) or "",
            "memory_bytes": memory["total"] if memory else None,
            "card_index": location.card_index,
            "pci_bus_id": to_text(pci.busId) if pci else "",
            "capability": self._fact(nvml.nvmlDeviceGetCudaComputeCapability, card),
            "parent_uuid": (self._fact(nvml.nvmlDeviceGetUUID, card) or "")
            if location.slice is not None
            else "",
            "usable": location.usable,
        }

    def _fact(self, call: Callable[[Any], T], handle: Any) -> T | None:
        return self._ask(call, handle)[0] if handle else None

    def memory(self, index: int) -> Json:
        """Fast tier: `used` and `total` bytes, NVML interface, reasons for nulls."""
        handle, reason = self._handle(index)
        memory = None
        if handle is not None:
            memory, reason = self._memory(handle)
        if memory is None:
            return {"used": None, "total": None, "reasons": {"used": reason, "total": reason}}
        return {**memory, "reasons": {}}

    def activity(self, index: int) -> Json:
        """Slow tier: percent, watts, degrees Celsius, MHz, and throttle reasons.

        A MIG slice shares clocks and heat with its card; utilisation and power are the card's
        alone, with all its tenants, and so none of the slice's.
        """
        nvml = self._nvml
        card, lost = self._card(index)
        whole: dict[str, Callable[[], float]] = {
            "utilisation": lambda: float(nvml.nvmlDeviceGetUtilizationRates(card).gpu),
            "power": lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1000,
        }
        shared: dict[str, Callable[[], Any]] = {
            "power_limit": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000,
            "temperature": lambda: float(
                nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)
            ),
            "clock": lambda: float(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),
            "memory_clock": lambda: float(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM)),
            "throttle": lambda: self._throttle(card),
        }
        figures: Json = {"reasons": {}}
        for name, ask in (whole | shared).items():
            figures[name], reason = self._ask(ask) if card else (None, lost)
            if name in whole and self.locations[index].slice is not None:
                figures[name], reason = None, SLICE_HAS_NONE.format(name)
            if figures[name] is None:
                figures["reasons"][name] = reason
        return figures

    def energy(self, index: int) -> Json:
        """Fast tier: joules of a card since its driver was loaded; a MIG slice has no counter."""
        if self.locations[index].slice is not None:
            return {"energy": None, "reasons": {"energy": SLICE_HAS_NONE.format("energy")}}
        card, reason = self._card(index)
        read_counter = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        joules, reason = self._ask(lambda: read_counter(card) / 1000) if card else (None, reason)
        return {"energy": joules, "reasons": {} if joules is not None else {"energy": reason}}

    def _throttle(self, card: Any) -> list[str]:
        """Throttle reasons, by the function's name since driver 535 or the one before it."""
        nvml = self._nvml
        try:
            bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(card)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                raise
            bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card)
        return [name for bit, name in THROTTLE.items() if bits & bit]

    def processes(self, index: int) -> tuple[list[tuple[int, int | None]] | None, str]:
        """Rare tier: (pid, bytes) of all processes that compute on a GPU, or None and a reason."""
        if WRONG_PID_DRIVERS[0] <= parse_version(self.driver) < WRONG_PID_DRIVERS[1]:
            return None, f"driver {self.driver} reports wrong pids; 535.86 or later is right"
        handle, reason = self._handle(index)
        if handle is None:
            return None, reason
        processes, reason = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
        if processes is None:
            return None, reason
        return [(process.pid, process.usedGpuMemory) for process in processes], ""

    def _card(self, index: int) -> tuple[Any, str]:
        return self._ask(self._nvml.nvmlDeviceGetHandleByIndex, self.locations[index].card_index)

    def _handle(self, index: int) -> tuple[Any, str]:
        """Of the card, or of its slice."""
        card, reason = self._card(index)
        slice_index = self.locations[index].slice
        if card is None or slice_index is None:
            return card, reason
        return self._ask(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, slice_index)

    def _memory(self, handle: Any) -> tuple[Json | None, str]:
        """Memory in bytes. Version 2 excludes the driver's reserve (hundreds of MiB), 1 cannot."""
        nvml = self._nvml
        memory, reason, interface = None, "", "v1: used includes the driver's reserve"
        if not self._no_v2:
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
                interface = "v2"
            except nvml.NVMLError as error:
                if error.value not in (
                    nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                    nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
                ):
                    return None, str(error)
                self._no_v2 = True
        if memory is None:
            memory, reason = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        if memory is None:
            return None, reason
        return {"used": memory.used, "total": memory.total, "interface": interface}, ""

    def _ask(self, call: Callable[..., T], *arguments: Any) -> tuple[T | None, str]:
        """Result of a call, or None and NVML's error text."""
        try:
            return call(*arguments), ""
        except self._nvml.NVMLError as error:
            return None, str(error)
        except UnicodeDecodeError:
            return None, "the driver's answer is no text"


def to_text(value: str | bytes) -> str:
    """A field of a struct, which the binding gives as text or as bytes."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def parse_version(driver: str) -> tuple[int, int]:
    """`535.54.03` as (535, 54); (0, 0) if it is no version."""
    parts = driver.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return 0, 0
