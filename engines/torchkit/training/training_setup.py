"""Training setup of a run, shared by the engines: batch order, rates, optimizer, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from torch import nn

from engines.torchkit.checkpointing.training_identity import TrainingIdentity, model_digest
from engines.torchkit.data.collator import Collator
from engines.torchkit.data.data_loader import EpochPermutation, Loader
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.runtime.context import Context
from engines.torchkit.training.loop import LossOutput, TrainingJob
from engines.torchkit.training.optimization import adamw, planned_steps, warmup_cosine, warmup_steps

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainingSetup:
    """Steps, batch order, learning rates and identity of a run's training."""

    run: Context[Any]
    order: EpochPermutation
    steps: int
    warmup: int
    """Warm-up steps of the learning rate."""
    identity: TrainingIdentity

    @classmethod
    def from_run(cls, run: Context[Any], samples: int, data: str) -> Self:
        """For `samples` samples by the run's settings. `data`: digest of the samples."""
        params = run.params
        batch = params.batch * run.process_group.size
        order = EpochPermutation(samples, batch, params.gradient_accumulation_steps, run.spec.seed)
        steps = planned_steps(params.epochs, params.max_steps, order.steps_per_epoch)
        warmup = warmup_steps(steps, params.warmup_ratio, params.warmup_steps)
        trained = run.trained.state if run.trained is not None else None
        model = model_digest(run.entry, params, trained)
        identity = TrainingIdentity.of_run(
            params, run.spec.seed, order.per_step, data, samples, model
        )
        return cls(run, order, steps, warmup, identity)

    @property
    def epochs(self) -> float:
        """Passes over the subset."""
        return self.steps / self.order.steps_per_epoch

    def lr_at(self, step: int) -> float:
        """Learning rate of a step (from 0): linear warm-up, then cosine to 0."""
        rate: float = self.run.params.lr
        return rate * warmup_cosine(step, self.steps, self.warmup)

    def create_job(
        self,
        model: nn.Module,
        collator: Collator[Batch],
        forward: Callable[[Batch], LossOutput],
        transfer: Callable[[Batch], Batch] | None = None,
    ) -> TrainingJob[Batch]:
        """The job of the training loop; engines may change it.

        `collator`: its rank and pinning are set here. `transfer`: copies a batch to the device;
        None: `to_device`.
        """
        run, params = self.run, self.run.params
        pipeline = run.pipeline
        collator.rank_and_size = (run.process_group.rank, run.process_group.size)
        collator.pin = pipeline.pin
        return TrainingJob(
            model=model,
            loader=Loader(self.order, collator, pipeline.num_workers),
            transfer=transfer or partial(to_device, device=run.device),
            forward=forward,
            optimizer=adamw(
                model, params.lr, params.weight_decay, (0.9, params.beta2), fused=params.fused
            ),
            lr_at=self.lr_at,
            precision=run.precision,
            steps=self.steps,
            max_grad_norm=params.max_grad_norm,
            checkpoint_every=params.checkpoint_every,
            checkpoint_seconds=params.checkpoint_minutes * 60,
            checkpoint_root=run.run_dir / "checkpoints",
            full_disk_is_fatal=run.spec.on_disk_full == "stop",
            process_group=run.process_group,
            identity=self.identity,
        )
