"""Between two epochs: the validation loss, how varied captions are, and whether to stop.

Apart from the loop, which asks once an epoch and knows nothing of captions. What was seen is kept
beside the checkpoints, so that a resumed run stops where it would have stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from engines.captioning.context import Context
from engines.captioning.evaluate import Evaluator
from engines.captioning.model import Captioner
from engines.captioning.prepare import Data
from engines.torchkit import checkpoints, loop

BEST: Final = "best"
SEEN: Final = "epochs.json"
LOSS_SAMPLE: Final = 512
"""Media whose loss is looked at, at most: a loss is an eighth of the price of a caption."""


class Watch:
    """Looks at the model at the ends of epochs."""

    def __init__(
        self, context: Context, data: Data, evaluator: Evaluator, model: Captioner, root: Path
    ) -> None:
        self._context = context
        self._data = data
        self._evaluator = evaluator
        self._model = model
        self._root = root
        self.latest: dict[str, Tensor] = {}
        """What was seen last, for the curves."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look at between epochs."""
        return self._context.params.evaluate_every_epochs > 0

    def after_epoch(self, epoch: int) -> bool:
        """After epoch number `epoch` (from 1): look, and say whether training should end."""
        params, emit = self._context.params, self._context.emit
        if epoch % params.evaluate_every_epochs:
            return False
        emit.phase("eval", f"after epoch {epoch}")
        state = checkpoints.random_state()
        source = self._data.validation or self._data.train
        try:
            found = self._evaluator.look(source.spread(params.evaluate_sample), f"epoch {epoch}")
            loss = self._evaluator.losses(source.spread(LOSS_SAMPLE), shuffled=False).mean
        finally:
            checkpoints.set_random_state(state)
        name = "validation_loss" if self._data.validation else "train_sample_loss"
        self.latest = {name: torch.tensor(loss), "diversity": torch.tensor(found.unique)}
        seen = [one for one in self._read() if one["epoch"] < epoch]
        seen.append({"epoch": epoch, "loss": loss, "diversity": found.unique})
        self._root.mkdir(exist_ok=True, mode=0o700)
        (self._root / SEEN).write_text(json.dumps(seen), encoding="utf-8")
        ends = params.early_stopping and self._judge(epoch, seen)
        emit.phase("train")
        return ends

    def _judge(self, epoch: int, seen: list[dict[str, float]]) -> bool:
        """Keep the weights if they are the best so far; whether patience has run out."""
        best, since = judged([one["loss"] for one in seen], self._context.params.min_delta)
        if not since:
            tensors = {"model": loop.trainable_tensors(self._model)}
            checkpoints.save(self._root / BEST, tensors, {"epoch": epoch})
        if since < self._context.params.patience:
            return False
        self._context.emit.notice(
            "stopped-early",
            f"the validation loss has not fallen for {since} looks; the weights of epoch "
            f"{seen[best]['epoch']} (loss {seen[best]['loss']:.3f}) are kept",
        )
        return True

    def restore(self) -> None:
        """Put the best weights back into the model, where they were kept; then forget them."""
        folder = self._root / BEST
        if not (folder / checkpoints.STATE).is_file():
            return
        groups, _ = checkpoints.load(folder, next(self._model.parameters()).device)
        self._model.load_state_dict(groups["model"], strict=False)
        shutil.rmtree(folder)

    def _read(self) -> list[dict[str, float]]:
        try:
            found: list[dict[str, float]] = json.loads((self._root / SEEN).read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return found


def judged(losses: Sequence[float], min_delta: float) -> tuple[int, int]:
    """Place of the best loss, and how many came after it; better by `min_delta` at least."""
    best = 0
    for place, loss in enumerate(losses):
        if loss < losses[best] - min_delta:
            best = place
    return best, len(losses) - 1 - best
