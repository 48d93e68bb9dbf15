"""The GPUs that can be named, and the ones that are here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from datasets_mm.strict_toml import nearest
from results.records.schema import GpuInfo
from workbench import paths
from workbench.processes import gpu_selection

TABLE: Final = Path(__file__).parent / "gpus.toml"
GIB: Final = 1 << 30


class Gpu(BaseModel):
    """A GPU as far as memory goes."""

    model_config = ConfigDict(frozen=True)

    name: str
    memory_bytes: int
    capability: tuple[int, int] | None
    """None: NVML does not tell, and the table does not know the card. Nothing is assumed."""
    source: str = ""
    names: tuple[str, ...] = ()
    """As NVML and torch call it."""
    present: bool = False
    """In this machine; else named by a person."""
    driver: str = ""
    """Of this machine; empty for a GPU that is not here."""
    driver_cuda: tuple[int, int] | None = None
    """CUDA version of this machine's libcuda, where NVML tells it."""


class UnknownGpuError(LookupError):
    """There is no such GPU in the table; the one argument is a sentence."""


@cache
def table() -> dict[str, Gpu]:
    """The GPUs that can be named."""
    with TABLE.open("rb") as file:
        rows = tomllib.load(file)
    return {
        name: Gpu(
            name=name, memory_bytes=int(row["gib"] * GIB), capability=tuple(row["capability"]),
            source=row["source"], names=tuple(row["names"]),
        )
        for name, row in rows.items()
    }  # fmt: skip


def named(name: str) -> Gpu:
    """The GPU of that name, or one of so many GiB and a capability: `A10G`, `a100-80`, `16GiB@7.5`.

    Raises:
        UnknownGpuError: there is none, with the nearest, or its capability is missing.
    """
    known = {key.lower().replace("-", "").replace("_", ""): gpu for key, gpu in table().items()}
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "").removeprefix("nvidia")
    if plain == "a100":
        plain = "a10040"
    if plain in known:
        return known[plain]
    amount, _, capability = plain.partition("@")
    size = amount.removesuffix("gib").removesuffix("gb")
    if not size.replace(".", "", 1).isdigit():
        raise UnknownGpuError(
            f"--gpu {name}: no such GPU{nearest(name, list(table()))}; or give its memory and "
            "capability, as 24GiB@8.6"
        )
    major, _, minor = capability.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise UnknownGpuError(
            f"--gpu {name}: give its compute capability too, as {amount}@8.6 "
            "(T4 7.5, A100 8.0, A10G 8.6, RTX 4090 8.9, H100 9.0)"
        )
    unit = 10**9 if amount.endswith("gb") else GIB
    return Gpu(
        name=name, memory_bytes=int(float(size) * unit), capability=(int(major), int(minor)),
        source="as given",
    )  # fmt: skip


def facts() -> dict[str, Any]:
    """What NVML says of this machine, asked by a child: a call into a driver may never return."""
    command = [sys.executable, "-m", "workbench.telemetry.sampler", "--once"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=gpu_selection.answer_seconds(),
            env={**os.environ, **paths.module_path(os.environ)},
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines()]
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return {}
    answer: dict[str, Any] = lines[0].get("facts", {}) if lines else {}
    return {} if answer.get("stub") else answer


def listed(answer: Mapping[str, Any]) -> list[GpuInfo]:
    """The GPUs of the sampler's facts, MIG slices in the place of divided cards."""
    return [GpuInfo.model_validate(row) for row in answer.get("gpus", [])]


def of(info: GpuInfo, answer: Mapping[str, Any]) -> Gpu:
    """A GPU of this machine by what NVML says of it; where the table knows it, torch's memory."""
    known = next((gpu for gpu in table().values() if info.name in gpu.names), None)
    libcuda, memory = answer.get("cuda"), info.memory_bytes or 0
    return Gpu(
        name=info.name,
        memory_bytes=min(known.memory_bytes, memory) if known else memory,
        capability=info.capability or (known.capability if known else None),
        source=known.source if known else "NVML",
        present=True,
        driver=str(answer.get("driver") or ""),
        driver_cuda=tuple(libcuda) if libcuda else None,
    )
