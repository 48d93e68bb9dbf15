"""Validation of a captioner at the end of an epoch: loss, diversity and the monitored metric."""

from __future__ import annotations

from typing import Final

import torch

from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.models.captioner import Captioner
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.training import early_stopping

ALWAYS: Final = ("loss", "diversity")
"""Metrics of every validation; others are computed where they are monitored."""
LOSS_SAMPLE: Final = 512
"""Most media whose loss is computed: a loss takes an eighth of the time of a caption."""


class CaptionValidation(early_stopping.EpochEndValidation):
    """Validates a captioner on its validation split, or on training media where there is none."""

    def __init__(
        self,
        context: Context,
        data: CaptioningData,
        evaluator: Evaluator,
        model: Captioner,
        stage: int = 0,
        *,
        keep_last: bool = False,
    ) -> None:
        """`stage`: number of the training's stage, from 1; 0: it has none. `keep_last`: keep the
        last weights where the best ones replace them.
        """
        super().__init__(context, model, context.params.validate_every_epochs, stage)
        self._params = context.params
        self._data = data
        self._evaluator = evaluator
        self._keep_last = keep_last

    def check_monitor(self) -> None:
        """Compute what is monitored of two reference captions."""
        monitor = self.monitor
        metrics = [name for name in monitor.metrics if name not in ALWAYS]
        if not (monitor.active and self.enabled and metrics):
            return
        state = checkpoints.random_state()
        sample = (self._data.validation or self._data.train).select_evenly(2)
        captions = [references[0] for references in sample.captions.references]
        for name in metrics:
            self._evaluator.compute_metric(name, sample, captions)
        checkpoints.set_random_state(state)

    def validate(self, epoch: int) -> bool:
        """Validate after epoch number `epoch` (from 1); whether training should end."""
        source = self._data.validation or self._data.train
        sample = source.select_evenly(self._params.evaluate_sample)
        captions, unique = self._evaluator.check_diversity(sample, f"epoch {epoch}")
        loss = self._evaluator.compute_losses(
            source.select_evenly(LOSS_SAMPLE), shuffled=False
        ).mean
        metrics = {"loss": loss, "diversity": unique}
        monitor = self.monitor
        for name in monitor.metrics if monitor.active else ():
            if name not in ALWAYS:
                metrics[name] = self._evaluator.compute_metric(name, sample, captions)
        split = "validation" if self._data.validation else "train_sample"
        self.latest = {
            name if name == "diversity" else f"{split}_{name}": torch.tensor(value)
            for name, value in metrics.items()
        }
        return self._early_stopping.record(epoch, **metrics)

    def restore(self) -> None:
        """Put the best weights back into the model, where they were kept."""
        self._early_stopping.restore_best(keep_last=self._keep_last)
