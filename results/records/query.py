"""Selection and order of records: the last attempt of every run, sorting.

Plain lists: 10,000 records take milliseconds in each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from results.records import epoch_time
from results.records.schema import RunRecord

Sortable = float | str | None

_COLUMNS: Final[Mapping[str, Callable[[RunRecord], Sortable]]] = {
    "suite": lambda r: r.identity.suite,
    "run": lambda r: r.identity.run_id,
    "engine": lambda r: r.identity.engine,
    "task": lambda r: r.identity.task,
    "subset": lambda r: r.identity.subset,
    "model": lambda r: r.identity.model,
    "label": lambda r: r.identity.label,
    "seed": lambda r: r.identity.seed,
    "cause": lambda r: r.exit.cause,
    "samples": lambda r: r.samples,
    "steps": lambda r: r.steps,
    "started": lambda r: r.started_wall,
    "wall": lambda r: r.timing.end_to_end_seconds.value,
    "epoch": lambda r: epoch_time.training_reading(r).value,
    "step": lambda r: r.timing.step_median.value,
    "rss": lambda r: r.memory.rss_main_peak.value,
    "vram": lambda r: r.memory.vram_process_peak.value,
    "loss": lambda r: r.train.get("loss"),
}


def sortable_columns() -> list[str]:
    """Columns for `sort_records`, besides metrics (`recall@1@emoji_val`) and training numbers."""
    return list(_COLUMNS)


def last_attempts(records: Iterable[RunRecord]) -> list[RunRecord]:
    """One record a run, in the order in which runs first appear.

    The highest attempt counts; of two lines for the same attempt the later one, which corrects.
    """
    last: dict[tuple[str, str], RunRecord] = {}
    for record in records:
        key = (record.identity.suite, record.identity.run_id)
        earlier = last.get(key)
        if earlier is None or record.identity.attempt >= earlier.identity.attempt:
            last[key] = record
    return list(last.values())


def sort_records(
    records: Sequence[RunRecord], column: str, *, descending: bool = False
) -> list[RunRecord]:
    """Sorted by a column, unknown and NaN last either way; equal records keep their order."""
    value = _COLUMNS.get(column) or _number_getter(column)
    keyed = [(value(record), record) for record in records]
    comparable = [(key, record) for key, record in keyed if not _is_unknown(key)]
    unknown = [record for key, record in keyed if _is_unknown(key)]
    comparable.sort(key=lambda pair: _sort_key(pair[0]), reverse=descending)
    return [record for _, record in comparable] + unknown


def _number_getter(name: str) -> Callable[[RunRecord], Sortable]:
    """A training number, or a metric as `name@split` (`recall@1@emoji_val`)."""
    base, _, split = name.rpartition("@")

    def value(record: RunRecord) -> Sortable:
        if name in record.train:
            return record.train[name]
        values = (m.value for m in record.metrics if (m.name, m.split) == (base, split))
        return next(values, None)

    return value


def _is_unknown(key: Sortable) -> bool:
    return key is None or (isinstance(key, float) and math.isnan(key))


def _sort_key(key: Sortable) -> tuple[bool, float | str]:
    return (isinstance(key, str), key if key is not None else "")
