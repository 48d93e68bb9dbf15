"""Lanes of a machine: each has GPUs and cores of its own and executes one run at a time.

Lanes of GPUs come from what the environment makes visible (`gpu_selection`), MIG slices included.
Without a GPU a lane is a share of the cores.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import PlainSerializer, PlainValidator

from engines.protocol import Device, RunSpec, parse_device
from results.records.schema import GpuInfo
from workbench.processes import device_locks, gpu_selection
from workbench.processes.device_locks import DeviceLocks

ALL: Final = "all"
MAX_LANES: Final = 64
SLICE_CHARACTERS: Final = 12
"""Of a MIG slice's UUID in the name of its lane: enough to tell those of a card apart."""


def parse_lanes(value: Any) -> Literal["all"] | int | tuple[Device, ...] | None:
    """Lanes as typed or in a plan: `all`, `4`, `0,1,3`, `GPU-5d5ba0d6`; None or empty: no lanes.

    A comma makes a list: `3,` is the one lane of GPU 3, `3` is three lanes.

    Raises:
        ValueError: none of these.
    """
    typed = value.strip() if isinstance(value, str) else value
    if typed in (None, ""):
        return None
    if typed == ALL:
        return "all"
    if isinstance(typed, str) and re.fullmatch(r"[0-9]+", typed):
        typed = int(typed)
    try:
        if isinstance(typed, int) and not isinstance(typed, bool) and 1 <= typed <= MAX_LANES:
            return typed
        parts = typed.split(",") if isinstance(typed, str) else typed
        if isinstance(parts, list | tuple) and parts:
            names = [part for part in parts if str(part).strip()]
            return tuple(parse_device(name) for name in names) or None
    except ValueError:
        pass
    raise ValueError(f"give all, a number from 1 to {MAX_LANES}, or GPUs as 0,1,3")


LaneChoice = Annotated[
    Literal["all"] | int | tuple[Device, ...] | None,
    PlainValidator(parse_lanes, json_schema_input_type=str | int | tuple[int | str, ...] | None),
    # pydantic's own turns a tuple into a list, and then warns that it is none
    PlainSerializer(
        lambda choice: list(choice) if isinstance(choice, tuple) else choice, when_used="json"
    ),
]
"""All devices, a number of lanes, or the GPUs of the lanes; None: no lanes, one run at a time."""


def format_lanes(choice: LaneChoice) -> str:
    """The text that `parse_lanes` reads."""
    if isinstance(choice, tuple):
        return ",".join(map(str, choice)) + ("," if len(choice) == 1 else "")
    return "" if choice is None else str(choice)


class LaneError(ValueError):
    """The lanes of a plan cannot be had on this machine; one sentence."""


@dataclass(frozen=True)
class Lane:
    """One lane."""

    locks: DeviceLocks
    """Of its GPUs; lanes of cores share those of the machine's CPU."""
    gpus: tuple[GpuInfo, ...] = ()
    """Empty: the GPUs of a run are those of its spec."""
    cores: frozenset[int] = frozenset()
    """CPU cores of its engines; empty: all that the warden may use."""
    number: int = 0

    @property
    def name(self) -> str:
        """`GPU 0, 1`, `GPU 0 MIG-5d5ba0d6` of a slice, or `lane 2` of a machine's cores."""
        cards = ", ".join(
            f"{gpu.card} {gpu.uuid[:SLICE_CHARACTERS]}" if gpu.parent_uuid else str(gpu.card)
            for gpu in self.gpus
        )
        return f"GPU {cards}" if self.gpus else f"lane {self.number}"

    def place_run(self, spec: RunSpec) -> RunSpec:
        """The spec with the lane's GPUs."""
        if not self.gpus:
            return spec
        return spec.model_copy(update={"devices": tuple(gpu.uuid for gpu in self.gpus)})


@dataclass(frozen=True)
class LaneStatus:
    """What a lane of a suite does now."""

    name: str
    """`GPU 3`, or `lane 2` of a machine's cores."""
    run: str = ""
    """Id of its run; empty: none is at work."""
    waiting: str = ""
    """Why it does not start the next run; empty: there is none, or it works."""


class LanePlan(NamedTuple):
    """What a plan says of lanes."""

    choice: LaneChoice = None
    """None: one lane, of all devices of the runs."""
    gpus_per_run: int = 0
    """GPUs of each lane; 0: as many as the largest run has processes."""


class Machine(NamedTuple):
    """What lanes are made of."""

    gpus: Sequence[GpuInfo]
    """The sampler's list, complete."""
    variables: Mapping[str, str]
    """Environment of the warden."""
    cores: Collection[int]
    """CPU cores that the warden may use."""


def make_lanes(
    plan: LanePlan, specs: Sequence[RunSpec], machine: Machine, suite: Path
) -> list[Lane]:
    """The lanes of a suite; all its runs have the same devices where it has lanes.

    `suite`: its folder, for those who wait for its locks.

    Raises:
        LaneError: these lanes cannot be had here.
    """
    gpus, variables, cores = machine
    if plan.choice is None:
        used = [device_locks.device_names(spec, variables, gpus) for spec in specs]
        return [Lane(_make_locks(set().union(*used), suite))]
    devices: tuple[Device, ...] = specs[0].devices if specs else ()
    cpu = any(spec.cpu for spec in specs) or gpu_selection.hides_all(variables)
    if cpu or not (gpus or gpu_selection.sees_gpu(devices, variables, cpu=cpu)):
        return _make_core_lanes(plan.choice, cores, suite)
    allowed = gpu_selection.list_allowed(devices, variables, gpus)
    if not allowed.gpus or not allowed.certain:
        raise LaneError(f"lanes: {allowed.reason or 'the driver lists no GPU'}")
    ranks = [int(spec.params.get("nproc_per_node") or 1) for spec in specs]
    size = plan.gpus_per_run or max(ranks, default=1)
    groups = _group_gpus(plan.choice, machine, allowed.gpus, size)
    parts = split_cores(cores, len(groups))
    return [
        Lane(_make_locks({gpu.uuid for gpu in group}, suite), group, part, number)
        for number, (group, part) in enumerate(zip(groups, parts, strict=True), 1)
    ]


def _make_locks(names: Iterable[str], suite: Path) -> DeviceLocks:
    return DeviceLocks(names, suite.name, log_root=str(suite.parent))


def _make_core_lanes(choice: LaneChoice, cores: Collection[int], suite: Path) -> list[Lane]:
    if isinstance(choice, tuple):
        names = format_lanes(choice)
        raise LaneError(f"lanes = {names}: no GPU is visible here; give a number of lanes")
    count = len(cores) if choice == ALL else int(choice or 1)
    locks = _make_locks({device_locks.CPU}, suite)
    parts = split_cores(cores, count)
    return [Lane(locks, (), part, number) for number, part in enumerate(parts, 1)]


def _group_gpus(
    choice: LaneChoice, machine: Machine, allowed: Sequence[GpuInfo], size: int
) -> list[tuple[GpuInfo, ...]]:
    """GPUs of each lane, `size` each; what is left over has no lane."""
    rows = list(allowed)
    if isinstance(choice, tuple):
        if problems := gpu_selection.find_device_problems(choice, machine.variables, machine.gpus):
            raise LaneError(f"lanes: {'; '.join(problems)}")
        rows = [gpu for device in choice for gpu in gpu_selection.fitting_gpus(device, allowed)]
        if len(rows) < len(choice):
            raise LaneError(f"lanes = {format_lanes(choice)}: not all are among the plan's devices")
    if any(not gpu.uuid for gpu in rows):
        raise LaneError("lanes: NVML does not tell the UUID of every GPU")
    if size > 1 and any(gpu.parent_uuid for gpu in rows):
        raise LaneError(f"lanes of {size} GPUs: CUDA shows one MIG slice to a process")
    groups = [tuple(rows[at : at + size]) for at in range(0, len(rows) - size + 1, size)]
    if isinstance(choice, int):
        groups = groups[:choice]
    if not groups or (isinstance(choice, int) and len(groups) < choice):
        request = f"{choice} lanes" if isinstance(choice, int) else "a lane"
        raise LaneError(f"lanes: {request} of {size} GPUs, but {len(rows)} are visible")
    return groups


def split_cores(cores: Collection[int], count: int) -> list[frozenset[int]]:
    """Disjoint shares of the cores, neighbours together; more lanes than cores share them."""
    ordered = sorted(cores)
    if count >= len(ordered):
        return [frozenset({ordered[number % len(ordered)]}) for number in range(count)]
    bounds = [round(number * len(ordered) / count) for number in range(count + 1)]
    return [frozenset(ordered[low:high]) for low, high in itertools.pairwise(bounds)]
