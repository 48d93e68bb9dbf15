"""Tables of step times, memory and phases.

A column that is unknown in every row becomes one remark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from results.records.schema import Reading, RunRecord
from results.tables import run_cells
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate

DISAGREEMENT: Final = 0.05
"""Relative deviation of the two throughput figures from which on the run is flagged."""

_MEMORY: Final = (
    ("max RSS main", "rss_main_peak"),
    ("RSS tree", "rss_tree_peak"),
    ("PSS tree", "pss_tree_peak"),
    ("VRAM allocated", "vram_allocated_peak"),
    ("VRAM reserved", "vram_reserved_peak"),
    ("VRAM process", "vram_process_peak"),
    ("VRAM device", "vram_device_peak"),
)


def step_table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Median and p95 step with intervals, data wait, and samples/s counted two ways.

    Runs that only evaluate have no steps; `retrieval_cost.cost` is theirs.
    """
    records = [r for r in records if r.identity.task != "evaluate"]
    fields = run_cells.distinguishing_fields(records)
    name_columns = run_cells.name_columns(fields, lang)
    titles = [
        "timed steps", "median step", "p95 step", "data wait", "samples/s", "samples/s median",
        "agreement", "first step",
    ]  # fmt: skip
    with_tokens = any(r.timing.tokens_per_second.value is not None for r in records)
    titles += ["tokens/s"] if with_tokens else []
    with_use = any(r.timing.mfu.value is not None for r in records)
    titles += ["MFU", "HFU"] if with_use else []
    with_energy = any(r.energy.per_sample.value is not None for r in records)
    titles += ["energy a sample", "mean power"] if with_energy else []
    columns = (
        *name_columns,
        *(TableColumn(translate(title, lang), right=True) for title in titles),
    )
    body = tuple(
        (
            *run_cells.name_cells(r, fields, lang),
            *_step_cells(r, lang),
            *(_token_cells(r) if with_tokens else ()),
            *(_utilization_cells(r) if with_use else ()),
            *(_energy_cells(r, lang) if with_energy else ()),
        )
        for r in records
    )
    methods = [m for r in records if (m := r.timing.step_median.method)]
    remarks = [
        TableCell(translate("remark.steps", lang), "value"),
        *run_cells.interval_remarks(methods, lang),
    ]
    if with_use:
        remarks.append(TableCell(translate("remark.utilization", lang), "value"))
        peaks = dict.fromkeys(r.timing.mfu.method for r in records if r.timing.mfu.method)
        remarks += [TableCell(method, "value") for method in peaks]
    if with_energy:
        remarks.append(TableCell(translate("remark.energy", lang), "value"))
    return run_cells.drop_unknown_columns(Table(columns, body, tuple(remarks)), len(name_columns))


def _step_cells(record: RunRecord, lang: str) -> tuple[TableCell, ...]:
    timing = record.timing
    return (
        _timed_steps_cell(record),
        _step_time_cell(timing.step_median),
        _step_time_cell(timing.step_p95),
        run_cells.reading_cell(timing.data_wait_share, formats.percent),
        run_cells.reading_cell(timing.samples_per_second, formats.rate),
        run_cells.reading_cell(timing.samples_per_second_median, formats.rate),
        _agreement_cell(timing.samples_per_second, timing.samples_per_second_median, lang),
        run_cells.reading_cell(timing.time_to_first_step, formats.duration),
    )


def _token_cells(record: RunRecord) -> tuple[TableCell, ...]:
    return (run_cells.reading_cell(record.timing.tokens_per_second, formats.rate),)


def _utilization_cells(record: RunRecord) -> tuple[TableCell, ...]:
    readings = (record.timing.mfu, record.timing.hfu)
    return tuple(run_cells.reading_cell(reading, formats.percent) for reading in readings)


def _energy_cells(record: RunRecord, lang: str) -> tuple[TableCell, ...]:
    """Joules of a training sample and mean watts; those of a stand-in NVML library are unknown."""
    readings = ((record.energy.per_sample, formats.joules), (record.energy.power, formats.watts))
    return tuple(_nvml_cell(record, reading, form, lang) for reading, form in readings)


def _timed_steps_cell(record: RunRecord) -> TableCell:
    timing = record.timing
    if record.forecast is not None:
        counted = formats.count(record.forecast.steps)
        return TableCell(f"{counted} (+{formats.count(timing.warmup_steps)} warm-up)", "value")
    steps = timing.timed_steps
    if steps is None:  # absent in older records; a resumed run has not timed all its steps
        is_first_attempt = record.identity.attempt == 1 and timing.epoch_steps > 0
        steps = max(
            timing.epoch_steps, record.steps - timing.warmup_steps if is_first_attempt else 0
        )
    if not steps:
        return TableCell(
            timing.step_median.reason or timing.epoch_wall_seconds.reason or "0", "unknown"
        )
    timed = formats.count(steps)
    if timing.warmup_steps:
        timed = f"{timed} (+{formats.count(timing.warmup_steps)} warm-up)"
    return TableCell(timed, "value")


def _step_time_cell(reading: Reading) -> TableCell:
    return run_cells.reading_cell(
        reading, lambda s: formats.step_time_interval(s, reading.low, reading.high)
    )


def _agreement_cell(summed: Reading, median: Reading, lang: str) -> TableCell:
    if not summed.value or not median.value:
        return TableCell(summed.reason or median.reason or "0 samples/s", "unknown")
    deviation = abs(summed.value / median.value - 1)
    if deviation <= DISAGREEMENT:
        return TableCell(translate("yes", lang), "value")
    return TableCell(translate("differ", lang).format(formats.percent(deviation)), "strong")


def memory_table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """All memory peaks; figures of a stand-in NVML library are marked as unknown."""
    fields = run_cells.distinguishing_fields(records)
    name_columns = run_cells.name_columns(fields, lang)
    columns = (
        *name_columns,
        *(TableColumn(translate(title, lang), right=True) for title, _ in _MEMORY),
    )
    body = tuple(
        (
            *run_cells.name_cells(r, fields, lang),
            *(_peak_cell(r, name, lang) for _, name in _MEMORY),
        )
        for r in records
    )
    remarks = (TableCell(translate("remark.memory", lang), "value"),)
    return run_cells.drop_unknown_columns(Table(columns, body, remarks), len(name_columns))


def _peak_cell(record: RunRecord, name: str, lang: str) -> TableCell:
    reading: Reading = getattr(record.memory, name)
    if name in ("vram_process_peak", "vram_device_peak"):
        return _nvml_cell(record, reading, formats.size, lang)
    return run_cells.reading_cell(reading, formats.size)


def _nvml_cell(
    record: RunRecord, reading: Reading, form: Callable[[float], str], lang: str
) -> TableCell:
    if record.environment.nvml_stub and reading.value is not None:
        return TableCell(translate("stub said", lang).format(form(reading.value)), "unknown")
    return run_cells.reading_cell(reading, form)


def phase_table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Seconds per phase, in order of first appearance; `–` where a run had none.

    Without columns when no run has phases.
    """
    fields = run_cells.distinguishing_fields(records)
    names = list(dict.fromkeys(name for r in records for name in r.timing.phases))
    columns = (
        *run_cells.name_columns(fields, lang),
        *(TableColumn(name, right=True) for name in names),
        TableColumn(translate("total", lang), right=True),
    )

    def row(record: RunRecord) -> tuple[TableCell, ...]:
        seconds_of_phase = record.timing.phases
        cells = (TableCell(_format_phase(seconds_of_phase.get(name)), "value") for name in names)
        total_cell = run_cells.reading_cell(record.timing.end_to_end_seconds, formats.duration)
        return (*run_cells.name_cells(record, fields, lang), *cells, total_cell)

    return Table(columns, tuple(map(row, records))) if names else Table((), ())


def _format_phase(seconds: float | None) -> str:
    return "–" if seconds is None else formats.duration(seconds)
