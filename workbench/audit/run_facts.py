"""What the audit's rules read of a run: settings, counts, data, and, after it, its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_mm.profile.subset_facts import SubsetFacts
from engines import catalog
from engines.monitor_condition import Condition, parse_conditions
from results.records import published_runs
from results.records.schema import Identity, RunRecord
from workbench.memory_estimate.plan_estimate import StepCounts

ENGINES: Final = frozenset({"retrieval", "captioning", "vqa"})
"""Engines of this project; what they cannot do wrong is known from their code and its tests."""


@dataclass(frozen=True)
class RunFacts:
    """One run, planned or done. Empty and None: not known."""

    identity: Identity
    steps: Sequence[StepCounts] = ()
    """Of its stages in order; of a training without stages one."""
    evaluate_on: tuple[str, ...] = ()
    """Subsets whose metrics are reported."""
    evaluation_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of these and of `validate_on`, where they are known."""
    data: SubsetFacts | None = None
    """Of the subset that it trains on, where that is built."""
    judge_context: int | None = None
    """Tokens that the text tower of the captions' judge reads; None: no judge is set."""
    capability: tuple[int, int] | None = None
    """Compute capability of its GPU."""
    gpu: str = ""
    statements: tuple[str, ...] = ()
    """What people wrote about it: label, reason, findings."""
    record: RunRecord | None = None
    """None: it has not run."""
    parent: RunRecord | None = None
    """Of the run that trained its model, where that is a trained one of this log root."""
    log_root: Path | None = None
    """Where the run's folder lies, with the scores of single items."""
    rates: Sequence[float] = ()
    """Learning rate over its steps."""
    validations: Sequence[tuple[str, Mapping[str, float]]] = ()
    """Epoch (`2.3`: the third of stage 2) and metrics of each validation between epochs."""
    saved_parameters: Mapping[str, int] | None = None
    """Tensors of the trained model on disk -> parameters; None: there is no file."""

    @property
    def name(self) -> str:
        """Its label, else its id; of a plan without data here, the model and the subset."""
        run_id, identity = self.identity.run_id, self.identity
        return identity.label or (
            f"{identity.model} {identity.subset}" if run_id.isdigit() else run_id
        )

    @property
    def engine(self) -> str:
        """Its engine."""
        return self.identity.engine

    @property
    def is_own(self) -> bool:
        """Whether an engine of this project makes it; False: its record was imported."""
        imported = self.record is not None and published_runs.is_imported(self.record)
        return self.engine in ENGINES and not imported

    @property
    def trains(self) -> bool:
        """Whether its task is to train to the end: no cost probe."""
        return self.identity.task == "train"

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The settings of each stage; of a training without stages its own."""
        return catalog.stage_params(self.identity.params)

    @property
    def monitored(self) -> bool:
        """Whether a validation metric chooses its weights or ends a stage of its training."""
        return any(
            bool(stage.get("early_stopping")) or stage.get("load_best") is True
            for stage in self.stages
        )

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights of the last stage replace the last ones."""
        stage = self.stages[-1]
        load_best = stage.get("load_best")
        return bool(stage.get("early_stopping")) if load_best == "auto" else load_best is True

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions that an epoch fulfils to be the best."""
        return parse_conditions(str(self.get("monitor_where") or ""))

    @property
    def validation_counts(self) -> list[int]:
        """Validations between epochs of each stage, the one after its last epoch too."""
        every = int(self.get("validate_every_epochs") or 0)
        epochs = [float(stage.get("epochs") or 1) for stage in self.stages]
        return [int(number // every) if every else 0 for number in epochs]

    @property
    def completed(self) -> RunRecord | None:
        """Its record, if it ended well."""
        done = self.record is not None and self.record.exit.cause == "completed"
        return self.record if done else None

    def get(self, name: str) -> Any:
        """A setting, with stages that of the last one; None: unset, or not of its engine."""
        return catalog.stage_params(self.identity.params)[-1].get(name)
