"""How a record is named in a table, and what must always be said beside it.

Apart because every table starts its rows here: a flag (failed, stand-in GPU library, shared
devices) then cannot be lost by any one of them.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

from results.records import cost_forecasts
from results.records.schema import Reading, RunRecord
from results.tables.table import Cell, Column, Table
from results.text.formats import count, n_a
from results.text.translations import cause, say

_DISTINGUISHING: Final = ("label", "engine", "task", "model", "seed", "repeat")
_MADE_OF: Final = re.compile(r"[0-9,]+ \([0-9,]+ × [0-9,]+\)")
"""The batch after an OOM, `64 (2 × 32)`; a fact comes from an engine, so it is looked at."""

_NAMES: Final = ("label", "engine", "task", "model", "run_id")


def flags(record: RunRecord, lang: str = "en") -> tuple[str, ...]:
    """Short words for everything that makes the row's numbers special, worst first."""
    found: list[str] = [] if record.exit.cause == "completed" else [cause(record.exit.cause, lang)]
    counters, facts = record.counters, record.facts
    if facts.get("forecast") or not cost_forecasts.measured(record):
        found.append(say("forecast", lang))
    elif cost_forecasts.costing(record):
        found.append(say("costing run", lang))
    if record.environment.nvml_stub:
        found.append(say("stub", lang))
    if counters.get("contaminated"):
        found.append(say("contaminated", lang))
    if ooms := counters.get("ooms"):
        made_of = facts.get("batch", "")
        batch = f", batch {made_of}" if _MADE_OF.fullmatch(made_of) else ""
        found.append(f"{say('oom', lang)} ×{count(ooms)}{batch}")
    if record.identity.attempt > 1:
        found.append(say("attempt", lang).format(record.identity.attempt))
    return tuple(found)


def distinguishing(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Which identity fields, beside the subset, a table of these records has to show."""
    identities = [r.identity for r in records]
    fields = [f for f in _DISTINGUISHING if len({getattr(i, f) for i in identities}) > 1]
    names = {tuple(getattr(i, f) for f in ("subset", *fields)) for i in identities}
    return (*fields, *(["run_id"] if len(names) < len(identities) else []))


def name_columns(fields: Sequence[str], lang: str = "en") -> tuple[Column, ...]:
    """Headings of `name_cells`."""
    shown = (Column(say(f"column.{f}", lang), f not in _NAMES) for f in fields)
    return (Column(say("column.subset", lang)), *shown)


def name_cells(record: RunRecord, fields: Sequence[str], lang: str = "en") -> tuple[Cell, ...]:
    """Subset with the row's flags, then the fields."""
    identity = record.identity
    first = Cell(identity.subset, "code", flags(record, lang))
    shown = {"model": identity.model_title}
    return (first, *(_field(shown.get(f, getattr(identity, f)), f) for f in fields))


def reading(
    found: Reading, form: Callable[[float], str], kind: Any = "value", prefix: str = ""
) -> Cell:
    """A measured number by `form`, or its reason; a forecast can never look measured."""
    if found.value is None:
        return Cell(found.reason, "unknown")
    flagged = ("forecast",) if found.method.startswith("forecast") else ()
    return Cell(prefix + form(found.value), kind, flagged)


def exit_cell(record: RunRecord, lang: str = "en") -> Cell:
    """`0` for a completed run; otherwise the code or signal, and the cause."""
    ended = record.exit
    if ended.cause == "completed":
        return Cell(str(ended.code or 0), "value")
    if ended.signal:
        return Cell(f"{_signal_name(ended.signal)} ({cause(ended.cause, lang)})")
    named = cause(ended.cause, lang)
    return Cell(named if ended.code is None else f"{ended.code} ({named})")


def epochs(record: RunRecord) -> float | None:
    """Epochs that were done, cut to hundredths; of a costing run those of the whole run.

    Of a run that did not tell: those asked for, times the share of its steps that it did. None when
    the engine has no such setting, or trains nothing. An evaluation goes over its queries once,
    whatever the model's training settings say.
    """
    if record.identity.task == "evaluate":
        return 1.0
    if record.identity.task in ("infer", "ensemble"):
        return None
    asked, done = _asked(record), record.epochs
    if cost_forecasts.costing(record) or (done is None and asked is None):
        return asked
    if done is None:
        done = (asked or 0.0) * min(1.0, record.steps / (record.planned_steps or 1))
    return math.floor(done * 100 + 1e-6) / 100


def _asked(record: RunRecord) -> float | None:
    asked = record.identity.params.get("epochs")
    return float(asked) if isinstance(asked, int | float) else None


def one_epoch(records: Sequence[RunRecord]) -> bool:
    """Every run that completed did one epoch, and every other one was to."""
    done = {epochs(r) for r in records if r.exit.cause == "completed"}
    asked = {_asked(r) for r in records if r.identity.task in ("train", "probe")}
    return done | asked <= {1.0, None}


def without_unknown(table: Table, named: int, fixed: int | None = None) -> Table:
    """The table less the columns that are unknown in every row.

    The first `named` columns only name the row, the first `fixed` (`named`) are never removed.

    Each of them becomes a remark with its reasons, so that a machine without a GPU does not fill
    half of a page with `n/a`; nothing is lost. When only names are left, only remarks stay.
    """
    columns = range(len(table.columns))
    start = named if fixed is None else fixed
    empty = [i for i in columns if i >= start and all(r[i].kind == "unknown" for r in table.rows)]
    if not empty or not table.rows:
        return table
    absent: dict[str, list[str]] = {}
    for i in empty:
        absent.setdefault(_reasons(table.rows, i), []).append(table.columns[i].title)
    remarks = tuple(Cell(f"{', '.join(titles)}: {n_a(why)}") for why, titles in absent.items())
    kept = [i for i in columns if i not in empty] if len(empty) < len(columns) - named else []
    return Table(
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows) if kept else (),
        remarks=(*remarks, *table.remarks) if kept else remarks,
    )


def _reasons(body: Sequence[tuple[Cell, ...]], column: int) -> str:
    """The reason of all rows; of several reasons each with its rows."""
    found: dict[str, list[str]] = {}
    for row in body:
        found.setdefault(row[column].text, []).append(row[0].text)
    if len(found) == 1:
        return next(iter(found))
    parts = (f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in found.items())
    return "; ".join(parts)


def _field(value: object, field: str) -> Cell:
    if field in ("model", "run_id"):
        return Cell(str(value), "code")
    return Cell(str(value), "text" if field in _NAMES else "value")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
