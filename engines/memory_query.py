"""Memory query and memory estimate: JSON lines between workbench and `engines.memory_estimator`."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engines.cuda_support import BF16

Phase = Literal["train", "predict"]

STEP: Final = "model and step"
MAPPED: Final = "largest file of weights, mapped"
OTHERS: Final = "the other processes"
"""Parts of `MemoryEstimate.host`: the sum of a CPU's phases, pages that the kernel may drop, and
further ranks on this machine."""


class MemoryQuery(BaseModel):
    """Query: how much memory does a run with these settings take?"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    model: str = Field(description="Name in the model catalog, or path:/abs/dir")
    params: dict[str, Any] = Field(description="The engine's settings, all of them")
    trains: bool = Field(default=True, description="Task train; else only predictions are made")
    target: Literal["cuda", "cpu"] = "cuda"
    capability: tuple[int, int] | None = Field(
        default=None, description="Of the GPU: 7.5 is a T4; needed for the target cuda"
    )
    text_tokens: int = Field(
        default=0, description="Text of the longest sample; 0: as in `subsets`"
    )
    image_size: tuple[int, int] | None = Field(
        default=None, description="Pixels, height and width, of the largest picture; None: a square"
    )
    subsets: tuple[str, ...] = Field(
        default=(), description="Folders of the built subsets that the run reads, its own first"
    )

    @model_validator(mode="after")
    def _names_the_gpu(self) -> Self:
        if self.target == "cuda" and self.capability is None:
            raise ValueError("target = cuda: say the GPU's compute capability, as [7, 5] for a T4")
        return self

    @property
    def has_bf16(self) -> bool:
        """Whether the GPU has bf16 in hardware."""
        return self.capability is not None and self.capability >= BF16


class MemoryEstimate(BaseModel):
    """Answer to a `MemoryQuery`: bytes at the peak of each phase, by part."""

    model_config = ConfigDict(frozen=True)

    phases: dict[Phase, dict[str, int]] = Field(
        default={}, description="Bytes that live at once at each phase's peak, by part"
    )
    moments: dict[str, dict[str, int]] = Field(
        default={}, description="As `phases`, of moments that have parts which the peaks lack"
    )
    weights: tuple[str, ...] = Field(default=(), description="Names of the parts that are weights")
    avoided: dict[str, int] = Field(
        default={}, description="Bytes in prediction that the engine avoids, by what they are for"
    )
    host: dict[str, int] = Field(default={}, description="Bytes of host memory, by part")
    facts: dict[str, str] = Field(default={}, description="What it was computed for")
    problem: str = Field(default="", description="One sentence, where there is no answer")
    seconds: float = 0.0

    def peak(self) -> int:
        """Bytes at the highest peak of all phases; 0: no estimate."""
        return max((sum(parts.values()) for parts in self.phases.values()), default=0)

    def peak_phase(self) -> Phase:
        """The phase with the highest peak."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))
