"""Tables of what was measured: step times, memory, phases.

Apart from the weekly tables, which must stay as narrow as the ones people write by hand. What is
unknown in every row becomes one remark instead of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from results.records.schema import Reading, RunRecord
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import say

DISAGREEMENT: Final = 0.05
"""Rates counted two ways that are further apart than this share flag the run."""

_MEMORY: Final = (
    ("max RSS main", "rss_main_peak"),
    ("RSS tree", "rss_tree_peak"),
    ("PSS tree", "pss_tree_peak"),
    ("VRAM allocated", "vram_allocated_peak"),
    ("VRAM reserved", "vram_reserved_peak"),
    ("VRAM process", "vram_process_peak"),
    ("VRAM device", "vram_device_peak"),
)


def steps(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Median and p95 step with intervals, data wait, and samples/s counted two ways.

    Runs that only evaluate have no steps; `searches.cost` is theirs.
    """
    records = [r for r in records if r.identity.task != "evaluate"]
    fields = run_cells.distinguishing(records)
    named = run_cells.name_columns(fields, lang)
    titles = (
        "timed steps", "median step", "p95 step", "data wait", "samples/s", "samples/s median",
        "agreement", "first step",
    )  # fmt: skip
    columns = (*named, *(Column(say(title, lang), right=True) for title in titles))
    body = tuple((*run_cells.name_cells(r, fields, lang), *_step_cells(r, lang)) for r in records)
    methods = [m for r in records if (m := r.timing.step_median.method)]
    remarks = [Cell(say("remark.steps", lang), "value"), *_methods(methods, lang)]
    return run_cells.without_unknown(Table(columns, body, tuple(remarks)), len(named))


def _step_cells(record: RunRecord, lang: str) -> tuple[Cell, ...]:
    timing = record.timing
    return (
        _timed(record),
        _step_time(timing.step_median),
        _step_time(timing.step_p95),
        run_cells.reading(timing.data_wait_share, formats.percent),
        run_cells.reading(timing.samples_per_second, formats.rate),
        run_cells.reading(timing.samples_per_second_median, formats.rate),
        _agreement(timing.samples_per_second, timing.samples_per_second_median, lang),
        run_cells.reading(timing.time_to_first_step, formats.duration),
    )


def _timed(record: RunRecord) -> Cell:
    timing = record.timing
    if record.forecast is not None:
        counted = formats.count(record.forecast.steps)
        return Cell(f"{counted} (+{formats.count(timing.warmup_steps)} warm-up)", "value")
    steps = timing.timed_steps
    if steps is None:  # not told by older records; a resumed run has not timed all its steps
        alone = record.identity.attempt == 1 and timing.epoch_steps > 0
        steps = max(timing.epoch_steps, record.steps - timing.warmup_steps if alone else 0)
    if not steps:
        return Cell(timing.step_median.reason or timing.epoch_wall_seconds.reason or "0", "unknown")
    timed = formats.count(steps)
    if timing.warmup_steps:
        timed = f"{timed} (+{formats.count(timing.warmup_steps)} warm-up)"
    return Cell(timed, "value")


def _step_time(found: Reading) -> Cell:
    return run_cells.reading(found, lambda s: formats.short_interval(s, found.low, found.high))


def _agreement(summed: Reading, median: Reading, lang: str) -> Cell:
    if not summed.value or not median.value:
        return Cell(summed.reason or median.reason or "0 samples/s", "unknown")
    apart = abs(summed.value / median.value - 1)
    if apart <= DISAGREEMENT:
        return Cell(say("yes", lang), "value")
    return Cell(say("differ", lang).format(formats.percent(apart)), "strong")


def _methods(methods: Sequence[str], lang: str) -> tuple[Cell, ...]:
    if not methods:
        return ()
    named = "; ".join(dict.fromkeys(methods))
    return (Cell(say("remark.intervals", lang).format(named)),)


def memory(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """All peaks. A figure that a stand-in NVML library gave is no measurement and says so."""
    fields = run_cells.distinguishing(records)
    named = run_cells.name_columns(fields, lang)
    columns = (*named, *(Column(say(title, lang), right=True) for title, _ in _MEMORY))
    body = tuple(
        (*run_cells.name_cells(r, fields, lang), *(_peak(r, name, lang) for _, name in _MEMORY))
        for r in records
    )
    remarks = (Cell(say("remark.memory", lang), "value"),)
    return run_cells.without_unknown(Table(columns, body, remarks), len(named))


def _peak(record: RunRecord, name: str, lang: str) -> Cell:
    found: Reading = getattr(record.memory, name)
    from_nvml = name in ("vram_process_peak", "vram_device_peak")
    if from_nvml and record.environment.nvml_stub and found.value is not None:
        return Cell(say("stub said", lang).format(formats.size(found.value)), "unknown")
    return run_cells.reading(found, formats.size)


def phases(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Seconds per phase, in the order in which phases first came; `–` where a run had none.

    Without columns when no run told its phases.
    """
    fields = run_cells.distinguishing(records)
    names = list(dict.fromkeys(name for r in records for name in r.timing.phases))
    columns = (
        *run_cells.name_columns(fields, lang),
        *(Column(name, right=True) for name in names),
        Column(say("total", lang), right=True),
    )

    def row(record: RunRecord) -> tuple[Cell, ...]:
        spent = record.timing.phases
        cells = (Cell(_phase(spent.get(name)), "value") for name in names)
        whole = run_cells.reading(record.timing.end_to_end_seconds, formats.duration)
        return (*run_cells.name_cells(record, fields, lang), *cells, whole)

    return Table(columns, tuple(map(row, records))) if names else Table((), ())


def _phase(seconds: float | None) -> str:
    return "–" if seconds is None else formats.duration(seconds)
