"""Stages of a captioning training, each with trained parts, rates and length of its own.

Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from engines import param_sections

TrainedPart = Literal["projector", "lora"]
TrainedParts = Annotated[
    tuple[TrainedPart, ...],
    Field(description="Parts that are trained: projector, lora; lora only with a lora_rank"),
]
ALL_PARTS: Final[tuple[TrainedPart, ...]] = ("projector", "lora")


class CaptionStage(param_sections.Settings):
    """One stage of a training. What it does not set has the run's value."""

    name: str = Field("", max_length=40, description="Name in tables; empty: its number alone")
    trainable: TrainedParts | None = None
    epochs: float | None = Field(None, gt=0, le=10_000, description="Passes over the subset")
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps")
    batch: param_sections.Batch | None = None
    gradient_accumulation_steps: param_sections.Accumulation | None = None
    lr: param_sections.LearningRate | None = None
    projector_lr: param_sections.LearningRate | None = None
    weight_decay: float | None = Field(None, ge=0, lt=1, description="Decay of weight matrices")
    max_grad_norm: float | None = Field(None, ge=0, description="Largest gradient norm; 0: none")
    schedule: Literal["cosine", "constant"] | None = None
    warmup_ratio: float | None = Field(None, ge=0, le=1, description="Share of warm-up steps")
    warmup_steps: int | None = Field(None, ge=0, description="Warm-up steps")
    early_stopping: bool | None = None
    patience: param_sections.Patience | None = None
    min_delta: param_sections.MinDelta | None = None
    load_best: bool | None = None

    @property
    def settings(self) -> dict[str, object]:
        """What the stage sets, by name, without its own name."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"name"})
