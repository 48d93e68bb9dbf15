"""Training put together from a run's settings: order of batches, rates, optimizer, checkpoints.

Apart from the engines because all that train do it alike; what a batch is and what a loss is are
theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from torch import nn

from engines.torchkit.checkpointing.training_identity import TrainingIdentity, model_digest
from engines.torchkit.data.data_loader import Loader, Order, Rows
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.runtime.context import Context
from engines.torchkit.training.loop import Outcome, Training
from engines.torchkit.training.optimizers import adamw
from engines.torchkit.training.schedules import planned_steps, warmup_cosine, warmup_steps

Batch = TypeVar("Batch")
Made_co = TypeVar("Made_co", covariant=True)


class Gathers(Protocol[Made_co]):
    """What makes batches of rows."""

    pin: bool
    """Into page-locked memory."""
    place: tuple[int, int]
    """This rank and the number of ranks."""

    def __call__(self, rows: Rows, epoch: int) -> Made_co:
        """The batch of these rows in this epoch."""


@dataclass(frozen=True)
class Course:
    """How long a run trains, in which order, and at which rates."""

    run: Context[Any]
    order: Order
    steps: int
    warm: int
    """Steps that warm up the rate."""
    identity: TrainingIdentity

    @classmethod
    def of(cls, run: Context[Any], samples: int, data: str) -> Self:
        """Over so many samples, as the run's settings say. `data`: digest of the samples."""
        params = run.params
        batch = params.batch * run.team.size
        order = Order(samples, batch, params.accumulation, run.spec.seed)
        steps = planned_steps(params.epochs, params.max_steps, order.steps_per_epoch)
        warm = warmup_steps(steps, params.warmup_ratio, params.warmup_steps)
        trained = run.trained.state if run.trained is not None else None
        model = model_digest(run.entry, params, trained)
        identity = TrainingIdentity.of_run(
            params, run.spec.seed, order.per_step, data, samples, model
        )
        return cls(run, order, steps, warm, identity)

    def lr_at(self, step: int) -> float:
        """Warm-up, then a cosine to 0."""
        rate: float = self.run.params.lr
        return rate * warmup_cosine(step, self.steps, self.warm)

    def job(
        self,
        model: nn.Module,
        gatherer: Gathers[Batch],
        forward: Callable[[Batch], Outcome],
        transfer: Callable[[Batch], Batch] | None = None,
    ) -> Training[Batch]:
        """What the loop needs; an engine changes in it what it does otherwise.

        `transfer`: where a batch is more than copied to the device.
        """
        run, params = self.run, self.run.params
        gatherer.place = (run.team.rank, run.team.size)
        pipeline = run.pipeline
        gatherer.pin = pipeline.pin
        return Training(
            model=model,
            loader=Loader(self.order, gatherer, pipeline.workers),
            transfer=transfer or partial(to_device, device=run.device),
            forward=forward,
            optimizer=adamw(
                model, params.lr, params.weight_decay, (0.9, params.beta2), fused=params.fused
            ),
            lr_at=self.lr_at,
            precision=run.precision,
            steps=self.steps,
            clip_norm=params.clip_norm,
            checkpoint_every=params.checkpoint_every,
            checkpoint_seconds=params.checkpoint_minutes * 60,
            checkpoint_root=run.run_dir / "checkpoints",
            full_disk_is_fatal=run.spec.on_disk_full == "stop",
            team=run.team,
            identity=self.identity,
        )
