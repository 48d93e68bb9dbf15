"""Results that others have reported, as records beside those of one's own runs.

A TOML file lists experiments; `published/` has those that ship. What a report does not say is a
reading without a value, and nothing of it was measured here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.records.schema import (
    Environment,
    EpochRecord,
    Exit,
    Identity,
    MemoryUse,
    MetricRecord,
    Reading,
    RunRecord,
    TimingRecord,
)

SHIPPED: Final = Path(__file__).parent / "published"
IMPORT_MARK: Final = "; not measured here"
"""How the detail of an imported record's end ends."""
UNKNOWN: Final = "the published report does not say"
METRICS: Final = {
    "diversity": "diversity",
    "score": "SigLIP probability (google/siglip2-so400m-patch14-384)",
    "meteor": "METEOR (as published, whitespace words)",
    "bertscore": "BERTScore F1 (as published)",
}
"""Field of an experiment -> name of its metric. A METEOR by other words is another metric."""


class PublishedError(ValueError):
    """A file of published results cannot be read; one sentence."""


class _FileModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedExperiment(_FileModel):
    """What a report says of one experiment."""

    label: str = Field(min_length=1, max_length=40)
    params: dict[str, Any] = {}
    facts: dict[str, str] = {}
    seconds: float | None = None
    """Of the whole run, wall clock."""
    losses: tuple[tuple[float, ...], ...] = ()
    """Mean training loss by epoch, of each stage."""
    score: tuple[float, ...] = ()
    """The judge's by epoch of the last stage."""
    diversity: tuple[float, ...] = ()
    """Share of unique captions, likewise."""
    patience: int | None = None
    min_delta: float = 0.0
    meteor: float | None = None
    bertscore: float | None = None


class PublishedResults(_FileModel):
    """A file of published results."""

    format: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    source: str
    engine: str
    subset: str
    split: str
    model: str
    device: str = ""
    n: int
    """Samples that the metrics are means over."""
    experiments: tuple[PublishedExperiment, ...] = Field(alias="experiment")


def shipped_names() -> list[str]:
    """Names of the files that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def is_imported(record: RunRecord) -> bool:
    """Whether the run was published or logged elsewhere: nothing of it was measured here."""
    return record.exit.detail.endswith(IMPORT_MARK)


def read_source(record: RunRecord) -> str:
    """Where an imported run was published or logged."""
    return record.exit.detail.removesuffix(IMPORT_MARK).partition(": ")[2]


def read_published(name_or_path: str) -> list[RunRecord]:
    """The records of a shipped file by its name, or of a file by its path.

    Raises:
        PublishedError: there is no such file, or it is wrong.
    """
    shipped = name_or_path in shipped_names()
    path = SHIPPED / f"{name_or_path}.toml" if shipped else Path(name_or_path)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        results = PublishedResults.model_validate(table)
    except OSError as error:
        names = ", ".join(shipped_names())
        raise PublishedError(
            f"{path}: cannot be read ({error.strerror}); give a TOML file, or one of {names}"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(map(str, first["loc"])) or "the file"
        raise PublishedError(f"{path}: {location}: {first['msg']}; mend it and repeat") from None
    except ValueError as error:
        raise PublishedError(f"{path}: is no TOML ({error}); mend it and repeat") from None
    return [_record(results, experiment) for experiment in results.experiments]


def unmeasured_parts(reason: str) -> tuple[TimingRecord, MemoryUse]:
    """Timing and memory of a record that nobody measured here."""
    unknown = Reading(reason=reason)
    fields = TimingRecord.model_fields.items()
    times = {name: unknown for name, field in fields if field.annotation is Reading}
    return TimingRecord(**times), MemoryUse(**dict.fromkeys(MemoryUse.model_fields, unknown))


def _record(results: PublishedResults, experiment: PublishedExperiment) -> RunRecord:
    timing, memory = unmeasured_parts(UNKNOWN)
    if experiment.seconds is not None:
        reading = Reading(value=experiment.seconds, method=f"published: {results.source}")
        timing = timing.model_copy(update={"end_to_end_seconds": reading})
    epochs = _epochs(experiment)
    return RunRecord(
        identity=Identity(
            suite=f"published-{results.name}", run_id=f"published-{experiment.label.lower()}",
            engine=results.engine, task="train", subset=results.subset, model=results.model,
            params=experiment.params, label=experiment.label,
        ),
        environment=Environment(device=results.device),
        timing=timing,
        memory=memory,
        metrics=_metrics(results, experiment),
        epochs=float(len(epochs)) or None,
        training_epochs=tuple(epochs),
        facts=experiment.facts,
        exit=Exit(cause="completed", detail=f"published: {results.source}{IMPORT_MARK}"),
        notices=(f"published: {results.source}; nothing of this record was measured here",),
    )  # fmt: skip


def _metrics(
    results: PublishedResults, experiment: PublishedExperiment
) -> tuple[MetricRecord, ...]:
    """The final metrics: of curves the last epoch's, as reports give them."""
    metrics = []
    for field, name in METRICS.items():
        value = getattr(experiment, field)
        last = (value[-1] if value else None) if isinstance(value, tuple) else value
        if last is not None:
            metrics.append(MetricRecord(name=name, value=last, split=results.split, n=results.n))
    return tuple(metrics)


def _epochs(experiment: PublishedExperiment) -> list[EpochRecord]:
    """One record an epoch; validations belong to the last stage."""
    last = len(experiment.losses)
    since = _validations_since_best(experiment.score, experiment.min_delta)
    rows = []
    for stage, losses in enumerate(experiment.losses, 1):
        count = max(len(losses), len(experiment.score) if stage == last else 0)
        for number in range(1, count + 1):
            validated = stage == last and number <= len(experiment.score)
            curves = {"siglip": experiment.score, "diversity": experiment.diversity}
            patience = experiment.patience if validated else None
            rows.append(
                EpochRecord(
                    stage=stage if last > 1 else 0,
                    epoch=number,
                    loss=losses[number - 1] if number <= len(losses) else None,
                    validation={n: c[number - 1] for n, c in curves.items()} if validated else {},
                    since_best=since[number - 1] if patience is not None else None,
                    patience=patience,
                    stopped=patience is not None and since[number - 1] >= patience,
                )
            )
    return rows


def _validations_since_best(scores: Sequence[float], min_delta: float) -> list[int]:
    """Number of validations since the best one, at each; better is higher by over `min_delta`."""
    best = float("-inf")
    since: list[int] = []
    for score in scores:
        better = score > best + min_delta
        best = score if better else best
        since.append(0 if better else since[-1] + 1)
    return since
