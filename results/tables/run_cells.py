"""Cells that name a run in a table: distinguishing fields and flags; readings with their reasons.

Every table starts its rows with these cells, so that no flag (failed, stand-in GPU library, shared
devices) is lost.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from results.comparison.document_view import short_suite_name
from results.records import cost_forecasts, message_translations, published_runs
from results.records.schema import Reading, RunRecord
from results.text.formats import count, n_a
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import cause, translate

_DISTINGUISHING: Final = ("label", "engine", "task", "model", "seed", "repeat")
_MADE_OF: Final = re.compile(r"[0-9,]+ \([0-9,]+ × [0-9,]+\)")
"""Batch after an OOM, `64 (2 × 32)`; the fact comes from an engine and is validated."""

_NAMES: Final = ("suite", "label", "engine", "task", "model", "run_id")


NONE: Final = "–"
_CONTENT_HASH: Final = re.compile(r"^[0-9a-f]{12,}$")
"""A folder of a cache, which names no model."""


class SetupColumns(NamedTuple):
    """What runs are made of: a column for each part that differs, a remark with the others."""

    columns: tuple[TableColumn, ...]
    cells: tuple[tuple[TableCell, ...], ...]
    """Of each run, one a column."""
    remarks: tuple[TableCell, ...]


def flags(record: RunRecord, lang: str = "en") -> tuple[str, ...]:
    """Flags of a record, worst first: failed, forecast, stand-in library, contaminated or host
    shared with other runs of its suite, OOM."""
    words: list[str] = [] if record.exit.cause == "completed" else [cause(record.exit.cause, lang)]
    counters, facts = record.counters, record.facts
    if published_runs.is_imported(record):
        words.append(translate("imported", lang))
    if facts.get("forecast") or not cost_forecasts.is_measured(record):
        words.append(translate("forecast", lang))
    elif cost_forecasts.is_cost_probe(record):
        words.append(translate("cost probe", lang))
    if record.environment.nvml_stub:
        words.append(translate("stub", lang))
    if counters.get("contaminated"):
        words.append(translate("contaminated", lang))
    elif record.shared_host:
        words.append(translate("shared host", lang))
    if ooms := counters.get("ooms"):
        batch_sizes = facts.get("batch", "")
        batch = f", batch {batch_sizes}" if _MADE_OF.fullmatch(batch_sizes) else ""
        words.append(f"{translate('oom', lang)} ×{count(ooms)}{batch}")
    if record.identity.attempt > 1:
        words.append(translate("attempt", lang).format(record.identity.attempt))
    return tuple(words)


def distinguishing_fields(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Identity fields in which these records differ, besides the subset."""
    identities = [r.identity for r in records]
    fields = [f for f in _DISTINGUISHING if len({getattr(i, f) for i in identities}) > 1]
    names = {tuple(getattr(i, f) for f in ("subset", *fields)) for i in identities}
    suites = {i.suite for i in identities}
    if len(names) < len(identities) and len(suites) > 1:
        fields = ["suite", *fields]
        names = {tuple(getattr(i, f) for f in ("subset", *fields)) for i in identities}
    return (*fields, *(["run_id"] if len(names) < len(identities) else []))


def name_columns(fields: Sequence[str], lang: str = "en") -> tuple[TableColumn, ...]:
    """Headings of `name_cells`."""
    columns = (TableColumn(translate(f"column.{f}", lang), f not in _NAMES) for f in fields)
    return (TableColumn(translate("column.subset", lang)), *columns)


def name_cells(record: RunRecord, fields: Sequence[str], lang: str = "en") -> tuple[TableCell, ...]:
    """Subset with the row's flags, then the fields."""
    identity = record.identity
    first = TableCell(identity.subset, "code", flags(record, lang))
    values = {"model": identity.model_title, "suite": short_suite_name(identity.suite)}
    return (first, *(_field_cell(values.get(f, getattr(identity, f)), f) for f in fields))


def reading_cell(
    reading: Reading,
    formatter: Callable[[float], str],
    kind: Any = "value",
    prefix: str = "",
    lang: str = "en",
) -> TableCell:
    """A measured number by `formatter`, or its reason; forecasts are flagged."""
    if reading.value is None:
        return TableCell(reading.reason, "unknown")
    flagged = (translate("forecast", lang),) if reading.method.startswith("forecast") else ()
    return TableCell(prefix + formatter(reading.value), kind, flagged)


def interval_remarks(methods: Iterable[str], lang: str = "en") -> tuple[TableCell, ...]:
    """Remark with each interval method once; none without methods."""
    names = "; ".join(message_translations.localize(m, lang) for m in dict.fromkeys(methods))
    return (TableCell(translate("remark.intervals", lang).format(names)),) if names else ()


def missing_cell(record: RunRecord, lang: str = "en") -> TableCell:
    """n/a for a number that an imported run's source does not have."""
    reason = record.timing.step_median.reason or published_runs.UNKNOWN
    return TableCell(message_translations.localize(reason, lang), "unknown")


def exit_cell(record: RunRecord, lang: str = "en") -> TableCell:
    """`0` for a completed run; otherwise the code or signal, and the cause."""
    ended = record.exit
    if ended.cause == "completed":
        if ended.code is None and published_runs.is_imported(record):
            return missing_cell(record, lang)
        return TableCell(str(ended.code or 0), "value")
    if ended.signal:
        return TableCell(f"{_signal_name(ended.signal)} ({cause(ended.cause, lang)})")
    cause_text = cause(ended.cause, lang)
    return TableCell(cause_text if ended.code is None else f"{ended.code} ({cause_text})")


def epochs_done(record: RunRecord) -> float | None:
    """Epochs that were done, to hundredths; of a cost probe those of the whole run.

    A part of an epoch is never rounded up to a whole one.

    Of a run without that number: the planned ones, times the share of its steps. None when
    the engine has no such setting, or trains nothing. An evaluation goes over its queries once,
    whatever the model's training settings say.
    """
    if record.identity.task == "evaluate":
        return 1.0
    if record.identity.task in ("infer", "ensemble"):
        return None
    if published_runs.is_imported(record):
        return record.epochs
    planned, done = _planned_epochs(record), record.epochs
    if cost_forecasts.is_cost_probe(record) or (done is None and planned is None):
        return planned
    if done is None:
        done = (planned or 0.0) * min(1.0, record.steps / (record.planned_steps or 1))
    nearest = math.floor(done * 100 + 0.5) / 100
    is_whole = nearest == int(nearest) and nearest > done + 1e-6
    return math.floor(done * 100) / 100 if is_whole else nearest


def _planned_epochs(record: RunRecord) -> float | None:
    epochs = record.identity.params.get("epochs")
    return float(epochs) if isinstance(epochs, int | float) else None


def is_one_epoch(records: Sequence[RunRecord]) -> bool:
    """Every run that completed did one epoch, and every other one was to."""
    done = {epochs_done(r) for r in records if r.exit.cause == "completed"}
    planned = {_planned_epochs(r) for r in records if r.identity.task in ("train", "probe")}
    return done | planned <= {1.0, None}


def drop_unknown_columns(table: Table, name_count: int, fixed: int | None = None) -> Table:
    """The table without the columns that are unknown in every row.

    Each of them becomes a remark with its reasons, so that a machine without a GPU does not fill
    half of a page with `n/a`. The first `name_count` columns only name the row; the first `fixed`
    (default `name_count`) are never removed. When only names remain, only remarks are returned.
    """
    columns = range(len(table.columns))
    start = name_count if fixed is None else fixed
    empty = [i for i in columns if i >= start and all(r[i].kind == "unknown" for r in table.rows)]
    if not empty or not table.rows:
        return table
    absent: dict[str, list[str]] = {}
    for i in empty:
        absent.setdefault(_join_reasons(table.rows, i), []).append(table.columns[i].title)
    remarks = tuple(
        TableCell(f"{', '.join(titles)}: {n_a(reason)}") for reason, titles in absent.items()
    )
    columns_left = (
        [i for i in columns if i not in empty] if len(empty) < len(columns) - name_count else []
    )
    return Table(
        columns=tuple(table.columns[i] for i in columns_left),
        rows=tuple(tuple(row[i] for i in columns_left) for row in table.rows)
        if columns_left
        else (),
        remarks=(*remarks, *table.remarks) if columns_left else remarks,
    )


def _join_reasons(body: Sequence[tuple[TableCell, ...]], column: int) -> str:
    """The reason of all rows; of several reasons each with its rows."""
    names_of_reason: dict[str, list[str]] = {}
    for row in body:
        names_of_reason.setdefault(row[column].text, []).append(row[0].text)
    if len(names_of_reason) == 1:
        return next(iter(names_of_reason))
    parts = (
        f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in names_of_reason.items()
    )
    return "; ".join(parts)


def setup_columns(
    runs: Sequence[tuple[Mapping[str, Any], Mapping[str, str]]], lang: str = "en", planned: int = 0
) -> SetupColumns:
    """Encoder, language model, LoRA, frames, samples and layers of runs, as far as they are known.

    What some run with results lacks is a column, as it is not known to be shared.

    Args:
        runs: Settings and facts of each; `samples` among the facts is their number.
        lang: Language of headings and remark.
        planned: Number of runs at the end that have no results.
    """
    values = [_setup_values(params, facts, lang) for params, facts in runs]
    names = list(dict.fromkeys(name for run in values for name in run))
    done = values[: len(values) - planned]
    shared = {
        name: done[0][name]
        for name in names
        if done and name in done[0]
        and all(run.get(name) == done[0][name] for run in done)
        and all(run.get(name, done[0][name]) == done[0][name] for run in values)
    }  # fmt: skip
    differing = [name for name in names if name not in shared]
    text = ", ".join(
        f"{translate(f'setup.{name}', lang)} {value}"
        for name, value in shared.items()
        if value != NONE
    )
    return SetupColumns(
        tuple(TableColumn(translate(f"setup.{name}", lang)) for name in differing),
        tuple(tuple(TableCell(run.get(name, NONE)) for name in differing) for run in values),
        (TableCell(translate("setup.shared", lang).format(text)),) if text else (),
    )


def _setup_values(params: Mapping[str, Any], facts: Mapping[str, str], lang: str) -> dict[str, str]:
    """By name, without those that are not known."""
    rank, alpha, layers = (params.get(name) for name in ("lora_rank", "lora_alpha", "layers"))
    llm = _CONTENT_HASH.sub("", facts.get("llm", "").partition(",")[0])
    quantized = params.get("quantize") in ("nf4", "int8")
    values = {
        "text": facts.get("text", ""),
        "encoder": facts.get("vision", "").partition(";")[0].partition(",")[0],
        "llm": f"{llm} ({params['quantize']})" if llm and quantized else llm,
        "lora": f"r={rank}, alpha={alpha}" if rank else NONE if rank == 0 else "",
        "frames": str(params.get("frames") or ""),
        "samples": facts.get("samples", ""),
        "layers": ", ".join(map(str, layers)) if isinstance(layers, list | tuple) else "",
    }
    return {
        name: message_translations.localize(text, lang) for name, text in values.items() if text
    }


def _field_cell(value: object, field: str) -> TableCell:
    if field in ("suite", "model", "run_id"):
        return TableCell(str(value), "code")
    return TableCell(str(value), "text" if field in _NAMES else "value")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
