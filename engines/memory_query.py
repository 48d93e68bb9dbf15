"""What is asked about a run's memory, and what is answered: shared by the workbench and engines.

Apart from `messages`, which a running engine speaks: these are exchanged before any run exists, by
`engines.estimate_memory`, in JSON lines.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engines.cuda_support import BF16

Phase = Literal["train", "predict"]

STEP: Final = "model and step"
MAPPED: Final = "largest file of weights, mapped"
OTHERS: Final = "the other processes"
"""Parts of `Need.host`: what a CPU's phases say one by one, what the kernel may drop, and what
further ranks on this machine take."""


class Want(BaseModel):
    """One question: how much memory would these settings take?"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    model: str = Field(description="Name in the model catalogue, or path:/abs/dir")
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


class Need(BaseModel):
    """The answer: bytes at the peak of a phase, by what they are."""

    model_config = ConfigDict(frozen=True)

    phases: dict[Phase, dict[str, int]] = Field(
        default={}, description="Bytes that live at once at each phase's peak, by part"
    )
    host: dict[str, int] = Field(default={}, description="Bytes of host memory, by part")
    facts: dict[str, str] = Field(default={}, description="What it was computed for")
    problem: str = Field(default="", description="One sentence, where there is no answer")
    seconds: float = 0.0

    def peak(self) -> int:
        """Bytes of the phase that needs most; 0: no answer."""
        return max((sum(parts.values()) for parts in self.phases.values()), default=0)

    def deciding(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))
