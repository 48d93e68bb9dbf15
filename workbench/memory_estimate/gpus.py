"""GPU models by name, and the GPUs of this machine, with memory and compute capability."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from datasets_mm.strict_toml import suggest_nearest
from results.records.schema import GpuInfo
from workbench import paths
from workbench.processes import gpu_selection

TABLE: Final = Path(__file__).parent / "gpus.toml"
GIB: Final = 1 << 30


class GpuModel(BaseModel):
    """Memory and compute capability of a GPU, as a person names it."""

    model_config = ConfigDict(frozen=True)

    name: str
    memory_bytes: int
    """0: neither NVML nor the table knows it."""
    capability: tuple[int, int] | None
    """None: neither NVML nor the table knows it."""
    source: str = ""
    names: tuple[str, ...] = ()
    """Its names in NVML and torch."""
    instances: dict[str, float] = {}
    """Rented machines with one of it: name -> GiB of host memory."""
    instance: str = ""
    """The one of these by which a person named it."""


class LocalGpu(GpuModel):
    """A GPU of this machine."""

    driver: str
    """Driver version; empty: NVML does not report it."""
    driver_cuda: tuple[int, int] | None
    """CUDA version of libcuda; None: NVML does not report it."""


class UnknownGpuError(LookupError):
    """No such GPU in the table; the only argument is a sentence."""


@cache
def load_gpu_table() -> dict[str, GpuModel]:
    """The GPU models of `gpus.toml`, by name."""
    with TABLE.open("rb") as file:
        rows = tomllib.load(file)
    return {
        name: GpuModel(
            name=name, memory_bytes=int(row["gib"] * GIB), capability=tuple(row["capability"]),
            source=row["source"], names=tuple(row["names"]), instances=row.get("instances", {}),
        )
        for name, row in rows.items()
    }  # fmt: skip


def find_gpu(name: str) -> GpuModel:
    """The GPU of a name, ours or nvidia-smi's, of a size and capability, or of a machine:
    `A10G`, `Tesla T4`, `3090`, `16GiB@7.5`, `g5.xlarge`.

    Raises:
        UnknownGpuError: there is no such GPU, or the capability is missing.
    """
    return _find_instance(name) or _find_model(name) or _parse_size(name)


def _find_instance(name: str) -> GpuModel | None:
    """The GPU of a rented machine of this name."""
    for gpu in load_gpu_table().values():
        if name.lower() in gpu.instances:
            return gpu.model_copy(update={"instance": name.lower()})
    return None


def _find_model(name: str) -> GpuModel | None:
    """The GPU of this name in the table; `RTX` may be left out."""
    gpus = {
        _normalize_name(title): gpu
        for key, gpu in load_gpu_table().items()
        for title in (*gpu.names, key)
    }
    normalized = _normalize_name(name)
    if normalized == "a100":
        normalized = "a10040"
    return gpus.get(normalized) or gpus.get(f"rtx{normalized}")


def _parse_size(name: str) -> GpuModel:
    """A GPU of a memory size and a compute capability: `16GiB@7.5`.

    Raises:
        UnknownGpuError: it is no size, or without a capability.
    """
    amount, _, capability = _normalize_name(name).partition("@")
    size = amount.removesuffix("gib").removesuffix("gb")
    if not size.replace(".", "", 1).isdecimal():
        raise UnknownGpuError(
            f"--gpu {name}: no such GPU{suggest_nearest(name, list(load_gpu_table()))}; "
            "or give its memory and capability, as 24GiB@8.6"
        )
    major, _, minor = capability.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise UnknownGpuError(
            f"--gpu {name}: give its compute capability too, as {name.partition('@')[0]}@8.6 "
            "(T4 7.5, A100 8.0, A10G 8.6, RTX 4090 8.9, H100 9.0)"
        )
    unit = 10**9 if amount.endswith("gb") else GIB
    return GpuModel(
        name=name, memory_bytes=int(float(size) * unit), capability=(int(major), int(minor)),
        source="as given",
    )  # fmt: skip


def _normalize_name(name: str) -> str:
    """A GPU's name without blanks, hyphens and the words that nvidia-smi puts before it."""
    return re.sub(r"[-_ ]|nvidia|tesla|geforce", "", name.lower())


def query_nvml() -> dict[str, Any]:
    """NVML's facts about this machine; empty: no answer, or a stub library.

    A child process asks, because a call into a driver may never return.
    """
    command = [sys.executable, "-m", "workbench.telemetry.sampler", "--once"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=gpu_selection.driver_timeout(),
            env={**os.environ, **paths.module_path(os.environ)},
        )  # fmt: skip
        lines = [json.loads(line) for line in result.stdout.splitlines()]
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return {}
    answer: dict[str, Any] = lines[0].get("facts", {}) if lines else {}
    return {} if answer.get("stub") else answer


def list_gpus(answer: Mapping[str, Any]) -> list[GpuInfo]:
    """The GPUs in the facts of `query_nvml`, MIG slices instead of divided cards."""
    return [GpuInfo.model_validate(row) for row in answer.get("gpus", [])]


def gpu_from_nvml(info: GpuInfo, answer: Mapping[str, Any]) -> LocalGpu:
    """A GPU of this machine from NVML's facts; memory as torch sees it if the table has the GPU."""
    entry = next((gpu for gpu in load_gpu_table().values() if info.name in gpu.names), None)
    cuda_version = answer.get("cuda")
    sizes = [size for size in (info.memory_bytes, entry and entry.memory_bytes) if size]
    return LocalGpu(
        name=info.name,
        memory_bytes=min(sizes, default=0),
        capability=info.capability or (entry.capability if entry else None),
        source=entry.source if entry else "NVML",
        driver=str(answer.get("driver") or ""),
        driver_cuda=tuple(cuda_version) if cuda_version else None,
    )
