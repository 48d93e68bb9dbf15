"""Early stopping and best checkpoint by one validation metric, evaluated between epochs.

The engine computes its validation metrics; this module compares them. Their history is a file
beside the checkpoints, so that a resumed run stops at the same epoch.
"""

from __future__ import annotations

import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from datasets_mm.atomic_files import write_atomic
from engines import trained_weights
from engines.emitter import Emitter, EngineError, first_line
from engines.monitor_condition import parse_conditions
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.runtime.context import Context
from engines.torchkit.training.stage_position import EpochEnd

BEST: Final = "best"
LAST_EPOCH: Final = "last-epoch"
"""Folder beside the checkpoints with the weights of the last epoch, where the best replaced them
and a run evaluates both."""
HISTORY: Final = "epochs.json"


LOWER_IS_BETTER: Final = frozenset({"loss"})
"""Validation metrics that are better when they are lower; all others are better when higher."""


@dataclass(frozen=True)
class Monitor:
    """Settings of early stopping and of the best checkpoint: metric, patience, min_delta."""

    metric: str
    early_stopping: bool
    patience: int
    """Validations without a better value before training stops."""
    min_delta: float
    """Smallest difference that counts as better, in the metric's unit."""
    load_best: bool
    """Whether the best weights replace the last ones when training ends."""
    condition: str = ""
    """Condition that an epoch fulfils to be the best; see `monitor_condition`."""

    @classmethod
    def from_params(cls, params: Any) -> Self:
        """The monitor of a run's settings; `load_best = "auto"`: with early stopping."""
        load_best = params.early_stopping if params.load_best == "auto" else params.load_best
        return cls(
            params.monitor, params.early_stopping, params.patience, params.min_delta, load_best,
            params.monitor_where.strip(),
        )  # fmt: skip

    @property
    def active(self) -> bool:
        """Whether the metric has any effect."""
        return self.early_stopping or self.load_best

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return self.metric not in LOWER_IS_BETTER

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that decide: the monitored one and those of the condition."""
        names = (self.metric, *(c.metric for c in parse_conditions(self.condition)))
        return tuple(dict.fromkeys(names))

    def eligible_value(self, metrics: Mapping[str, float]) -> float:
        """The monitored metric of a validation; NaN if it does not fulfil the condition."""
        fulfilled = all(c.holds(metrics) for c in parse_conditions(self.condition))
        return metrics[self.metric] if fulfilled else math.nan

    def facts(self) -> dict[str, str]:
        """The settings in words, for the record."""
        direction = "higher" if self.higher_is_better else "lower"
        stopping = f"patience {self.patience}, min_delta {self.min_delta:g}"
        return {
            "monitor": f"{self.metric}, {direction} is better" + self._where(),
            "early_stopping": stopping if self.early_stopping else "off",
            "load_best": f"yes, by {self.metric}" if self.load_best else "no, the last weights",
        }

    def _where(self) -> str:
        return f", where {self.condition}" if self.condition else ""


class EarlyStopping:
    """Early stopping: history of validation metrics and the best weights, kept in `root`."""

    def __init__(
        self, root: Path, model: nn.Module, emit: Emitter, monitor: Monitor, stage: int = 0
    ) -> None:
        """`stage`: number of the training's stage, whose epochs alone are compared."""
        self._stage = stage
        self.since_best: int | None = None
        """Validations since the best one; None: none yet, or nothing is monitored."""
        self._root = root
        self._model = model
        self._emit = emit
        self._monitor = monitor

    def record(self, epoch: int, **metrics: float) -> bool:
        """Record the metrics of epoch `epoch` (from 1); returns whether training should stop.

        Without early stopping and `load_best` they are only recorded.
        """
        earlier_rows, stage_rows = self._read()
        stage = {"stage": self._stage} if self._stage else {}
        history = [
            *(row for row in stage_rows if row["epoch"] < epoch),
            {**stage, "epoch": epoch, **metrics},
        ]
        self._root.mkdir(exist_ok=True, mode=0o700)
        write_atomic(self._root / HISTORY, json.dumps([*earlier_rows, *history]), durable=True)
        return self._monitor.active and self._keep_best(history)

    def _keep_best(self, history: Sequence[dict[str, float]]) -> bool:
        """Save the weights if they are the best; returns whether patience has run out."""
        monitor = self._monitor
        values = [monitor.eligible_value(row) for row in history]
        best, since = best_index(
            values, monitor.min_delta, higher_is_better=monitor.higher_is_better
        )
        if math.isnan(values[best]):  # none is eligible yet
            since = len(values)
        self.since_best = since
        if not since and monitor.load_best:
            tensors = {"model": trainable_tensors(self._model)}
            state = {"epoch": history[-1]["epoch"], "stage": self._stage}
            checkpoints.save(self._root / BEST, tensors, state)
        if not monitor.early_stopping or since < monitor.patience:
            return False
        best_row = None if since == len(values) else history[best]
        self._emit.notice("stopped-early", self._explain_stop(best_row, since))
        return True

    def _explain_stop(self, best: dict[str, float] | None, since: int) -> str:
        """Why training ends. `best`: None: no epoch fulfils the condition."""
        monitor = self._monitor
        if best is None:
            return self._explain_no_best(since)
        verb = "risen" if monitor.higher_is_better else "fallen"
        described = self._describe(best)
        kept = (
            f"the weights of {described} are kept"
            if monitor.load_best
            else f"the last weights are kept; the best ones were those of {described}"
        )
        return f"the validation {monitor.metric} has not {verb} for {since} validations; {kept}"

    def _explain_no_best(self, epochs: int) -> str:
        """`epochs`: number of validations."""
        condition = self._monitor.condition or f"{self._monitor.metric} as a number"
        return f"none of {epochs} validations has {condition}; the last weights are kept"

    def _describe(self, row: dict[str, float]) -> str:
        """`epoch 2 (accuracy 0.812)`."""
        return f"epoch {row['epoch']} ({self._monitor.metric} {row[self._monitor.metric]:.3f})"

    def restore_best(self, *, keep_last: bool = False) -> bool:
        """Load the best weights of this stage into the model; False: none were saved.

        Their file stays, for an attempt that resumes before others have them; see `discard_best`.
        `keep_last`: write the last weights to `LAST_EPOCH`, where they are others.
        """
        folder = self._root / BEST
        if not (folder / trained_weights.STATE).is_file():
            self._report_no_best()
            return False
        groups, state = checkpoints.load(folder, next(self._model.parameters()).device)
        if state.get("stage", self._stage) != self._stage:  # left of an earlier one
            self._report_no_best()
            return False
        last = trainable_tensors(self._model)
        if keep_last and not all(torch.equal(last[n], best) for n, best in groups["model"].items()):
            checkpoints.save(self._root / LAST_EPOCH, {"model": last}, {})
        self._model.load_state_dict(groups["model"], strict=False)
        self._report_best(int(state["epoch"]))
        return True

    def _report_no_best(self) -> None:
        """Send a notice where no epoch fulfils the condition, unless early stopping did."""
        monitor, (_, history) = self._monitor, self._read()
        stopped = monitor.early_stopping and (self.since_best or 0) >= monitor.patience
        if monitor.load_best and monitor.condition and history and not stopped:
            self._emit.notice("best-weights", self._explain_no_best(len(history)))

    def _report_best(self, epoch: int) -> None:
        """Send a notice where the best weights are not the last ones."""
        _, history = self._read()
        best = next((row for row in history if row["epoch"] == epoch), None)
        if best is not None and best is not history[-1]:
            last = self._describe(history[-1])
            self._emit.notice("best-weights", f"{self._describe(best)} replaces {last}: load_best")

    def _read(self) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """Metrics by epoch, of earlier stages and of this one.

        Raises:
            EngineError: the file is damaged; without it another epoch would count as the best.
        """
        path = self._root / HISTORY
        try:
            history: list[dict[str, float]] = json.loads(path.read_text("utf-8"))
            stages = [row.get("stage", 0) for row in history]
        except FileNotFoundError:
            return [], []
        except (ValueError, AttributeError, TypeError) as error:
            raise EngineError(
                f"the run's history {path} is damaged ({first_line(error)}); "
                "repeat the run with `workbench run`"
            ) from None
        return (
            [row for row, stage in zip(history, stages, strict=True) if stage < self._stage],
            [row for row, stage in zip(history, stages, strict=True) if stage == self._stage],
        )


class EpochEndValidation(ABC):
    """Validation at the ends of epochs, with early stopping; engines define `validate`."""

    def __init__(self, context: Context[Any], model: nn.Module, every: int, stage: int = 0) -> None:
        """`every`: epochs between validations; 0: no validation. `stage`: see `EarlyStopping`."""
        self._run = context
        self._every = every
        self.monitor = Monitor.from_params(context.params)
        self._early_stopping = EarlyStopping(
            context.run_dir / "checkpoints", model, context.emit, self.monitor, stage
        )
        self.latest: dict[str, Tensor] = {}
        """Metrics of the last validation, for the curves."""

    @property
    def enabled(self) -> bool:
        """Whether there is a validation between epochs."""
        return self._every > 0

    def after_epoch(self, epoch: int) -> EpochEnd:
        """Validate after epoch `epoch` (from 1) if due.

        Rank 0 validates and broadcasts the decision.
        """
        if epoch % self._every:
            return EpochEnd()
        process_group = self._run.process_group
        stops = process_group.broadcast_decision(
            process_group.is_rank_zero and self._validate_between_epochs(epoch)
        )
        metrics = {name: float(value) for name, value in self.latest.items()}
        patience = self.monitor.patience if self.monitor.early_stopping else None
        return EpochEnd(stops, metrics, self._early_stopping.since_best, patience)

    def check_monitor(self) -> None:  # noqa: B027 - a hook: most engines have nothing to check
        """Check before the training that the monitored metric can be computed; here: it can.

        Raises:
            EngineError: it cannot, in engines whose metrics need packages or models.
        """

    def restore(self) -> None:
        """Put the best weights back into the model, where they were kept."""
        self._early_stopping.restore_best()

    @abstractmethod
    def validate(self, epoch: int) -> bool:
        """Compute and record the validation metrics; returns whether training should stop."""

    def _validate_between_epochs(self, epoch: int) -> bool:
        """Validate, and restore the state of the random generators."""
        self._run.emit.phase("eval", f"after epoch {epoch}")
        state = checkpoints.random_state()
        try:
            ends = self.validate(epoch)
        finally:
            checkpoints.set_random_state(state)
        self._run.emit.phase("train")
        return ends


def best_index(
    values: Sequence[float], min_delta: float, *, higher_is_better: bool
) -> tuple[int, int]:
    """Index of the best value, and the number of values after it.

    A value is better by more than `min_delta` or not at all; NaN is never better than a number.
    """
    sign = 1.0 if higher_is_better else -1.0
    best = 0
    for index, value in enumerate(values):
        gain = sign * (value - values[best])
        if gain > min_delta or (math.isnan(values[best]) and not math.isnan(value)):
            best = index
    return best, len(values) - 1 - best


def discard_best(root: Path) -> None:
    """Remove the best weights of a run's checkpoints `root`, once nothing will load them again."""
    shutil.rmtree(root / BEST, ignore_errors=True)
