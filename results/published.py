"""What somebody expected of a preset beside what it came to: time and accuracy.

Apart from forecasts, which this workbench makes itself: these numbers are the VQA notebook's own,
from `published.toml`, for another machine, and are shown, never compared for it.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from results import formats
from results.markdown import Cell, Column, Table
from results.schema import Metric, RunRecord
from results.words import say

HELD_OUT: Final = ("out-of-fold", "validation")
"""Splits of questions that were not trained on, the ensemble's first."""
_SUITE: Final = re.compile(r"\d{8}-\d{6}-(?P<plan>.+)-[0-9a-f]{4}")


@functools.cache
def known() -> dict[str, dict[str, Any]]:
    """Expectations by the name of the plan."""
    return tomllib.loads((Path(__file__).parent / "published.toml").read_text("utf-8"))


def table(records: Sequence[RunRecord], lang: str = "en") -> Table | None:
    """A row for each suite of a preset that something is expected of; None without one."""
    suites: dict[str, list[RunRecord]] = {}
    for record in records:
        suites.setdefault(record.identity.suite, []).append(record)
    body = [
        _row(expected, found, lang)
        for suite, found in suites.items()
        if (expected := known().get(plan_name(suite)))
    ]
    if not body:
        return None
    heads = ("preset", "expected time", "time", "expected accuracy", "accuracy")
    columns = tuple(Column(say(f"published.{h}", lang), bool(n)) for n, h in enumerate(heads))
    return Table(columns, tuple(body), (Cell(say("published.remark", lang), "value"),))


def plan_name(suite: str) -> str:
    """The plan's name in a suite's; the whole where it is none."""
    found = _SUITE.fullmatch(suite)
    return found["plan"] if found else suite


def _row(expected: dict[str, Any], found: Sequence[RunRecord], lang: str) -> tuple[Cell, ...]:
    low, high = expected["accuracy"]
    return (
        Cell(expected["preset"], "value"),
        Cell(formats.duration(expected["hours"] * 3600), "value"),
        _time(found, lang),
        Cell(f"{low:.2f}–{high:.2f}", "value"),
        _accuracy(found, lang),
    )


def _time(found: Sequence[RunRecord], lang: str) -> Cell:
    times = [record.timing.end_to_end_seconds.value for record in found]
    whole = [seconds for seconds in times if seconds is not None]
    if len(whole) < len(times) or any(r.exit.cause != "completed" for r in found):
        return Cell(say("published.unfinished", lang), "unknown")
    return Cell(formats.duration(sum(whole)), "value")


def _accuracy(found: Sequence[RunRecord], lang: str) -> Cell:
    for split in HELD_OUT:
        if metrics := [m for r in found for m in r.metrics if _is_accuracy(m, split)]:
            best = metrics[-1]
            shown = formats.interval(best.value, best.low, best.high)
            return Cell(f"{shown} (n = {formats.count(best.n)})", "value")
    return Cell(say("published.unanswered", lang), "unknown")


def _is_accuracy(metric: Metric, split: str) -> bool:
    return metric.split == split and metric.name == "accuracy"
