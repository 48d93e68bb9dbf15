"""Place of a training job among the stages of a training, and the summaries of what it completed.

Steps and epochs of messages and checkpoints count over all stages, those of a job from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from engines import messages
from engines.emitter import Emitter


@dataclass(frozen=True)
class StagePosition:
    """Place of a training job among the stages of a training."""

    number: int = 0
    """From 1; 0: the training has no stages."""
    name: str = ""
    first_step: int = 0
    """Planned steps of the stages before."""
    first_epoch: float = 0.0
    """Planned epochs of the stages before."""

    @property
    def title(self) -> str:
        """`stage 2 (projector + LoRA)`; empty without stages."""
        name = f" ({self.name})" if self.name else ""
        return f"stage {self.number}{name}" if self.number else ""

    def seed(self, seed: int) -> int:
        """Seed of the stage's batches and dropout; of the first stage the run's own."""
        return seed + (max(0, self.number - 1) << 32)

    def shift(self, window: messages.Step) -> messages.Step:
        """A window of the job with steps and epochs counted over all stages."""
        if not self.first_step:
            return window
        return window.model_copy(
            update={
                "step": window.step + self.first_step,
                "epoch": window.epoch + self.first_epoch,
            }
        )


class EpochEnd(NamedTuple):
    """Outcome of the validation at the end of an epoch."""

    stops: bool = False
    """Whether training should stop."""
    metrics: Mapping[str, float] = {}
    since_best: int | None = None
    """Validations since the best one; None: nothing is monitored."""
    patience: int | None = None
    """Of early stopping; None: off."""


Summary = messages.EpochSummary | messages.StageSummary


class TrainingHistory:
    """Summaries of completed epochs and stages; a checkpoint holds those up to its step."""

    def __init__(self) -> None:
        self._summaries: list[Summary] = []

    def add(self, summary: Summary, emit: Emitter) -> None:
        """Keep and send a summary."""
        self._summaries.append(summary)
        emit.send(summary)

    def has_stage(self, number: int) -> bool:
        """Whether stage `number` was summarized."""
        return any(s.stage == number for s in self._summaries if s.kind == "stage")

    def stopped_at(self, stage: int) -> int | None:
        """Steps after which early stopping ended stage `stage`; None: it did not."""
        stops = (s for s in self._summaries if s.kind == "epoch" and s.stage == stage and s.stopped)
        return next((s.epoch * (s.steps or 0) for s in stops), None)

    def count_steps(self, stage: int, planned: int) -> int:
        """Steps of the whole training. `stage`: its last, 0: no stages; `planned`: their steps."""
        stages = [s.steps for s in self._summaries if s.kind == "stage"]
        return sum(stages) if stages else self.stopped_at(stage) or planned

    def as_state(self) -> list[dict[str, Any]]:
        """The summaries as a checkpoint stores them."""
        return [summary.model_dump(mode="json", exclude={"t"}) for summary in self._summaries]

    def restore(self, state: Iterable[Mapping[str, Any]], emit: Emitter) -> None:
        """Keep and send the summaries of a checkpoint; those kept so far are dropped."""
        self._summaries.clear()
        for content in state:
            kind: type[Summary] = (
                messages.StageSummary if content.get("kind") == "stage" else messages.EpochSummary
            )
            self.add(kind.model_validate(content), emit)
