"""What a run answered to single items (queries, media, questions), the worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.comparison.scores import read_items
from results.records.schema import MetricRecord, RunRecord
from results.text.metric_names import headline_metric

OWN_SPLITS: Final = ("train", "validation", "out-of-fold")
"""Splits that are parts of the run's own subset; the others are named as their subset."""
NO_RANK: Final = 1e9
LETTERS: Final = "abcd"
"""Of the options of a choice question, in their order."""


class Prediction(NamedTuple):
    """One item: its score, and the line that the run wrote about it."""

    id: str
    score: float
    line: dict[str, Any]


class PredictionList(NamedTuple):
    """Items of one metric of a run."""

    metric: str
    split: str
    subset: str
    """Whose records the items are."""
    total: int
    """Items with a score, before any text was looked for."""
    matches: int
    predictions: tuple[Prediction, ...]
    metrics: tuple[str, ...]
    """`name@split` of all metrics that have a score of each item."""

    def as_row(self) -> dict[str, Any]:
        """All but the predictions as plain values, for JSON."""
        fields = self._asdict()
        del fields["predictions"]
        return fields


def list_predictions(
    record: RunRecord, log_root: Path, metric: str = "", text: str = "", limit: int = 100
) -> PredictionList | None:
    """Items of a run, the worst score first, before it those that are NaN.

    Of equal scores the lower rank comes first, then the more confident answer.

    Args:
        record: The run.
        log_root: Where its score files lie.
        metric: `name@split`; empty: the headline.
        text: Only items in whose line it occurs, in any case.
        limit: Items at most.

    Returns:
        None where no metric has a file of scores, or there is none of that name.
    """
    scored = [m for m in record.metrics if m.scores_file]
    chosen = _find_metric(scored, metric)
    if chosen is None:
        return None
    items = read_items(log_root, record, chosen)
    if not items:
        return None
    lines = [Prediction(name, score, line) for name, (score, line) in items.items()]
    total = len(lines)
    if text:
        lines = [p for p in lines if text.casefold() in _searched_text(p.line)]
    sign = 1.0 if chosen.higher_is_better else -1.0

    def sort_key(p: Prediction) -> tuple[float, float, float, str]:
        quality = -math.inf if math.isnan(p.score) else sign * p.score
        return quality, -_rank(p.line), -confidence(p.line), p.id

    lines.sort(key=sort_key)
    return PredictionList(
        chosen.name, chosen.split, find_subset(record, chosen.split), total, len(lines),
        tuple(lines[:limit]), tuple(f"{m.name}@{m.split}" for m in scored),
    )  # fmt: skip


def find_subset(record: RunRecord, split: str) -> str:
    """Subset whose records the items of a split are."""
    return record.identity.subset if split in OWN_SPLITS else split


def confidence(line: Mapping[str, Any]) -> float:
    """The largest probability of an answer; 0 where it has none."""
    shares = line.get("probabilities")
    numbers = [s for s in shares if isinstance(s, int | float)] if isinstance(shares, list) else []
    finite = [float(s) for s in numbers if math.isfinite(s)]
    return max(finite, default=0.0)


def _find_metric(metrics: Sequence[MetricRecord], key: str) -> MetricRecord | None:
    if not key:
        return headline_metric(metrics)
    return next((m for m in metrics if key in (f"{m.name}@{m.split}", m.name)), None)


def _rank(line: Mapping[str, Any]) -> float:
    if "rank" not in line:
        return 0.0
    rank = line["rank"]
    return float(rank) if isinstance(rank, int | float) else NO_RANK


def _searched_text(line: Mapping[str, Any]) -> str:
    parts = (v if isinstance(v, list) else [v] for v in line.values())
    return "\n".join(str(part) for values in parts for part in values).casefold()


def answer_text(line: Mapping[str, Any]) -> str:
    """What the run answered: its caption, its letter with the option, or the first passage."""
    for name in ("caption", "answer"):
        if isinstance(line.get(name), str):
            return str(line[name])
    if isinstance(line.get("letter"), str):
        return option_text(line, line["letter"])
    top = line.get("top")
    return str(top[0]) if isinstance(top, list) and top else ""


def reference_text(line: Mapping[str, Any]) -> str:
    """What was right: the first reference, the right letter with its option, or the positive."""
    references = line.get("references")
    if isinstance(references, list) and references:
        return str(references[0])
    if isinstance(line.get("truth"), str):
        return option_text(line, line["truth"])
    return str(line["cluster"]) if "top" in line and "cluster" in line else ""


def option_text(line: Mapping[str, Any], letter: str) -> str:
    """`b  a red kite`: a letter with the text of its option."""
    options = line.get("options")
    at = LETTERS.find(letter[:1]) if letter else -1
    if isinstance(options, list) and 0 <= at < len(options):
        return f"{letter}  {options[at]}"
    return letter
