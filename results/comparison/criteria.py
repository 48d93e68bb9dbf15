"""Success criteria of a run, written before it, and their judgement after it.

A criterion is `METRIC SIGN BOUND [on SPLIT]`: `diversity > 0.5`, `METEOR >= previous`,
`recall@1 > 0.4 on emoji_val`, `epoch < 600`. BOUND is a number, or `previous` for the value of
the run that it is compared with. METRIC is the beginning of a metric's name, `loss`, or a cost in
seconds or bytes (`epoch`, `step`, `wall`, `rss`, `vram`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from results.comparison.costs import COSTS
from results.records.schema import MetricRecord, Reading, RunRecord
from results.text.metric_names import split_name

SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
PREVIOUS: Final = "previous"

_CRITERION: Final = re.compile(
    r"\s*(?P<metric>[^<>=]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>\S+)(?:\s+on\s+(?P<split>\S+))?\s*"
)

Verdict = Literal["met", "not met", "not measured"]


class Criterion(NamedTuple):
    """One success criterion."""

    metric: str
    sign: str
    bound: float | None
    """None: the value of the run that it is compared with."""
    split: str
    """Empty: the last split that the run was evaluated on, `train` apart."""


class Judgement(NamedTuple):
    """A criterion with the run's value."""

    text: str
    reading: Reading
    bound: float | None
    """None: the run that it is compared with has no such value."""
    verdict: Verdict
    certain: bool
    """False: the interval of the value holds the bound."""


def parse_criterion(text: str) -> Criterion:
    """The criterion of a text.

    Raises:
        ValueError: it is none; one sentence.
    """
    match = _CRITERION.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        bound = None if match["bound"] == PREVIOUS else float(match["bound"])
    except ValueError:
        raise ValueError(
            f"'{text}' is no criterion; write METRIC SIGN NUMBER, as 'diversity > 0.5', or "
            "'METEOR >= previous'"
        ) from None
    return Criterion(match["metric"], match["sign"], bound, match["split"] or "")


def judge(text: str, record: RunRecord, previous: RunRecord | None) -> Judgement:
    """Judge a criterion by the record of a run and that of the run it is compared with."""
    criterion = parse_criterion(text)
    reading, bound = read_value(criterion, record), criterion.bound
    if bound is None and previous is not None:
        bound = read_value(criterion, previous).value
    if reading.value is None or bound is None:
        return Judgement(text, reading, bound, "not measured", False)
    verdict: Verdict = "met" if SIGNS[criterion.sign](reading.value, bound) else "not met"
    has_interval = reading.low is not None and reading.high is not None
    certain = not has_interval or not (reading.low or 0) <= bound <= (reading.high or 0)
    return Judgement(text, reading, bound, verdict, certain)


def read_value(criterion: Criterion, record: RunRecord) -> Reading:
    """The value that a criterion is about; without a value where the run has none."""
    name = criterion.metric.casefold()
    if name in COSTS:
        return COSTS[name](record)
    if name in ("loss", "train_loss"):
        loss = record.train.get("epoch_loss", record.train.get("loss"))
        return Reading(reason="not logged") if loss is None else Reading(value=loss)
    metrics = [m for m in record.metrics if m.split != "train" or criterion.split == "train"]
    splits = [criterion.split] if criterion.split else [m.split for m in metrics][-1:]
    for split in splits:
        if metric := _find_metric(metrics, split, name):
            return Reading(
                value=metric.value, low=metric.low, high=metric.high, method=metric.method
            )
    return Reading(reason="not measured")


def _find_metric(metrics: list[MetricRecord], split: str, name: str) -> MetricRecord | None:
    """The metric of that whole name, else the first whose name begins so."""
    of_split = [metric for metric in metrics if metric.split == split]
    exact = (metric for metric in of_split if metric.name.casefold() == name)
    beginning = (
        metric
        for metric in of_split
        if metric.name.casefold().startswith(name) and not split_name(metric.name).variant
    )
    return next(exact, None) or next(beginning, None)
