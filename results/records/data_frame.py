"""Data frames of records: one row for each run, joined with its notes, for pandas and for files.

Columns are the fields of a record with dotted names (`model`, `seed`, `params.lr`, `exit.cause`,
`timing.step_median`, `memory.rss_main_peak`, `train.loss`); of the identity without its prefix.
A reading is its value, with `.low` and `.high` where it has an interval, and `.reason` where it was
not measured (the value is NaN then). A metric is `recall@1@emoji_val`, with `.low`, `.high`, `.n`.
Times are in seconds, memory in bytes.

Only this module loads pandas.
"""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from results.records.notes import RunNotes
from results.records.schema import RunRecord
from results.text.sanitize import starts_formula

if TYPE_CHECKING:
    from pandas import DataFrame

FORMATS: Final = (".csv", ".parquet", ".jsonl")
KEY: Final = ["suite", "run_id"]
_METRIC_FIELDS: Final = ("low", "high", "n")


class UnknownColumnError(LookupError):
    """No record has that column; the message names some that there are."""

    def __str__(self) -> str:
        return str(self.args[0])


def build_frame(
    records: Iterable[RunRecord], notes_of_run: Mapping[tuple[str, str], RunNotes] | None = None
) -> DataFrame:
    """A row for each record, in their order; `notes_of_run`: notes by (suite, run id)."""
    import pandas as pd

    frame = pd.DataFrame([_record_row(record) for record in records])
    if frame.empty:
        return pd.DataFrame(columns=KEY)
    notes = pd.DataFrame(
        [
            {"suite": suite, "run_id": run_id, "note.state": run_notes.state,
             "note.tags": " ".join(sorted(run_notes.tags)),
             "note.findings": "\n".join(run_notes.findings)}
            for (suite, run_id), run_notes in (notes_of_run or {}).items()
        ],
        columns=[*KEY, "note.state", "note.tags", "note.findings"],
    )  # fmt: skip
    return frame.merge(notes, on=KEY, how="left") if len(notes) else frame


def select_rows(frame: DataFrame, patterns: Mapping[str, str]) -> DataFrame:
    """Rows whose columns match shell patterns: `{"subset": "emoji_*", "params.lr": "0.001"}`.

    Raises:
        UnknownColumnError: there is no such column.
    """
    for column, pattern in patterns.items():
        _require_columns(frame, [column])
        matches = [fnmatch.fnmatchcase(_as_text(value), pattern) for value in frame[column]]
        frame = frame[matches]
    return frame


def select_columns(frame: DataFrame, columns: Sequence[str]) -> DataFrame:
    """These columns, in this order.

    Raises:
        UnknownColumnError: there is no such column.
    """
    _require_columns(frame, columns)
    return frame[list(columns)]


def write_frame(frame: DataFrame, path: Path) -> None:
    """Write CSV, Parquet or JSON lines, by the ending; the file appears whole or not at all.

    In CSV a text that a spreadsheet would take for a formula gets an apostrophe.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the ending must be one of {', '.join(FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".csv":
            frame.map(_escape_formula).to_csv(draft, index=False)
        elif path.suffix == ".parquet":
            _unify_types(frame).to_parquet(draft, index=False)
        else:
            frame.to_json(draft, orient="records", lines=True, force_ascii=False)
        draft.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


def _record_row(record: RunRecord) -> dict[str, Any]:
    fields = record.model_dump(mode="python", exclude={"metrics", "evaluations", "artifacts"})
    row: dict[str, Any] = {}
    for name, value in fields.pop("identity").items():
        _flatten(row, name, value)
    for name, value in fields.items():
        _flatten(row, name, value)
    for metric in record.metrics:
        column = f"{metric.name}@{metric.split}"
        row[column] = metric.value
        row |= {f"{column}.{field}": getattr(metric, field) for field in _METRIC_FIELDS}
    return row


def _flatten(row: dict[str, Any], name: str, value: Any) -> None:
    """Leaves of a nested value under dotted names; lists as text."""
    if isinstance(value, dict) and {"value", "reason", "low", "high"} <= value.keys():
        row[name] = math.nan if value["value"] is None else value["value"]
        row |= {f"{name}.{key}": value[key] for key in ("low", "high") if value[key] is not None}
        if value["reason"]:
            row[f"{name}.reason"] = value["reason"]
    elif isinstance(value, dict):
        for key, inner in value.items():
            _flatten(row, f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        row[name] = " ".join(map(str, value)) if all(map(_is_plain, value)) else str(value)
    else:
        row[name] = value


def _unify_types(frame: DataFrame) -> DataFrame:
    """Columns of several types (a setting that is a number here and a word there) as text."""
    from pandas.api.types import infer_dtype

    mixed = [c for c in frame.columns if infer_dtype(frame[c], skipna=True).startswith("mixed")]
    return frame.assign(**{column: frame[column].map(_as_text) for column in mixed})


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _require_columns(frame: DataFrame, columns: Sequence[str]) -> None:
    import difflib

    for column in columns:
        if column not in frame.columns:
            close = difflib.get_close_matches(column, map(str, frame.columns), n=3, cutoff=0.4)
            guess = f"; did you mean {', '.join(close)}?" if close else ""
            raise UnknownColumnError(f"no record has the column '{column}'{guess}")


def _as_text(value: Any) -> str:
    """As a person types it: whole floats without their fraction, nothing for NaN and None."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _escape_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and starts_formula(value) else value
