"""Values of runs by name (columns of lists): texts, numbers, settings, metrics; tables of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from results.listing.run_filter import NUMBER_FIELDS, TEXT_FIELDS, ListedRun
from results.listing.summary import NUMBERS
from results.text import formats
from results.text.table import Table, TableCell, TableColumn

TIME: Final = "when"
SCORE: Final = "score"


def list_keys() -> list[str]:
    """Names that every run has, besides settings and metrics."""
    return [TIME, *TEXT_FIELDS, *NUMBER_FIELDS, SCORE]


def read_value(run: ListedRun, key: str, metric: str = "") -> Any:
    """The value of that name, in SI units; None: it has none. `metric`: what `score` means."""
    if key == TIME:
        return run.summary.started
    if (read_text := TEXT_FIELDS.get(key)) is not None:
        return " ".join(filter(None, read_text(run)))
    if (read_number := NUMBER_FIELDS.get(key)) is not None:
        return read_number(run.summary)
    if key in run.summary.params:
        return run.summary.params[key]
    chosen = run.summary.find_metric(metric if key == SCORE else key)
    return chosen.value if chosen else None


def format_value(value: Any, key: str) -> str:
    """As lists show it: `8:01.39`, `3.15 GiB`, `0.412`; empty: there is none."""
    if value is None or value == "":
        return ""
    if key == TIME:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    unit = NUMBERS.get(key, "")
    if unit == "s":
        return formats.step_time(value) if key == "step" else formats.duration(value)
    if unit == "bytes":
        return formats.size(value)
    if key == "rate":
        return formats.rate(value)
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def make_table(runs: Sequence[ListedRun], keys: Sequence[str], metric: str = "") -> Table:
    """A row a run, a column a name."""
    rows = []
    for run in runs:
        values = [read_value(run, key, metric) for key in keys]
        texts = map(format_value, values, keys)
        rows.append(tuple(TableCell(text) for text in texts))
    numeric = {
        key for key in keys
        if any(isinstance(read_value(run, key, metric), int | float) for run in runs)
    }  # fmt: skip
    columns = tuple(TableColumn(key, key in numeric and key != TIME) for key in keys)
    return Table(columns, tuple(rows))
