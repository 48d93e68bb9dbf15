"""The GPUs that can be named, and the ones that are here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from datasets_mm.tomlfile import nearest
from workbench import devices, paths

TABLE: Final = Path(__file__).parent / "gpus.toml"
GIB: Final = 1 << 30


class Gpu(BaseModel):
    """A GPU as far as memory goes."""

    model_config = ConfigDict(frozen=True)

    name: str
    memory_bytes: int
    capability: tuple[int, int] = (8, 6)
    source: str = ""
    present: bool = False
    """In this machine; else named by a person."""

    @property
    def has_bf16(self) -> bool:
        """Ampere and later have it in hardware."""
        return self.capability >= (8, 0)


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
            source=row["source"],
        )
        for name, row in rows.items()
    }  # fmt: skip


def named(name: str) -> Gpu:
    """The GPU of that name, or one of so many GiB: `A10G`, `a100-80`, `16GiB`.

    Raises:
        UnknownGpuError: there is none, with the nearest.
    """
    known = {key.lower().replace("-", "").replace("_", ""): gpu for key, gpu in table().items()}
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "").removeprefix("nvidia")
    if plain == "a100":
        plain = "a10040"
    if plain in known:
        return known[plain]
    size = plain.removesuffix("gib").removesuffix("gb")
    if size.replace(".", "", 1).isdigit():
        unit = 10**9 if plain.endswith("gb") else GIB
        return Gpu(name=name, memory_bytes=int(float(size) * unit), source="as given")
    raise UnknownGpuError(
        f"--gpu {name}: no such GPU{nearest(name, list(table()))}; or give its memory, as 24GiB"
    )


def present() -> list[Gpu]:
    """The GPUs of this machine, asked by a child: a call into a driver may never return."""
    command = [sys.executable, "-m", "workbench.telemetry.sampler", "--once"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=devices.answer_seconds(), env={**os.environ, **paths.module_path(os.environ)},
        )  # fmt: skip
        said = [json.loads(line) for line in done.stdout.splitlines()]
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return []
    facts = said[0].get("facts", {}) if said else {}
    if facts.get("stub"):
        return []
    return [
        gpu
        for row in facts.get("gpus", [])
        if (gpu := _of(row.get("name"), row.get("memory_bytes")))
    ]


def _of(name: str | None, memory_bytes: int | None) -> Gpu | None:
    """A GPU by what NVML says of it; torch sees what the table says, where that is known."""
    if not name or not memory_bytes:
        return None
    with TABLE.open("rb") as file:
        rows = tomllib.load(file)
    for key, row in rows.items():
        if name in row["names"]:
            return table()[key].model_copy(update={"name": name, "present": True})
    return Gpu(name=name, memory_bytes=memory_bytes, source="NVML", present=True)
