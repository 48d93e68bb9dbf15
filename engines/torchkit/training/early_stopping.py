"""Validation between epochs: early stopping and the best checkpoint, by one named metric.

The engine computes its validation metrics; this module compares them. Their history lies beside
the checkpoints, so that a resumed run stops where it would have stopped.
"""

from __future__ import annotations

import json
import math
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from engines import trained_weights
from engines.emitter import Emitter
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.runtime.context import Context
from engines.torchkit.training import loop

BEST: Final = "best"
SEEN: Final = "epochs.json"


LOWER_IS_BETTER: Final = frozenset({"loss"})
"""Validation metrics that are better when they are lower; all others are better when higher."""


@dataclass(frozen=True)
class Monitor:
    """The validation metric that decides on the best weights and on early stopping."""

    metric: str
    early_stopping: bool
    patience: int
    """Validations without a better value before training stops."""
    min_delta: float
    """Smallest difference that counts as better, in the metric's unit."""
    load_best: bool
    """Whether the best weights replace the last ones when training ends."""

    @classmethod
    def of(cls, params: Any) -> Self:
        """The monitor of a run's settings; `load_best = "auto"`: with early stopping."""
        load_best = params.early_stopping if params.load_best == "auto" else params.load_best
        return cls(
            params.monitor, params.early_stopping, params.patience, params.min_delta, load_best
        )

    @property
    def active(self) -> bool:
        """Whether the metric decides on anything."""
        return self.early_stopping or self.load_best

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return self.metric not in LOWER_IS_BETTER

    def facts(self) -> dict[str, str]:
        """The settings in words, for the record."""
        direction = "higher" if self.higher_is_better else "lower"
        stopping = f"patience {self.patience}, min_delta {self.min_delta:g}"
        return {
            "monitor": f"{self.metric}, {direction} is better",
            "early_stopping": stopping if self.early_stopping else "off",
            "load_best": f"yes, by {self.metric}" if self.load_best else "no, the last weights",
        }


class Looks:
    """The validations of one run, kept in `root`."""

    def __init__(self, root: Path, model: nn.Module, emit: Emitter, monitor: Monitor) -> None:
        self._root = root
        self._model = model
        self._emit = emit
        self._monitor = monitor

    def add(self, epoch: int, **metrics: float) -> bool:
        """Store the metrics of epoch number `epoch` (from 1); whether training should end.

        Without early stopping and `load_best` they are only stored.
        """
        history = [*(row for row in self._read() if row["epoch"] < epoch)]
        history.append({"epoch": epoch, **metrics})
        self._root.mkdir(exist_ok=True, mode=0o700)
        (self._root / SEEN).write_text(json.dumps(history), encoding="utf-8")
        return self._monitor.active and self._judge(history)

    def _judge(self, history: Sequence[dict[str, float]]) -> bool:
        """Keep the weights if they are the best ones; whether patience has run out."""
        monitor = self._monitor
        best, since = best_place(
            [row[monitor.metric] for row in history],
            monitor.min_delta,
            higher_is_better=monitor.higher_is_better,
        )
        if not since and monitor.load_best:
            tensors = {"model": loop.trainable_tensors(self._model)}
            checkpoints.save(self._root / BEST, tensors, {"epoch": history[-1]["epoch"]})
        if not monitor.early_stopping or since < monitor.patience:
            return False
        verb = "risen" if monitor.higher_is_better else "fallen"
        kept = (
            f"the weights of {self._place(history[best])} are kept"
            if monitor.load_best
            else f"the last weights are kept; the best ones were those of "
            f"{self._place(history[best])}"
        )
        self._emit.notice(
            "stopped-early",
            f"the validation {monitor.metric} has not {verb} for {since} looks; {kept}",
        )
        return True

    def _place(self, row: dict[str, float]) -> str:
        """`epoch 2 (accuracy 0.812)`."""
        return f"epoch {row['epoch']} ({self._monitor.metric} {row[self._monitor.metric]:.3f})"

    def restore(self) -> bool:
        """Put the best weights back into the model, then forget them; False: none were kept."""
        folder = self._root / BEST
        if not (folder / trained_weights.STATE).is_file():
            return False
        groups, state = checkpoints.load(folder, next(self._model.parameters()).device)
        self._model.load_state_dict(groups["model"], strict=False)
        self._tell(int(state["epoch"]))
        shutil.rmtree(folder)
        return True

    def _tell(self, epoch: int) -> None:
        """Say which epoch's weights go on, where they are not the last ones."""
        history = self._read()
        best = next((row for row in history if row["epoch"] == epoch), None)
        if best is not None and best is not history[-1]:
            last = self._place(history[-1])
            self._emit.notice("best-weights", f"{self._place(best)} replaces {last}: load_best")

    def _read(self) -> list[dict[str, float]]:
        try:
            found: list[dict[str, float]] = json.loads((self._root / SEEN).read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return found


class Watch:
    """Looks at the model at the ends of epochs; what it looks at is its engine's."""

    def __init__(self, context: Context[Any], model: nn.Module, every: int) -> None:
        """`every`: epochs between two looks; 0: none."""
        self._run = context
        self._every = every
        self.monitor = Monitor.of(context.params)
        self._looks = Looks(context.run_dir / "checkpoints", model, context.emit, self.monitor)
        self.latest: dict[str, Tensor] = {}
        """What was seen last, for the curves."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look at between epochs."""
        return self._every > 0

    def after_epoch(self, epoch: int) -> bool:
        """After epoch number `epoch` (from 1): look, and say whether training should end.

        Among several ranks the leader looks, and the others hear what came of it.
        """
        if epoch % self._every:
            return False
        team = self._run.team
        return team.follow(team.leads and self._between(epoch))

    @abstractmethod
    def look(self, epoch: int) -> bool:
        """Look, and say whether training should end."""

    def _between(self, epoch: int) -> bool:
        """A look that leaves the random numbers of the training alone."""
        self._run.emit.phase("eval", f"after epoch {epoch}")
        state = checkpoints.random_state()
        try:
            ends = self.look(epoch)
        finally:
            checkpoints.set_random_state(state)
        self._run.emit.phase("train")
        return ends


def best_place(
    values: Sequence[float], min_delta: float, *, higher_is_better: bool
) -> tuple[int, int]:
    """Index of the best value, and how many came after it.

    A value is better by more than `min_delta` or not at all; NaN is never better than a number.
    """
    sign = 1.0 if higher_is_better else -1.0
    best = 0
    for place, value in enumerate(values):
        gain = sign * (value - values[best])
        if gain > min_delta or (math.isnan(values[best]) and not math.isnan(value)):
            best = place
    return best, len(values) - 1 - best


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients; training goes on as if nothing had been."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
