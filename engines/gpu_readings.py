"""GPUs in messages: as the engine's runtime names one, and as NVML reads it at one moment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class EngineGpu(BaseModel):
    """A GPU as the engine's CUDA runtime names it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    uuid: str = ""
    """As torch gives it: 32 digits without NVML's prefix; of a MIG slice, its own or its card's."""
    pci_bus_id: str = ""
    """`00000000:65:00.0`, as NVML writes it."""
    name: str = ""
    memory_bytes: int | None = None
    """All memory that CUDA can use (cudaMemGetInfo)."""
    capability: tuple[int, int] | None = None


class Gpu(BaseModel):
    """One GPU at one moment. A null has its reason in `reasons` under the field's name; a journal
    from before a field was read has neither."""

    model_config = ConfigDict(frozen=True, extra="allow")

    index: int
    used: int | None = None
    total: int | None = None
    process: int | None = None
    """Bytes held by the run's own processes."""
    utilisation: float | None = None
    power: float | None = None
    """Watts."""
    energy: float | None = None
    """Joules since the driver was loaded."""
    power_limit: float | None = None
    """Watts that the driver enforces."""
    temperature: float | None = None
    clock: float | None = None
    """MHz of the multiprocessors."""
    memory_clock: float | None = None
    throttle: tuple[str, ...] | None = None
    """Why the clocks are held down now; empty: they are not."""
    reasons: dict[str, str] = {}
