"""Makes the product see a machine of the catalog: its NVML, its CUDA, its CPU.

    see(monkeypatch, machine)        pynvml, torch.cuda.*, the CPU and the environment at once
    fill(stub.state, machine)        the same for the compiled NVML stub, for child processes
    facts_of(monkeypatch, machine)   what the sampler says of it, by the product's own code

Rules of CUDA that the fakes follow (CUDA C++ programming guide, "CUDA Environment Variables"):
devices are counted fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID; an entry of
CUDA_VISIBLE_DEVICES that is no device hides all that follow; a process sees one MIG device at most.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import pynvml
import pytest

from engines.torchkit.runtime import device
from tests.fixtures.nvml.state import UNKNOWN_BYTES, State
from tests.hardware.machines import MIB, Gpu, Machine, Slice
from workbench.processes import gpu_selection
from workbench.telemetry import gpus, nvml, nvml_library

OTHER_PID, HELD_MIB = 4242, 512
"""A process on every GPU that is not ours, where NVML names any."""
RESERVED_MIB = 600


class Visible(NamedTuple):
    """A device as CUDA counts it."""

    gpu: Gpu
    slice: Slice | None

    @property
    def uuid(self) -> str:
        return self.slice.uuid if self.slice else self.gpu.uuid

    @property
    def name(self) -> str:
        return f"{self.gpu.name} MIG {self.slice.profile}" if self.slice else self.gpu.name

    @property
    def memory_bytes(self) -> int:
        return (self.slice.mib if self.slice else self.gpu.torch_mib) * MIB


# --- CUDA ----------------------------------------------------------------------------------------


def visible(machine: Machine, environment: Mapping[str, str]) -> list[Visible]:
    """The devices that CUDA shows a process with this environment, in CUDA's order."""
    ordered = list(machine.gpus)
    if environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        ordered.sort(key=lambda gpu: -gpu.speed)
    devices = [Visible(gpu, part) for gpu in ordered for part in (gpu.slices or (None,))]
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        devices = _chosen(devices, chosen)
    first_slice = next((row for row, one in enumerate(devices) if one.slice), None)
    return devices if first_slice is None else devices[first_slice : first_slice + 1]


def _chosen(devices: list[Visible], names: str) -> list[Visible]:
    shown: list[Visible] = []
    for text in names.split(","):
        name = text.strip()
        if name.isdigit() and int(name) < len(devices):
            shown.append(devices[int(name)])
            continue
        match = [one for one in devices if name and one.uuid.startswith(name)]
        if name.isdigit() or len(match) != 1:
            break
        shown += match
    return shown


class FakeCuda:
    """`torch.cuda` of a machine. The environment is read at each call, as before CUDA starts."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def usable(self) -> list[Visible]:
        old = int(self.machine.torch.cuda.split(".")[0]) > self.machine.driver_cuda
        return [] if old else visible(self.machine, os.environ)

    def is_available(self) -> bool:
        return bool(self.usable())

    def is_initialized(self) -> bool:
        return False

    def device_count(self) -> int:
        return len(self.usable())

    def current_device(self) -> int:
        return 0

    def init(self) -> None:
        """Raises what torch 2.15 raises."""
        if self.usable():
            return
        if not self.machine.gpus:
            raise RuntimeError(
                "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU "
                "and installed a driver from http://www.nvidia.com/Download/index.aspx"
            )
        if visible(self.machine, os.environ):
            raise RuntimeError(
                "The NVIDIA driver on your system is too old (found version "
                f"{self.machine.driver_cuda}020). Please update your GPU driver by downloading and "
                "installing a new version from the URL: "
                "http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
                "https://pytorch.org to install a PyTorch version that has been compiled with "
                "your version of the CUDA driver."
            )
        raise RuntimeError("No CUDA GPUs are available")

    def get_device_properties(self, device: Any = None) -> SimpleNamespace:
        one = self._one(device)
        domain, bus, rest = one.gpu.bus.split(":")
        return SimpleNamespace(
            name=one.name, major=one.gpu.capability[0], minor=one.gpu.capability[1],
            total_memory=one.memory_bytes, multi_processor_count=one.gpu.speed,
            uuid=one.uuid.partition("-")[2],  # torch prints no prefix
            pci_domain_id=int(domain, 16), pci_bus_id=int(bus, 16),
            pci_device_id=int(rest.split(".")[0], 16),
        )  # fmt: skip

    def get_device_name(self, device: Any = None) -> str:
        return self._one(device).name

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        return self._one(device).gpu.capability

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        total = self._one(device).memory_bytes
        return total - RESERVED_MIB * MIB, total

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        devices = self.usable()
        return bool(devices) and (including_emulation or devices[0].gpu.capability >= (8, 0))

    def get_arch_list(self) -> list[str]:
        return list(self.machine.torch.architectures)

    def _one(self, device: Any) -> Visible:
        index = getattr(device, "index", device) or 0
        return self.usable()[int(index)]


# --- NVML ----------------------------------------------------------------------------------------


class FakeNvml:
    """`pynvml` of a machine: handles are `Gpu` or `Slice`; constants and errors are the real ones.

    What it does not have is looked up in the real module.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml"):
            raise AttributeError(f"the fake of pynvml lacks {name}")
        return getattr(pynvml, name)

    @property
    def nvmlMemory_v2(self) -> int:
        return pynvml.nvmlMemory_v2

    nvmlLib = SimpleNamespace()  # noqa: N815 - pynvml's name
    """The library itself: a real one, without a stand-in's symbols."""

    def nvmlInit(self) -> None:
        if not self._machine.gpus:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlSystemGetDriverVersion(self) -> str:
        return self._machine.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self._machine.driver_cuda * 1000

    def nvmlDeviceGetCount(self) -> int:
        return len(self._machine.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        return self._machine.gpus[index]

    def nvmlDeviceGetName(self, handle: Gpu | Slice) -> str:
        if isinstance(handle, Slice):
            return f"{self._parent(handle).name} MIG {handle.profile}"
        return handle.name

    def nvmlDeviceGetUUID(self, handle: Gpu | Slice) -> str:
        return handle.uuid

    def nvmlDeviceGetPciInfo(self, handle: Gpu | Slice) -> SimpleNamespace:
        gpu = self._parent(handle) if isinstance(handle, Slice) else handle
        return SimpleNamespace(busId=gpu.bus)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Gpu | Slice) -> tuple[int, int]:
        gpu = self._parent(handle) if isinstance(handle, Slice) else handle
        return gpu.capability

    def nvmlDeviceGetMemoryInfo(
        self, handle: Gpu | Slice, version: int | None = None
    ) -> SimpleNamespace:
        mib = handle.mib if isinstance(handle, Slice) else handle.nvml_mib
        used = HELD_MIB + (0 if version else RESERVED_MIB)
        return SimpleNamespace(total=mib * MIB, used=used * MIB, free=(mib - used) * MIB)

    def nvmlDeviceGetMigMode(self, handle: Gpu) -> list[int]:
        if not handle.has_mig:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(bool(handle.slices))] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Gpu) -> int:
        return 7 if handle.has_mig else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Gpu, index: int) -> Slice:
        if index >= len(handle.slices):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle.slices[index]

    def nvmlDeviceGetUtilizationRates(self, handle: Gpu | Slice) -> SimpleNamespace:
        if isinstance(handle, Slice) or handle.slices:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=55, memory=0)

    def nvmlDeviceGetPowerUsage(self, handle: Gpu) -> int:
        return 60_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Gpu) -> int:
        return 3_600_000

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Gpu) -> int:
        return 70_000

    def nvmlDeviceGetTemperature(self, handle: Gpu, sensor: int) -> int:
        return 40

    def nvmlDeviceGetClockInfo(self, handle: Gpu, clock: int) -> int:
        return 1_410

    def nvmlDeviceGetMaxClockInfo(self, handle: Gpu, clock: int) -> int:
        return 1_590

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Gpu) -> int:
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Gpu | Slice) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if size == UNKNOWN_BYTES else size)
            for pid, size in _processes(self._machine)
        ]

    def _parent(self, handle: Slice) -> Gpu:
        return next(gpu for gpu in self._machine.gpus if handle in gpu.slices)


def _processes(machine: Machine) -> list[tuple[int, int]]:
    sizes = {"named": HELD_MIB * MIB, "unsized": UNKNOWN_BYTES}
    size = sizes.get(machine.processes)
    return [] if size is None else [(OTHER_PID, size)]


# --- ways in -------------------------------------------------------------------------------------


def see(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> FakeCuda:
    """Everything at once, for decisions made in this process."""
    see_driver(monkeypatch, machine)
    return see_torch(monkeypatch, machine)


def see_environment(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Its variables, and none of CUDA's that this machine may have."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)


def see_driver(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> FakeNvml:
    """NVIDIA's library, by a fake `pynvml` in this process."""
    fake = FakeNvml(machine)
    see_environment(monkeypatch, machine)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(nvml, "find_package_problem", lambda _file: "")
    monkeypatch.setattr(nvml, "library_path", lambda: machine.library)
    monkeypatch.setattr(gpus, "is_library_present", lambda: bool(machine.gpus))
    monkeypatch.setattr(gpu_selection, "count_device_nodes", lambda *_: len(machine.gpus))
    monkeypatch.setattr(nvml_library, "has_kernel_node", lambda *_: bool(machine.gpus))
    initial = machine.initial_pid_namespace
    monkeypatch.setattr(gpus, "is_initial_pid_namespace", lambda *_: initial)
    return fake


def see_torch(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> FakeCuda:
    """`torch.cuda`, torch's build and what it says of the CPU."""
    import torch

    see_environment(monkeypatch, machine)
    fake = FakeCuda(machine)
    for name in (
        "is_available", "is_initialized", "device_count", "current_device", "init",
        "get_device_properties", "get_device_name", "get_device_capability", "mem_get_info",
        "is_bf16_supported", "get_arch_list",
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.version, "cuda", machine.torch.cuda)
    monkeypatch.setattr(torch, "__version__", machine.torch.version)
    see_cpu(monkeypatch, machine)
    present, driver = bool(machine.gpus), machine.driver
    monkeypatch.setattr(device, "gpu_present", lambda: present)
    monkeypatch.setattr(device, "driver_version", lambda: driver)
    return fake


def see_cpu(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """What torch reports of the processor."""
    import torch

    cpu = machine.cpu
    reports = {
        "_is_avx512_supported": "avx512f", "_is_avx512_bf16_supported": "avx512_bf16",
        "_is_amx_tile_supported": "amx_tile",
    }  # fmt: skip
    for name, flag in reports.items():
        monkeypatch.setattr(torch.cpu, name, lambda has=flag in cpu.flags: has)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: cpu.bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)


def facts_of(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> dict[str, Any]:
    """The sampler's first line on that machine; empty where there is no library."""
    see_driver(monkeypatch, machine)
    try:
        return nvml.Nvml.open().facts()
    except nvml.NvmlAbsentError:
        return {}


def fill(state: State, machine: Machine) -> None:
    """The compiled stub's state, for child processes. It is 8 GPUs large."""
    state.device_count = len(machine.gpus)
    state.driver, state.cuda = machine.driver.encode(), machine.driver_cuda * 1000
    state.init_us = int(machine.driver_seconds * 1e6)
    for slot, gpu in zip(state.devices, machine.gpus, strict=False):
        slot.name, slot.uuid = gpu.name.encode(), gpu.uuid.encode()
        slot.bus, (slot.major, slot.minor) = gpu.bus.encode(), gpu.capability
        slot.total, slot.reserved = gpu.nvml_mib * MIB, RESERVED_MIB * MIB
        slot.used = HELD_MIB * MIB
        slot.hold(*_processes(machine))
        slices = [(one.uuid, f"{gpu.name} MIG {one.profile}", one.mib * MIB) for one in gpu.slices]
        slot.cut(able=gpu.has_mig, slices=slices)
