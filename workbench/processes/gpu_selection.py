"""GPU selection: which GPUs a run may use and which ones it took, matched with NVML's list.

The only module that reads CUDA_VISIBLE_DEVICES, for locks, telemetry, memory estimate and doctor.
CUDA numbers GPUs by CUDA_DEVICE_ORDER, NVML by PCI bus: only a UUID is the same in both. The rules
are those of the CUDA programming guide (environment variables) and of the MIG user guide (device
enumeration), as torch.cuda reads them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.gpu_readings import EngineGpu
from engines.protocol import Device
from results.records.schema import GpuInfo

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"
BY_BUS: Final = "PCI_BUS_ID"
"""The order in which NVML counts."""

BY_SPEED: Final = f"CUDA counts different GPUs by speed without {ORDER}={BY_BUS}"
SLICED: Final = "how CUDA counts MIG slices is not known; choose one by its UUID"

DEV: Final = Path("/dev")
WSL_DRIVER: Final = Path("/usr/lib/wsl/lib/libcuda.so.1")
"""Windows' driver as Linux sees it. Its `/dev/dxg` is there without an NVIDIA GPU too."""

DRIVER_SECONDS: Final = 3.0
"""Time for a driver to list its GPUs if there is no device node of one."""
DRIVER_SECONDS_WITH_NODES: Final = 10.0
"""The same with a device node: without persistence mode a driver initializes each card first (up
to about 1 s a card), and a run with unknown GPUs locks all of them."""


NOT_COUNTED: Final = "the driver counts no memory of the run's processes, where torch has some"
"""Seen with the open kernel module in containers (open-gpu-kernel-modules issue 614)."""


@dataclass(frozen=True, slots=True)
class VisibleGpus:
    """The GPUs that CUDA may make visible to a process."""

    gpus: tuple[GpuInfo, ...] = ()
    """In CUDA's order where `certain`: the first is `cuda:0`. Otherwise every GPU it may be."""
    certain: bool = True
    reason: str = ""
    """Why there are none, or why they are not certain."""


@dataclass(frozen=True, slots=True)
class RunGpus:
    """The GPUs that a run computes on, as rows of the sampler's list."""

    indexes: frozenset[int] = frozenset()
    reason: str = ""
    """Why the GPUs are unknown; empty if there are `indexes`."""


def count_device_nodes(nodes: Path = DEV) -> int:
    """How many GPUs have a device node (`/dev/nvidia0`, …); WSL has none for its GPUs."""
    return len(list(nodes.glob("nvidia[0-9]*")))


def gpu_may_exist(nodes: Path = DEV) -> bool:
    """Whether there is a device node of a GPU, whatever the driver reports."""
    return count_device_nodes(nodes) > 0 or ((nodes / "dxg").exists() and WSL_DRIVER.exists())


def driver_timeout(nodes: Path = DEV) -> float:
    """Seconds to wait for a driver to list its GPUs."""
    return DRIVER_SECONDS_WITH_NODES if gpu_may_exist(nodes) else DRIVER_SECONDS


def parse_visible(value: str) -> tuple[int | str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES, indexes and UUIDs, up to the first invalid one.

    `0,-1,1` is (0,); a repeated entry hides everything.
    """
    entries: list[int | str] = []
    for part in value.split(","):
        name = part.strip()
        number = re.match(r"\+?[0-9]+", name)  # CUDA reads indexes as C's strtoul does
        if number is None and not name.startswith(("GPU-", "MIG-")):
            break
        entries.append(int(number[0]) if number else name)
    return tuple(entries) if len(set(entries)) == len(entries) else ()


def hides_all(variables: Mapping[str, str]) -> bool:
    """Whether the environment leaves CUDA without any GPU."""
    value = variables.get(VISIBLE)
    return value is not None and not parse_visible(value)


def sees_gpu(
    devices: Sequence[Device], variables: Mapping[str, str], *, cpu: bool, nodes: Path = DEV
) -> bool:
    """Whether an engine may find a GPU, from device nodes and environment alone."""
    return not cpu and not hides_all(variables) and (bool(devices) or gpu_may_exist(nodes))


def resolve_visible(
    devices: Sequence[Device],
    variables: Mapping[str, str],
    gpus: Sequence[GpuInfo],
    *,
    cpu: bool = False,
) -> VisibleGpus:
    """The GPUs that CUDA shows to an engine with this environment.

    `devices`: GPUs of a plan, chosen among those that the environment makes visible; empty: all of
    these. `gpus`: the sampler's list, complete.
    """
    if cpu:
        return VisibleGpus(reason="the run computes on the CPU, as asked")
    allowed = _environment_gpus(variables, gpus)
    if not allowed.gpus and allowed.reason:
        return allowed
    if devices:
        return _first_slices(_choose(devices, allowed, gpus), gpus)
    if allowed.reason == SLICED:
        return allowed
    shown = _first_slices(allowed.gpus, gpus)
    if allowed.certain or len(shown.gpus) < 2:
        return shown
    return VisibleGpus(shown.gpus, certain=False, reason=allowed.reason)


def _environment_gpus(variables: Mapping[str, str], gpus: Sequence[GpuInfo]) -> VisibleGpus:
    """What CUDA_VISIBLE_DEVICES holds, all MIG slices of a card included; without it everything."""
    usable = tuple(gpu for gpu in gpus if gpu.usable)
    value = variables.get(VISIBLE)
    if value is None:
        by_bus = variables.get(ORDER, BY_BUS) == BY_BUS
        return VisibleGpus(usable) if by_bus else VisibleGpus(usable, False, BY_SPEED)
    entries = parse_visible(value)
    if not entries:
        return VisibleGpus(reason=f"{VISIBLE} hides every GPU")
    if any(isinstance(entry, int) for entry in entries):
        if any(gpu.parent_uuid for gpu in gpus):
            return VisibleGpus(usable, False, SLICED)
        if variables.get(ORDER) != BY_BUS and len({gpu.name for gpu in usable}) > 1:
            return VisibleGpus(usable, False, BY_SPEED)
    return VisibleGpus(tuple(_select(entries, gpus)))


def list_allowed(
    devices: Sequence[Device], variables: Mapping[str, str], gpus: Sequence[GpuInfo]
) -> VisibleGpus:
    """All GPUs that processes of this environment may be given, one by one by UUID.

    Unlike `resolve_visible` with every MIG slice. `devices`: GPUs of a plan; empty: all of the
    environment's.
    """
    allowed = _environment_gpus(variables, gpus)
    if not allowed.certain and VISIBLE not in variables:
        allowed = VisibleGpus(allowed.gpus)  # in an unknown order, but all of them
    return VisibleGpus(tuple(_choose(devices, allowed, gpus))) if devices else allowed


def _choose(
    devices: Sequence[Device], allowed: VisibleGpus, gpus: Sequence[GpuInfo]
) -> list[GpuInfo]:
    """The GPUs of a plan's devices, up to the first that is not among those allowed."""
    rows: list[GpuInfo] = []
    for device in devices:
        fits = [gpu for gpu in fitting_gpus(device, gpus) if gpu in allowed.gpus]
        if not fits:
            break
        rows += fits
    return rows


def find_device_problems(
    devices: Sequence[Device], variables: Mapping[str, str], gpus: Sequence[GpuInfo]
) -> list[str]:
    """Why GPUs that a plan names cannot be used here, one sentence each.

    `gpus`: the sampler's list, not empty.
    """
    allowed = _environment_gpus(variables, gpus)
    if devices and not allowed.gpus:
        remedy = f"unset {VISIBLE}, or name no device"
        return [f"device {devices[0]}: {allowed.reason or f'{VISIBLE} shows no GPU'}; {remedy}"]
    problems, rows = [], list[int]()
    for device in devices:
        fits = fitting_gpus(device, gpus)
        shown = [gpu for gpu in fits if gpu in allowed.gpus]
        if len(shown) == 1 and shown[0].index not in rows:
            rows.append(shown[0].index)
            continue
        problems.append(f"device {device}: {_device_problem(fits, shown, allowed, variables)}")
    return problems


def _device_problem(
    fits: Sequence[GpuInfo],
    shown: Sequence[GpuInfo],
    allowed: VisibleGpus,
    variables: Mapping[str, str],
) -> str:
    """Why a device that is not exactly one new GPU cannot be used.

    `fits`: GPUs of that name; `shown`: those of them that the environment makes visible.
    """
    names = ", ".join(describe_gpu(gpu) for gpu in shown or allowed.gpus)
    if not fits:
        return f"there is no such GPU; name one of {names}"
    if not shown:
        return f"{VISIBLE}={variables.get(VISIBLE)} does not show it; name one of {names}"
    if len(shown) > 1:
        return f"it has {len(shown)} MIG slices; name one of {names} by its UUID"
    return "it is named twice; name each GPU once"


def describe_gpu(gpu: GpuInfo) -> str:
    """`GPU 3 (GPU-5d5ba0d6-…)`: NVML's index of the card and the whole UUID."""
    return f"GPU {gpu.card} ({gpu.uuid or 'without UUID'})"


def visible_value(
    devices: Sequence[Device], variables: Mapping[str, str], gpus: Sequence[GpuInfo]
) -> str:
    """Value of CUDA_VISIBLE_DEVICES for a plan's devices, of one kind, as torch requires.

    UUIDs, since an index means another card in another order or container. Indexes in PCI order
    where the driver has listed no GPU or a chosen one has no single UUID.
    """
    if not gpus:
        return ",".join(map(str, devices))
    allowed = _environment_gpus(variables, gpus)
    names: list[str] = []
    for device in devices:
        fits = [gpu for gpu in fitting_gpus(device, gpus) if gpu in allowed.gpus]
        if not fits:  # CUDA, too, ends the list there
            break
        names.append(fits[0].uuid if len(fits) == 1 else "")
    return ",".join(names if all(names) else map(str, devices[: len(names)]))


def fitting_gpus(device: Device, gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """The usable GPUs of an index or a UUID: one, or the slices of a card."""
    fits = _by_index(device, gpus) if isinstance(device, int) else _by_uuid(device, gpus)
    return [gpu for gpu in fits if gpu.usable]


def _select(entries: Iterable[int | str], gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """The GPUs of these entries; CUDA stops at the first that fits none, or more than one."""
    rows: list[GpuInfo] = []
    for entry in entries:
        fits = _by_index(entry, gpus) if isinstance(entry, int) else _by_uuid(entry, gpus)
        if not fits:
            break
        rows += [gpu for gpu in fits if gpu.usable]
    return rows


def _by_index(index: int, gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """The card of this PCI order, or its slices."""
    return [gpu for gpu in gpus if gpu.card == index]


def _by_uuid(name: str, gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """The one GPU whose UUID begins so; a divided card's own UUID stands for its slices."""
    fits = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
    parents = {gpu.parent_uuid for gpu in gpus if gpu.parent_uuid.startswith(name)}
    if len(fits) + len(parents) != 1:
        return []
    return fits or [gpu for gpu in gpus if gpu.parent_uuid in parents]


def _first_slices(gpus: Sequence[GpuInfo], every: Sequence[GpuInfo]) -> VisibleGpus:
    """CUDA shows one MIG slice at most, and no whole card beside it."""
    slices = tuple(gpu for gpu in gpus if gpu.parent_uuid)
    if not gpus:
        return VisibleGpus(
            reason="CUDA is shown no GPU that NVML lists" if every else "no GPU here"
        )
    if len(slices) > 1:
        return VisibleGpus(slices, False, f"CUDA takes one of {len(slices)} MIG slices")
    return VisibleGpus(slices or tuple(gpus))


def match_engine_gpus(
    named: Sequence[EngineGpu], visible: VisibleGpus, gpus: Sequence[GpuInfo]
) -> RunGpus:
    """The rows of the GPUs that an engine named, all or none: a partial sum is no memory peak.

    Args:
        named: the engine's GPUs, at least one.
        visible: result of `resolve_visible` for its environment.
        gpus: the sampler's list.
    """
    rows: set[int] = set()
    for gpu in named:
        fits = _matches(gpu, gpus)
        if len(fits) > 1:  # CUDA gave the UUID of a divided card
            shown = {shown.index for shown in visible.gpus}
            fits = [fit for fit in fits if fit.index in shown]
        name = gpu.uuid or gpu.pci_bus_id or "without UUID"
        if not fits:
            return RunGpus(reason=f"NVML lists no GPU {name}, which the engine uses")
        if len(fits) > 1:
            return RunGpus(reason=f"GPU {name} has {len(fits)} MIG slices; which one is not known")
        rows.add(fits[0].index)
    return RunGpus(frozenset(rows))


def _matches(named: EngineGpu, gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    usable = [gpu for gpu in gpus if gpu.usable]
    if named.uuid:
        key = _normalize_uuid(named.uuid)
        exact = [gpu for gpu in usable if _normalize_uuid(gpu.uuid) == key]
        return exact or [gpu for gpu in usable if _normalize_uuid(gpu.parent_uuid) == key]
    bus = named.pci_bus_id.lower()
    return [gpu for gpu in usable if bus and gpu.pci_bus_id.lower() == bus]


def _normalize_uuid(uuid: str) -> str:
    """A UUID without NVML's prefix, which torch leaves out."""
    return uuid.lower().removeprefix("mig-").removeprefix("gpu-")
