"""What NVIDIA's library says of the GPUs, every figure with its reason when it says nothing.

Only the sampler child calls this: a call into the driver may block for seconds, and nothing else of
the warden may wait for it. `pynvml` is imported when the library is opened, not before.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
Json = dict[str, Any]

LIBRARY: Final = "libnvidia-ml.so"

SYSTEM_FOLDERS: Final = (
    "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/nvidia", "/usr/local/cuda",
    "/run/opengl-driver", "/nix/store", "/opt/nvidia",
)  # fmt: skip
"""Where drivers and container runtimes put the library; one from elsewhere is taken for a stub."""

WRONG_STRUCTS: Final = ((535, 43), (535, 86))
"""Drivers from the first up to the second used a wider process struct: their pids are nonsense."""


class NvmlAbsentError(RuntimeError):
    """There are no GPU figures here, and this is why. `permanent`: asking again is useless."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class Nvml:
    """An initialised library."""

    def __init__(self, pynvml: Any) -> None:
        self._nvml = pynvml
        self._no_v2 = False
        self.driver = self._ask(pynvml.nvmlSystemGetDriverVersion)[0] or ""
        self.library = library_path()
        self.stub = is_stub(self.driver, self.library)
        count, reason = self._ask(pynvml.nvmlDeviceGetCount)
        if count is None:
            raise NvmlAbsentError(f"NVML cannot count the GPUs: {reason}")
        self.count: int = count

    @classmethod
    def open(cls) -> Nvml:
        """Load and initialise it.

        Raises:
            NvmlAbsentError: no library, the wrong package, or the driver refuses.
        """
        try:
            import pynvml
        except ImportError:
            raise NvmlAbsentError(
                "the package nvidia-ml-py is not installed", permanent=True
            ) from None
        if problem := impostor(str(pynvml.__file__)):
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
            "stub": self.stub,
            "gpus": [self._gpu_facts(index) for index in range(self.count)],
        }

    def _gpu_facts(self, index: int) -> Json:
        handle, _ = self._handle(index)
        memory, _ = self._memory(handle) if handle else (None, "")
        return {
            "index": index,
            "name": (self._ask(self._nvml.nvmlDeviceGetName, handle)[0] or "") if handle else "",
            "uuid": (self._ask(self._nvml.nvmlDeviceGetUUID, handle)[0] or "") if handle else "",
            "memory_bytes": memory["total"] if memory else None,
            "capability": self._ask(self._nvml.nvmlDeviceGetCudaComputeCapability, handle)[0]
            if handle
            else None,
        }

    def memory(self, index: int) -> Json:
        """Fast tier: `used` and `total` bytes, which interface told, reasons for nulls."""
        handle, reason = self._handle(index)
        memory = None
        if handle is not None:
            memory, reason = self._memory(handle)
        if memory is None:
            return {"used": None, "total": None, "reasons": {"used": reason, "total": reason}}
        return {**memory, "reasons": {}}

    def activity(self, index: int) -> Json:
        """Slow tier: utilisation in percent, power in watts, temperature in degrees Celsius."""
        nvml = self._nvml
        handle, lost = self._handle(index)
        asked: dict[str, Callable[[], float]] = {
            "utilisation": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "power": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature": lambda: float(
                nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
        }
        found: Json = {"reasons": {}}
        for name, ask in asked.items():
            found[name], reason = self._ask(ask) if handle else (None, lost)
            if found[name] is None:
                found["reasons"][name] = reason
        return found

    def processes(self, index: int) -> tuple[list[tuple[int, int | None]] | None, str]:
        """Rare tier: (pid, bytes) of all that compute on a GPU, or why nobody knows."""
        if WRONG_STRUCTS[0] <= version_of(self.driver) < WRONG_STRUCTS[1]:
            return None, f"driver {self.driver} reports wrong pids; 535.86 or later is right"
        handle, reason = self._handle(index)
        if handle is None:
            return None, reason
        found, reason = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
        if found is None:
            return None, reason
        return [(process.pid, process.usedGpuMemory) for process in found], ""

    def _handle(self, index: int) -> tuple[Any, str]:
        return self._ask(self._nvml.nvmlDeviceGetHandleByIndex, index)

    def _memory(self, handle: Any) -> tuple[Json | None, str]:
        """Version 2 keeps the driver's own reserve (hundreds of MiB) apart; version 1 cannot."""
        nvml = self._nvml
        found, reason, interface = None, "", "v1: used includes the driver's reserve"
        if not self._no_v2:
            try:
                found = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
                interface = "v2"
            except nvml.NVMLError as error:
                if error.value not in (
                    nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                    nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
                ):
                    return None, str(error)
                self._no_v2 = True
        if found is None:
            found, reason = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        if found is None:
            return None, reason
        return {"used": found.used, "total": found.total, "interface": interface}, ""

    def _ask(self, call: Callable[..., T], *arguments: Any) -> tuple[T | None, str]:
        """The answer, or None and the library's own words for why there is none."""
        try:
            return call(*arguments), ""
        except self._nvml.NVMLError as error:
            return None, str(error)
        except UnicodeDecodeError:
            return None, "the driver's answer is no text"


def impostor(module_file: str) -> str:
    """Why a module named pynvml is not the one of nvidia-ml-py; empty if it is."""
    remedy = "uninstall `pynvml` and install `nvidia-ml-py`"
    try:
        official = importlib.metadata.distribution("nvidia-ml-py").locate_file("pynvml.py")
    except importlib.metadata.PackageNotFoundError:
        return f"a package other than nvidia-ml-py provides pynvml; {remedy}"
    if Path(module_file).resolve() != Path(str(official)).resolve():
        return f"{module_file} hides the pynvml of nvidia-ml-py; {remedy}"
    return ""


def library_path(maps: Path = Path("/proc/self/maps")) -> str:
    """The file that the loader really took, whatever any search path says."""
    try:
        for line in maps.read_text().splitlines():
            if LIBRARY in line.rpartition("/")[2]:
                return line[line.index("/") :]
    except OSError:
        pass
    return ""


def is_stub(driver: str, library: str) -> bool:
    """Whether a stand-in answers. An unknown library is a stub: a fake never passes as real."""
    return "stub" in driver.lower() or not library.startswith(
        tuple(f"{folder}/" for folder in SYSTEM_FOLDERS)
    )


def version_of(driver: str) -> tuple[int, int]:
    """`535.54.03` as (535, 54); (0, 0) if it is no version."""
    parts = driver.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return 0, 0
