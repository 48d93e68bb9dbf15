"""Rows of the Results screen: records of results.jsonl as cells, sort keys and search text.

Reading runs in a thread. A row keeps about 1 KB and not its record; the detail view reads the line
of the file again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.planning import folds
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import CellLike, GridCell, GridColumn

if TYPE_CHECKING:
    from results.records.schema import Reading, RunRecord

TAIL_BYTES: Final = 262_144
"""Bytes read first from the end of a long file, so that the screen opens at once."""

COLUMNS: Final = (
    GridColumn("when", "started", 11, rank=5),
    GridColumn("suite", "suite", 18, grow=10, rank=11),
    GridColumn("label", "label", 6, grow=6, rank=12),
    GridColumn("engine", "engine", 9, rank=14),
    GridColumn("subset", "subset", 14, grow=12, rank=0, middle_cut=True),
    GridColumn("model", "model", 13, grow=10, rank=0, middle_cut=True),
    GridColumn("seed", "seed", 5, right=True, rank=3),
    GridColumn("cause", "end", 9, rank=1),
    GridColumn("steps", "steps", 7, right=True, rank=10),
    GridColumn("whole", "wall-clock", 10, right=True, rank=2),
    GridColumn("epoch", "training of 1 epoch", 19, right=True, rank=6),
    GridColumn("step", "step", 8, right=True, rank=7),
    GridColumn("rate", "samples/s", 9, right=True, rank=9),
    GridColumn("rss", "max RSS", 8, right=True, rank=4),
    GridColumn("vram", "VRAM", 8, right=True, rank=10),
    GridColumn("loss", "loss", 8, right=True, rank=8),
    GridColumn("r1", "r@1", 6, right=True, rank=10),
    GridColumn("score", "score", 6, right=True, rank=3),
    GridColumn("metric", "score is", 12, grow=24, rank=4),
)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One record as the table shows it."""

    key: tuple[str, str]
    """Suite and run id."""
    attempt: int
    cells: tuple[CellLike, ...]
    order: tuple[float | str, ...]
    """Sort key of each column; NaN (unmeasured) sorts last in both directions."""
    haystack: str


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records read so far; `complete`: all of them."""

    rows: tuple[ResultRow, ...] = ()
    complete: bool = False
    trouble: str = ""


def read_batches(path: Path) -> Iterator[RecordBatch]:
    """Yield the newest records of a long file, then all records.

    Raises:
        NewerSchemaError: the file is of a later workbench; a sentence.
        OSError: it cannot be read.
    """
    from results.records import store

    if _bytes(path) > TAIL_BYTES:
        yield RecordBatch(tuple(reversed(_last_attempts(_tail(path)))))
    lines = store.read_records(path)
    rows = _last_attempts(lines)
    rows.reverse()
    yield RecordBatch(tuple(rows), complete=True, trouble=lines.trouble)


def find_record(path: Path, key: tuple[str, str]) -> RunRecord | None:
    """The last record of a run, read again from the file."""
    needles = [json.dumps(part).encode() for part in key]
    match = None
    with path.open("rb") as file:
        for line in file:
            if all(part in line for part in needles) and (record := _parse(line)) is not None:
                identity = record.identity
                if (identity.suite, identity.run_id) == key:
                    match = record
    return match


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail(path: Path) -> Iterator[RunRecord]:
    with path.open("rb") as file:
        file.seek(-TAIL_BYTES, 2)
        lines = file.read(TAIL_BYTES).split(b"\n")[1:]
    for line in lines:
        if (record := _parse(line)) is not None:
            yield record


def _parse(line: bytes) -> RunRecord | None:
    from results.records.migrations import migrate
    from results.records.schema import RunRecord

    try:
        return RunRecord.model_validate(migrate(json.loads(line)))
    except (ValueError, RecursionError, AttributeError, KeyError):
        return None


def _last_attempts(records: Iterator[RunRecord]) -> list[ResultRow]:
    """One row for each run, in the order of the last attempts' records."""
    rows: dict[tuple[str, str], ResultRow] = {}
    for record in records:
        identity = record.identity
        key = (identity.suite, identity.run_id)
        before = rows.pop(key, None)
        if before is not None and before.attempt > identity.attempt:
            rows[key] = before
        else:
            rows[key] = make_row(record)
    return list(rows.values())


def make_row(record: RunRecord) -> ResultRow:
    """A record as a row."""
    parts = [*_identity(record), *_numbers(record)]
    cells = tuple(cell for cell, _ in parts)
    texts = [c.text if isinstance(c, GridCell) else c for c in cells]
    identity = record.identity
    return ResultRow(
        (identity.suite, identity.run_id),
        identity.attempt,
        cells,
        tuple(order for _, order in parts),
        " ".join([*texts, identity.run_id, record.exit.detail]).lower(),
    )


Part = tuple[CellLike, float | str]


def _identity(record: RunRecord) -> list[Part]:
    from results.records import cost_forecasts
    from results.text.sanitize import clean_line

    identity = record.identity
    label = " ".join(part for part in (identity.label, folds.fold_label(identity)) if part)
    names = [identity.suite, label, identity.engine, identity.subset, identity.model]
    shown: list[Part] = [(text, text) for text in (clean_line(n, 80) for n in names)]
    cause: str = record.exit.cause
    if cause == "completed" and not cost_forecasts.is_measured(record):
        cause = "forecast"
    quiet = {"completed": "", "pruned": "dim", "skipped": "dim", "stopped": "dim"}
    tone = quiet.get(cause, "error")
    started = record.started_wall
    when = _stamp(started) if started else q.UNKNOWN
    return [
        (GridCell(when, "dim"), started or math.nan),
        *shown,
        (GridCell(str(identity.seed), "dim"), float(identity.seed)),
        (GridCell(cause, tone), cause),
    ]


def _numbers(record: RunRecord) -> list[Part]:
    from results.records import cost_forecasts

    timing, memory = record.timing, record.memory
    steps = f"{record.steps:,}" if record.steps else q.UNKNOWN
    return [
        (steps, float(record.steps)),
        _wall(cost_forecasts.wall_reading(record)),
        _epoch(record),
        _reading(timing.step_median, q.duration),
        _reading(timing.samples_per_second, q.rate),
        _reading(memory.rss_main_peak, q.size),
        _reading(memory.vram_process_peak, q.size),
        _plain(record.train.get("loss")),
        _plain(record.train.get("r@1"), q.score),
        *_score(record),
    ]


def _reading(reading: Reading, write: q.Formatter) -> Part:
    if reading.value is None:
        return GridCell("n/a", "dim"), math.nan
    return write(reading.value), reading.value


def _wall(reading: Reading) -> Part:
    """A duration; forecasts have the prefix `~`."""
    shown, order = _reading(reading, q.wall)
    guess = reading.value is not None and reading.method.startswith("forecast")
    return (f"~{shown}", order) if guess else (shown, order)


def _epoch(record: RunRecord) -> Part:
    """Training time of one epoch; prefix `≤` if it includes waiting for data."""
    from results.records import epoch_time

    reading = epoch_time.training_reading(record)
    shown, order = _wall(reading)
    return (f"≤ {shown}", order) if reading.method == epoch_time.AT_MOST else (shown, order)


def _plain(value: float | None, write: q.Formatter = q.number) -> Part:
    if value is None:
        return GridCell(q.UNKNOWN, "dim"), math.nan
    return write(value), value


def _score(record: RunRecord) -> tuple[Part, Part]:
    """Value and name of the headline metric."""
    from results.text.sanitize import clean_line
    from workbench.suites.run_summary import headline_metric

    chosen = headline_metric(record.metrics)
    if chosen is None:
        return (GridCell(q.UNKNOWN, "dim"), math.nan), ("", "")
    name = clean_line(f"{chosen.name} on {chosen.split}", 60)
    return (GridCell(q.score(chosen.value), "strong"), chosen.value), (GridCell(name, "dim"), name)


def _stamp(wall: float) -> str:
    import time

    return time.strftime("%m-%d %H:%M", time.localtime(wall))


def distinguishing_cells(rows: Sequence[ResultRow]) -> list[tuple[CellLike, ...]]:
    """Cells of rows; label or fold is added where suite, subset, model and seed are equal.

    The column of labels is hidden on most screens.
    """
    indexes = {column.key: index for index, column in enumerate(COLUMNS)}
    labels: dict[tuple[object, ...], set[CellLike]] = {}

    def alike(row: ResultRow) -> tuple[object, ...]:
        return row.key[0], *(row.cells[indexes[key]] for key in ("subset", "model", "seed"))

    for row in rows:
        labels.setdefault(alike(row), set()).add(row.cells[indexes["label"]])
    shown = []
    for row in rows:
        cells, label = list(row.cells), row.cells[indexes["label"]]
        if label and len(labels[alike(row)]) > 1:
            cells[indexes["subset"]] = f"{label} {cells[indexes['subset']]}"
        shown.append(tuple(cells))
    return shown


def select_rows(
    rows: tuple[ResultRow, ...], words: str, column: int | None, *, descending: bool
) -> list[ResultRow]:
    """Rows that contain all words, sorted by a column; None: newest first."""
    terms = words.lower().split()
    kept = [r for r in rows if all(word in r.haystack for word in terms)] if terms else [*rows]
    if column is None:
        return kept
    measured = [r for r in kept if not _is_nan(r.order[column])]
    unmeasured = [r for r in kept if _is_nan(r.order[column])]
    measured.sort(key=lambda r: r.order[column], reverse=descending)
    return measured + unmeasured


def _is_nan(value: float | str) -> bool:
    return isinstance(value, float) and math.isnan(value)
