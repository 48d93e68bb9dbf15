"""Expected time and accuracy of the VQA notebook's recipes, beside the measured ones.

The figures are the notebook's own (`published.toml`), not this workbench's. They belong to an
engine, a model, a number of rows and settings, and are shown for runs that have all of these, under
whatever plan name.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.records.schema import MetricRecord, RunRecord
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate

HELD_OUT: Final = ("out-of-fold", "validation")
"""Splits of questions that were not trained on, the ensemble's first."""
FREE_SETTINGS: Final = frozenset({
    "data_root", "image_root", "sample_submission", "submission_file", "fold", "eval_batch_size",
    "num_workers", "pin_memory", "threads", "timing_warmup_steps", "checkpoint_every",
    "checkpoint_minutes", "save_model", "export_model",
})  # fmt: skip
"""Settings without influence on an expectation: paths, threads, checkpoints, batching."""
NOT_STATED: Final = TableCell("–", "value")
TOLERANCE: Final = 0.01
"""Share by which a number of rows may differ: folds keep questions about one picture together."""


class Expectation(NamedTuple):
    """Expected cost and accuracy of a recipe."""

    preset: str
    title: str
    engine: str
    subset: str
    model: str
    rows: int
    """Rows of the whole subset."""
    settings: Mapping[str, Any]
    seconds: float | None
    """On a T4, all runs of the recipe together; None: not stated."""
    accuracy: tuple[float, float] | None
    """Lower and upper end; None: not stated."""
    public_score: float | None
    """Accuracy on the challenge's hidden test questions that was published; None: none was."""

    def matches(self, engine: str, subset: str, model: str, params: Mapping[str, Any]) -> bool:
        """Whether a run with these names and settings is one of the recipe's."""
        if (engine, subset, model) != (self.engine, self.subset, self.model):
            return False
        other_settings = {
            name: value
            for name, value in params.items()
            if name not in FREE_SETTINGS and name not in self.settings
        }
        is_equal = all(_as_list(params.get(name)) == value for name, value in self.settings.items())
        return is_equal and not any(other_settings.values())  # what is not named must be off

    def has_rows(self, rows: int) -> bool:
        """Whether the subset is as large as expected."""
        return _is_close(rows, self.rows)

    @property
    def train_rows(self) -> float:
        """Rows that each run trains on."""
        rows = self.settings["sample"] or self.rows
        folds = self.settings["folds"]
        return float(rows * (1 - (1 / folds if folds else self.settings["validation_share"])))

    @property
    def runs(self) -> int:
        """Number of training runs; an ensemble is added where there are several."""
        return int(self.settings["folds"] or 1)

    def brief(self) -> str:
        """Time, accuracy and public score: `0:20:00, 0.60–0.65, public 0.760`."""
        score = "" if self.public_score is None else f"public {self.public_score:.3f}"
        parts = (self.seconds and formats.clock(self.seconds), self.accuracy_range(), score)
        return ", ".join(part for part in parts if part)

    def accuracy_range(self) -> str:
        """`0.75–0.78`; empty: not stated."""
        return f"{self.accuracy[0]:.2f}–{self.accuracy[1]:.2f}" if self.accuracy else ""

    def describe(self) -> str:
        """`2:00:00 (T4), accuracy 0.75–0.78, 3,887 rows`; of a sample `200 of 3,887 rows`."""
        sample = int(self.settings["sample"])
        part = f"{formats.count(sample)} of " if sample else ""
        parts = [f"{formats.clock(self.seconds)} (T4)"] if self.seconds else []
        parts += [f"accuracy {self.accuracy_range()}"] if self.accuracy else []
        parts += [f"public score {self.public_score:.3f}"] if self.public_score else []
        return ", ".join([*parts, f"{part}{formats.count(self.rows)} rows"])


@functools.cache
def _read_file() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "published.toml").read_text("utf-8"))


@functools.cache
def expectations() -> tuple[Expectation, ...]:
    """All of `published.toml`."""
    table = _read_file()
    return tuple(
        Expectation(
            preset=recipe["preset"],
            title=recipe["title"],
            engine=table["engine"],
            subset=table["subset"],
            model=recipe["model"],
            rows=table["rows"],
            settings={**table["settings"], **recipe.get("settings", {})},
            seconds=recipe["minutes"] * 60.0 if "minutes" in recipe else None,
            accuracy=tuple(recipe["accuracy"]) if "accuracy" in recipe else None,
            public_score=recipe.get("public_score"),
        )
        for recipe in table["recipes"]
    )


def describe_steps_without_recipe() -> tuple[str, ...]:
    """A sentence for each published score that no settings were published for."""
    return tuple(
        f"{step['title']}, public score {step['public_score']:.3f}: no preset, as nothing but the "
        "score was published"
        for step in _read_file()["steps_without_recipe"]
    )


def find_expectation(
    engine: str, subset: str, model: str, params: Mapping[str, Any]
) -> Expectation | None:
    """The expectation of a run, by its names and settings; None: nothing is expected of it."""
    fitting = (e for e in expectations() if e.matches(engine, subset, model, params))
    return next(fitting, None)


def table(records: Sequence[RunRecord], lang: str = "en") -> Table | None:
    """A row for each group of runs that a recipe's expectation is of; None without one."""
    groups: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in records:
        identity = record.identity
        key = (
            identity.suite,
            identity.subset,
            identity.model,
            identity.seed,
            identity.repeat,
            identity.label,
        )
        groups.setdefault(key, []).append(record)
    pairs = [(_expected_of(group), group) for group in groups.values()]
    body = tuple(_row(recipe, group, lang) for recipe, group in pairs if recipe is not None)
    if not body:
        return None
    heads = ("preset", "expected time", "time", "expected accuracy", "public score", "accuracy")
    columns = tuple(
        TableColumn(translate(f"published.{h}", lang), bool(n)) for n, h in enumerate(heads)
    )
    return Table(columns, body, (TableCell(translate("published.remark", lang), "value"),))


def _expected_of(group: Sequence[RunRecord]) -> Expectation | None:
    """The expectation of a group: all of its runs have the names, settings and rows."""
    first = group[0].identity
    recipe = find_expectation(first.engine, first.subset, first.model, first.params)
    if recipe is None or not all(_belongs_to_recipe(recipe, record) for record in group):
        return None
    rows = [r.samples for r in group if r.identity.task == "train" and r.samples]
    has_expected_rows = bool(rows) and all(_is_close(count, recipe.train_rows) for count in rows)
    return recipe if has_expected_rows else None


def _belongs_to_recipe(recipe: Expectation, record: RunRecord) -> bool:
    identity = record.identity
    is_match = recipe.matches(identity.engine, identity.subset, identity.model, identity.params)
    return is_match and identity.task in ("train", "ensemble")


def _row(recipe: Expectation, group: Sequence[RunRecord], lang: str) -> tuple[TableCell, ...]:
    complete = _is_complete(recipe, group)
    unknown = TableCell(translate("published.unfinished", lang), "unknown")
    return (
        TableCell(recipe.title, "value"),
        TableCell(formats.clock(recipe.seconds), "value") if recipe.seconds else NOT_STATED,
        _time_cell(group, lang) if complete else unknown,
        TableCell(recipe.accuracy_range(), "value") if recipe.accuracy else NOT_STATED,
        TableCell(f"{recipe.public_score:.3f}", "value") if recipe.public_score else NOT_STATED,
        _accuracy_cell(group, lang) if complete else unknown,
    )


def _is_complete(recipe: Expectation, group: Sequence[RunRecord]) -> bool:
    """Whether every run of the recipe is there and ended well."""
    folds = {r.identity.params.get("fold", 0) for r in group if r.identity.task == "train"}
    joined = recipe.runs == 1 or any(r.identity.task == "ensemble" for r in group)
    ended = all(r.exit.cause == "completed" for r in group)
    return ended and joined and len(folds) == recipe.runs


def _time_cell(group: Sequence[RunRecord], lang: str) -> TableCell:
    times = [record.timing.end_to_end_seconds.value for record in group]
    seconds = [value for value in times if value is not None]
    if len(seconds) < len(times):
        return TableCell(translate("published.unfinished", lang), "unknown")
    devices = dict.fromkeys(name for record in group if (name := _device(record)))
    duration = formats.duration(sum(seconds))
    return TableCell(f"{duration} ({', '.join(devices)})" if devices else duration, "value")


def _device(record: RunRecord) -> str:
    """Device of a run: its GPUs' names, else the engine's device."""
    names = [gpu.name for gpu in record.environment.run_gpus if gpu.name]
    return ", ".join(dict.fromkeys(names)) or record.environment.device


def _accuracy_cell(group: Sequence[RunRecord], lang: str) -> TableCell:
    for split in HELD_OUT:
        if metrics := [m for r in group for m in r.metrics if _is_accuracy(m, split)]:
            best = metrics[-1]
            interval = formats.interval(best.value, best.low, best.high)
            return TableCell(f"{interval} (n = {formats.count(best.n)})", "value")
    return TableCell(translate("published.unanswered", lang), "unknown")


def _is_accuracy(metric: MetricRecord, split: str) -> bool:
    return metric.split == split and metric.name == "accuracy"


def _is_close(count: float, expected: float) -> bool:
    return abs(count - expected) <= TOLERANCE * expected


def _as_list(value: Any) -> Any:
    """A tuple of settings as the list that TOML and JSON have."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
