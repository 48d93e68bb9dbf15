"""The Results screen's rows: records of results.jsonl as ready text, sort keys and one haystack.

Reading runs in a thread. A row keeps 1 KB, not its whole record; the detail reads the one line of
the file again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.planning import folds
from workbench.tui.view_models import quantities as q
from workbench.tui.view_models.cells import Cell, CellLike, Column

if TYPE_CHECKING:
    from results.records.schema import Reading, RunRecord

TAIL_BYTES: Final = 262_144
"""First look at a long file: its newest records, so that the screen opens at once."""

COLUMNS: Final = (
    Column("when", "started", 11, rank=5),
    Column("suite", "suite", 18, grow=10, rank=11),
    Column("label", "label", 6, grow=6, rank=12),
    Column("engine", "engine", 9, rank=14),
    Column("subset", "subset", 14, grow=12, rank=0),
    Column("model", "model", 13, grow=10, rank=0),
    Column("seed", "seed", 5, right=True, rank=3),
    Column("cause", "end", 9, rank=1),
    Column("steps", "steps", 7, right=True, rank=10),
    Column("whole", "wall-clock", 10, right=True, rank=2),
    Column("epoch", "training of 1 epoch", 19, right=True, rank=6),
    Column("step", "step", 8, right=True, rank=7),
    Column("rate", "samples/s", 9, right=True, rank=9),
    Column("rss", "max RSS", 8, right=True, rank=4),
    Column("vram", "VRAM", 8, right=True, rank=10),
    Column("loss", "loss", 8, right=True, rank=8),
    Column("r1", "r@1", 6, right=True, rank=10),
    Column("score", "score", 6, right=True, rank=3),
    Column("metric", "score is", 12, grow=24, rank=4),
)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One record as the table shows it."""

    key: tuple[str, str]
    """Suite and run id."""
    attempt: int
    cells: tuple[CellLike, ...]
    order: tuple[float | str, ...]
    """What each column sorts by; an unmeasured number sorts last in both directions."""
    haystack: str


@dataclass(frozen=True, slots=True)
class Batch:
    """How far reading has come."""

    rows: tuple[ResultRow, ...] = ()
    complete: bool = False
    trouble: str = ""


def read(path: Path) -> Iterator[Batch]:
    """First the newest records of a long file, then all of them.

    Raises:
        NewerSchemaError: the file is of a later workbench; a sentence.
        OSError: it cannot be read.
    """
    from results.records import store

    if _bytes(path) > TAIL_BYTES:
        yield Batch(tuple(reversed(_last_attempts(_tail(path)))))
    lines = store.read_records(path)
    rows = _last_attempts(lines)
    rows.reverse()
    yield Batch(tuple(rows), complete=True, trouble=lines.trouble)


def find(path: Path, key: tuple[str, str]) -> RunRecord | None:
    """The last record of a run, read again from the file."""
    wanted = [json.dumps(part).encode() for part in key]
    found = None
    with path.open("rb") as file:
        for line in file:
            if all(part in line for part in wanted) and (record := _parse(line)) is not None:
                identity = record.identity
                if (identity.suite, identity.run_id) == key:
                    found = record
    return found


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
    """One row a run, in the order in which their last attempts were recorded."""
    rows: dict[tuple[str, str], ResultRow] = {}
    for record in records:
        identity = record.identity
        key = (identity.suite, identity.run_id)
        before = rows.pop(key, None)
        if before is not None and before.attempt > identity.attempt:
            rows[key] = before
        else:
            rows[key] = row(record)
    return list(rows.values())


def row(record: RunRecord) -> ResultRow:
    """A record as a row."""
    parts = [*_identity(record), *_numbers(record)]
    cells = tuple(cell for cell, _ in parts)
    texts = [c.text if isinstance(c, Cell) else c for c in cells]
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
        (Cell(when, "dim"), started or math.nan),
        *shown,
        (Cell(str(identity.seed), "dim"), float(identity.seed)),
        (Cell(cause, tone), cause),
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


def _reading(reading: Reading, write: q.Write) -> Part:
    if reading.value is None:
        return Cell("n/a", "dim"), math.nan
    return write(reading.value), reading.value


def _wall(reading: Reading) -> Part:
    """A time; a forecast has `~` before it."""
    shown, order = _reading(reading, q.wall)
    guess = reading.value is not None and reading.method.startswith("forecast")
    return (f"~{shown}", order) if guess else (shown, order)


def _epoch(record: RunRecord) -> Part:
    """The training of one epoch; `≤` before it where waiting for data is still in it."""
    from results.records import epoch_time

    found = epoch_time.training_reading(record)
    shown, order = _wall(found)
    return (f"≤ {shown}", order) if found.method == epoch_time.AT_MOST else (shown, order)


def _plain(value: float | None, write: q.Write = q.number) -> Part:
    if value is None:
        return Cell(q.UNKNOWN, "dim"), math.nan
    return write(value), value


def _score(record: RunRecord) -> tuple[Part, Part]:
    """One metric for a table of one column, and which it is."""
    from results.text.sanitize import clean_line
    from workbench.suites.run_summary import headline_metric

    chosen = headline_metric(record.metrics)
    if chosen is None:
        return (Cell(q.UNKNOWN, "dim"), math.nan), ("", "")
    name = clean_line(f"{chosen.name} on {chosen.split}", 60)
    return (Cell(q.score(chosen.value), "strong"), chosen.value), (Cell(name, "dim"), name)


def _stamp(wall: float) -> str:
    import time

    return time.strftime("%m-%d %H:%M", time.localtime(wall))


def told_apart(rows: Sequence[ResultRow]) -> list[tuple[CellLike, ...]]:
    """The cells of rows; where subset, model and seed of a suite are alike, with label or fold.

    The label's own column has no room on most screens.
    """
    at = {column.key: place for place, column in enumerate(COLUMNS)}
    labels: dict[tuple[object, ...], set[CellLike]] = {}

    def alike(row: ResultRow) -> tuple[object, ...]:
        return row.key[0], *(row.cells[at[key]] for key in ("subset", "model", "seed"))

    for row in rows:
        labels.setdefault(alike(row), set()).add(row.cells[at["label"]])
    shown = []
    for row in rows:
        cells, label = list(row.cells), row.cells[at["label"]]
        if label and len(labels[alike(row)]) > 1:
            cells[at["subset"]] = f"{label} {cells[at['subset']]}"
        shown.append(tuple(cells))
    return shown


def arrange(
    rows: tuple[ResultRow, ...], words: str, column: int | None, *, descending: bool
) -> list[ResultRow]:
    """Rows that hold all the words, sorted by a column; None leaves the newest first."""
    wanted = words.lower().split()
    kept = [r for r in rows if all(word in r.haystack for word in wanted)] if wanted else [*rows]
    if column is None:
        return kept
    known = [r for r in kept if not _is_nan(r.order[column])]
    unknown = [r for r in kept if _is_nan(r.order[column])]
    known.sort(key=lambda r: r.order[column], reverse=descending)
    return known + unknown


def _is_nan(value: float | str) -> bool:
    return isinstance(value, float) and math.isnan(value)
