"""Results that others have reported, as records beside those of one's own runs.

A TOML file lists experiments; `published/` has those that ship. What a report does not say is a
reading without a value, and nothing of it was measured here. What it says in words, and the scores
of leaderboards, are notes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.records.code_changes import CodeChange
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
PREFIX: Final = "published-"
"""How names of suites and run ids of published results begin."""
IMPORT_MARK: Final = "; not measured here"
"""How the detail of an imported record's end ends."""
UNKNOWN: Final = "the published report does not say"
METRICS: Final = {
    "diversity": "diversity",
    "score": "SigLIP probability (google/siglip2-so400m-patch14-384)",
    "meteor": "METEOR (as published, split at blanks)",
    "bertscore": "BERTScore F1 (as published)",
}
"""Field of an experiment -> name of its metric. A METEOR by other words is another metric."""


ReportedName = Literal["projector", "parameters", "notebook", "outputs"]
"""What a report names or counts in words of its own."""


class PublishedError(ValueError):
    """A file of published results cannot be read; one sentence."""


class _FileModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedNote(_FileModel):
    """A sentence about an experiment, or its score on a leaderboard."""

    kind: Literal["finding", "next", "state", "tag", "public-score"]
    text: str = Field(min_length=1)
    about: str = ""
    date: str = ""


class PublishedSuiteNote(PublishedNote):
    """A sentence about all experiments together."""

    kind: Literal[  # type: ignore[assignment]
        "finding", "next", "title", "goal", "background", "reason", "event", "link", "conclusion"
    ]


class PublishedPlan(_FileModel):
    """An experiment without results; subset and model are the file's unless it says so."""

    label: str = Field(default="", max_length=40)
    subset: str = ""
    model: str = ""
    params: dict[str, Any] = {}
    """Beside those of the file."""
    facts: dict[str, str] = {}
    reported: dict[ReportedName, str] = {}
    """The report's own names and sizes, and where its notebook and files are; beside the file's."""
    notes: tuple[PublishedNote, ...] = ()
    state: str = Field(default="waiting", max_length=40)
    """`waiting`, or the report's own word, as of an earlier experiment: settings and facts of the
    file are then not said of it. Of an experiment with results a note."""

    @property
    def is_of_file(self) -> bool:
        """Whether the settings and facts of the file are its own too."""
        return self.state in ("waiting", "done")


class PublishedExperiment(PublishedPlan):
    """What a report says of one experiment with results."""

    state: Literal["done"] = "done"
    seconds: float | None = None
    """Of the whole run, wall clock."""
    max_rss_gib: float | None = None
    samples: int = 0
    """Training samples that were loaded."""
    steps: int = 0
    epochs: float | None = None
    """Where no losses by epoch are given."""
    exit_code: int | None = None
    train: dict[str, float] = {}
    """Numbers of the training log's last line: `loss`, `r@1`, `batch`."""
    metrics: dict[str, float] = {}
    """On the file's split; those of `METRICS` have fields of their own."""
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


class PublishedCheck(_FileModel):
    """A full check of a subset for missing fields."""

    subset: str
    records: int
    missing: int
    fields: tuple[str, ...]


class PublishedSection(_FileModel):
    """Figures of two subsets side by side."""

    title: str
    unit: Literal["", "%"] = ""
    rows: tuple[tuple[str, float, float], ...] = ()
    """Label, figure of the first, figure of the second."""
    remark: str = ""


class PublishedComparison(_FileModel):
    """Two subsets as a report compares them."""

    first: str
    second: str
    records: tuple[int, int]
    sections: tuple[PublishedSection, ...] = Field(default=(), alias="section")


class PublishedResults(_FileModel):
    """A file of published results."""

    format: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    source: str
    engine: str
    subset: str = ""
    split: str = ""
    model: str = ""
    device: str = ""
    platform: str = ""
    cuda_visible_devices: str | None = None
    n: int = 0
    """Samples that the metrics are means over."""
    params: dict[str, Any] = {}
    facts: dict[str, str] = {}
    reported: dict[ReportedName, str] = {}
    effects: dict[str, str] = {}
    """By setting: the effect of an optimization as the report states it."""
    notes: tuple[PublishedSuiteNote, ...] = ()
    experiments: tuple[PublishedExperiment, ...] = Field(alias="experiment")
    planned: tuple[PublishedPlan, ...] = ()
    checks: tuple[PublishedCheck, ...] = Field(default=(), alias="check")
    comparisons: tuple[PublishedComparison, ...] = Field(default=(), alias="comparison")
    changes: tuple[CodeChange, ...] = Field(default=(), alias="change")

    @property
    def suite(self) -> str:
        """Name of the suite of its records."""
        return f"{PREFIX}{self.name}"


class PublishedRuns(NamedTuple):
    """Records of published results, and what is said about them."""

    records: list[RunRecord]
    notes: Mapping[tuple[str, str], Sequence[PublishedNote]] = MappingProxyType({})
    """By suite and run id; those about all runs have no run id."""
    results: PublishedResults | None = None
    """The file; None: the records are of another program's log."""


def shipped_names() -> list[str]:
    """Names of the files that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def is_imported(record: RunRecord) -> bool:
    """Whether the run was published or logged elsewhere: nothing of it was measured here."""
    return record.exit.detail.endswith(IMPORT_MARK)


def read_source(record: RunRecord) -> str:
    """Where an imported run was published or logged."""
    return record.exit.detail.removesuffix(IMPORT_MARK).partition(": ")[2]


def find_file(name_or_path: str) -> Path:
    """Path of a shipped file by its name, else the path itself."""
    shipped = name_or_path in shipped_names()
    return SHIPPED / f"{name_or_path}.toml" if shipped else Path(name_or_path)


def read_published(name_or_path: str) -> PublishedRuns:
    """The records and notes of a shipped file by its name, or of a file by its path.

    Raises:
        PublishedError: there is no such file, or it is wrong.
    """
    results = read_file(find_file(name_or_path))
    records = [_record(results, experiment) for experiment in results.experiments]
    described = (*results.experiments, *results.planned)
    notes = {(results.suite, run_id(results, e)): e.notes for e in described}
    return PublishedRuns(records, {**notes, (results.suite, ""): results.notes}, results)


def read_file(path: Path) -> PublishedResults:
    """A file of published results.

    Raises:
        PublishedError: there is no such file, or it is wrong.
    """
    try:
        return PublishedResults.model_validate(tomllib.loads(path.read_text("utf-8")))
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


def copy_path(log_root: Path, suite: str) -> Path:
    """Where a log root keeps the file of an imported suite, with what is no record and no note."""
    return log_root / "published" / f"{suite.removeprefix(PREFIX)}.toml"


def run_id(results: PublishedResults, experiment: PublishedPlan) -> str:
    """Run id of an experiment."""
    return f"{PREFIX}{(experiment.label or experiment.subset or results.subset).lower()}"


def identify(results: PublishedResults, experiment: PublishedPlan) -> Identity:
    """Identity of an experiment's run."""
    return Identity(
        suite=results.suite, run_id=run_id(results, experiment), engine=results.engine,
        task="train", subset=experiment.subset or results.subset,
        model=experiment.model or results.model, label=experiment.label,
        params=(results.params if experiment.is_of_file else {}) | experiment.params,
    )  # fmt: skip


def unmeasured_parts(reason: str) -> tuple[TimingRecord, MemoryUse]:
    """Timing and memory of a record that nobody measured here."""
    unknown = Reading(reason=reason)
    fields = TimingRecord.model_fields.items()
    times = {name: unknown for name, field in fields if field.annotation is Reading}
    return TimingRecord(**times), MemoryUse(**dict.fromkeys(MemoryUse.model_fields, unknown))


def _record(results: PublishedResults, experiment: PublishedExperiment) -> RunRecord:
    timing, memory = unmeasured_parts(UNKNOWN)
    method = f"published: {results.source}"
    if experiment.seconds is not None:
        wall = Reading(value=experiment.seconds, method=method)
        timing = timing.model_copy(update={"end_to_end_seconds": wall})
    if experiment.max_rss_gib is not None:
        max_rss = Reading(value=experiment.max_rss_gib * 2**30, method=method)
        memory = memory.model_copy(update={"rss_main_peak": max_rss})
    epochs = _epochs(experiment)
    return RunRecord(
        identity=identify(results, experiment),
        environment=Environment(
            device=results.device, platform=results.platform,
            cuda_visible_devices=results.cuda_visible_devices,
        ),
        timing=timing,
        memory=memory,
        metrics=_metrics(results, experiment),
        train=_last_loss(experiment) | experiment.train,
        samples=experiment.samples,
        steps=experiment.steps,
        planned_steps=experiment.steps,
        epochs=float(len(epochs)) or experiment.epochs,
        training_epochs=tuple(epochs),
        facts=results.facts | experiment.facts,
        exit=Exit(
            cause="completed", code=experiment.exit_code, detail=f"{method}{IMPORT_MARK}"
        ),
        notices=(f"{method}; nothing of this record was measured here",),
    )  # fmt: skip


def _last_loss(experiment: PublishedExperiment) -> dict[str, float]:
    """The mean loss of the last epoch, where it is given."""
    last = experiment.losses[-1:]
    return {"epoch_loss": last[0][-1]} if last and last[0] else {}


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
    for name, value in experiment.metrics.items():
        metrics.append(MetricRecord(name=name, value=value, split=results.split, n=results.n))
    return tuple(metrics)


def _epochs(experiment: PublishedExperiment) -> list[EpochRecord]:
    """One record an epoch; validations belong to the last stage."""
    last = len(experiment.losses)
    since = _validations_since_best(experiment.score, experiment.min_delta)
    rows = []
    for stage, losses in enumerate(experiment.losses, 1):
        curves = {"siglip": experiment.score, "diversity": experiment.diversity}
        curves = curves if stage == last else {}
        for number in range(1, max(len(losses), *map(len, curves.values()), 0) + 1):
            is_scored = stage == last and number <= len(experiment.score)
            patience = experiment.patience if is_scored else None
            rows.append(
                EpochRecord(
                    stage=stage if last > 1 else 0,
                    epoch=number,
                    loss=losses[number - 1] if number <= len(losses) else None,
                    validation={n: c[number - 1] for n, c in curves.items() if number <= len(c)},
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
