"""Data frames of records: one row for each run, joined with its notes, for pandas and for files.

Columns are the fields of a record with dotted names (`model`, `seed`, `params.lr`, `exit.cause`,
`timing.step_median`, `memory.rss_main_peak`, `train.loss`); of the identity without its prefix.
A reading is its value, with `.low` and `.high` where it has an interval, and `.reason` where it was
not measured (the value is <NA> then). A metric is `recall@1@emoji_val`, with `.low`, `.high`, `.n`.
Times are in seconds, memory in bytes; `started` and `ended` are UTC. Columns have nullable types
(`string`, `Int64`, `Float64`, `boolean`); units stand in `frame.attrs["units"]`, in Parquet too.

Only this module loads pandas.
"""

from __future__ import annotations

import fnmatch
import functools
import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from results.atomic_files import atomic_path
from results.records.notes import RunNotes
from results.records.schema import RunRecord
from results.text import formats
from results.text.metric_names import split_name
from results.text.sanitize import starts_formula

if TYPE_CHECKING:
    from pandas import DataFrame

FORMATS: Final = (".csv", ".parquet", ".jsonl")
KEY: Final = ["suite", "run_id"]
_METRIC_FIELDS: Final = ("low", "high", "n")
_METRIC_COLUMNS: Final = (
    "split", "name", "value", "low", "high", "n", "method", "higher_is_better",
)  # fmt: skip
_RUN_FIELDS: Final = ("suite", "run_id", "label", "seed", "engine", "task", "subset", "model")
_TIMES: Final = {"started_wall": "started", "ended_wall": "ended"}
_UNITS: Final = {
    "seconds": "s", "step_median": "s", "step_p95": "s", "_first_step": "s", "_peak": "bytes",
    "bytes": "bytes", "samples_per_second": "samples/s",
    "samples_per_second_median": "samples/s", "energy.run": "J", "energy.per_sample": "J",
    "energy.power": "W", "tokens_per_second": "tokens/s", "model_flops_per_sample": "FLOP",
}  # fmt: skip
"""Unit by the end of a column's name."""


PARTNERS: Final = (".low", ".high", ".n", ".reason")
"""Endings of columns that a notebook shows in the cell of the column before the dot."""
MOST_ROWS: Final = 40
MOST_COLUMNS: Final = 20
"""Of a frame in a notebook; where there are more, those that are equal in all rows go first."""


class UnknownColumnError(LookupError):
    """No record has that column; the message names some that there are."""

    def __str__(self) -> str:
        return str(self.args[0])


def build_frame(
    records: Iterable[RunRecord], notes_of_run: Mapping[tuple[str, str], RunNotes] | None = None
) -> DataFrame:
    """A row for each record, in their order; `notes_of_run`: notes by (suite, run id)."""
    import pandas as pd

    rows = [_record_row(record) for record in records]
    phases = {name: "s" for row in rows for name in row if name.startswith("timing.phases.")}
    frame = set_types(rows, _UNITS | phases)
    if frame.empty:
        return set_types([dict.fromkeys(KEY, "")])[:0]
    notes = pd.DataFrame(
        [
            {"suite": suite, "run_id": run_id, "note.state": run_notes.state,
             "note.tags": " ".join(sorted(run_notes.tags)),
             "note.findings": "\n".join(run_notes.findings)}
            for (suite, run_id), run_notes in (notes_of_run or {}).items()
        ],
        columns=[*KEY, "note.state", "note.tags", "note.findings"],
    )  # fmt: skip
    if not len(notes):
        return frame
    merged = frame.merge(notes.astype("string"), on=KEY, how="left")
    merged.attrs.update(frame.attrs)
    return merged


def build_metric_frame(records: Iterable[RunRecord]) -> DataFrame:
    """A row for each metric of each record."""
    rows = []
    for record in records:
        identity = record.identity
        run = {name: getattr(identity, name) for name in _RUN_FIELDS}
        for metric in record.metrics:
            values = metric.model_dump(include=set(_METRIC_COLUMNS))
            row = {name: values[name] for name in _METRIC_COLUMNS}
            rows.append({**run, "metric": row.pop("name"), **row})
    return set_types(rows)


def build_item_frame(record: RunRecord, log_root: Path, split: str | None = None) -> DataFrame:
    """A row for each line of the record's score files; `split`: of this one only."""
    root = log_root.resolve()
    files = {m.scores_file: m.split for m in record.metrics if m.scores_file
             and split in (None, m.split) and not split_name(m.name).variant}  # fmt: skip
    rows = []
    for file, name in files.items():
        path = (root / record.folder / file).resolve()
        if path.is_relative_to(root) and path.is_file():
            # Texts may hold U+2028, which ends a line for `splitlines`.
            lines = path.read_text("utf-8").split("\n")
            rows += [{"split": name, **json.loads(line)} for line in lines if line.endswith("}")]
    return set_types(rows)


def set_types(
    rows: Iterable[Mapping[str, Any]], units: Mapping[str, str] | None = None
) -> DataFrame:
    """A frame of these rows with nullable types; columns of several types become text.

    `units`: unit by column, or by the end of its name (`seconds`); for `frame.attrs["units"]`.
    """
    import pandas as pd

    table = pd.DataFrame(list(rows))
    columns = {}
    for name in table.columns:
        column = table[name].convert_dtypes(dtype_backend="numpy_nullable")
        if column.isna().all():
            column = column.astype("Float64")
        elif column.dtype == object:
            column = table[name].map(_as_text, na_action="ignore").astype("string")
        if name in _TIMES:
            column = pd.to_datetime(column.astype("Float64") * 1e6, unit="us", utc=True)
            column = column.astype("datetime64[us, UTC]")
        columns[_TIMES.get(name, name)] = column
    frame = pd.DataFrame(columns)
    frame.attrs["units"] = {
        str(name): unit
        for name in frame.columns
        for ending, unit in (units or {}).items()
        if str(name).removesuffix(".low").removesuffix(".high").endswith(ending)
        and pd.api.types.is_numeric_dtype(frame[name])
    }
    return frame


@functools.cache
def notebook_class() -> type[DataFrame]:
    """The class of frames that a notebook shows as the terminal does; pandas' in all else."""
    import pandas as pd

    class ResultFrame(pd.DataFrame):
        @property
        def _constructor(self) -> Any:
            return ResultFrame

        def _repr_html_(self) -> str:
            return render_html(self)

    return ResultFrame


def render_html(frame: DataFrame) -> str:
    """The frame as an HTML table: values with interval, `n/a (reason)`, headings with unit."""
    import pandas as pd

    names = [name for name in map(str, frame.columns) if not _is_partner(name, frame)]
    if len(names) > MOST_COLUMNS and len(frame) > 1:
        names = [name for name in names if name in KEY or frame[name].nunique(dropna=False) > 1]
    shown, headings = names[:MOST_COLUMNS], _add_units(frame)
    right = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in shown}
    rows = [[headings.get(name, name) for name in shown]]
    rows += [[_notebook_cell(row, name) for name in shown]
             for row in frame.head(MOST_ROWS).to_dict("records")]  # fmt: skip
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = (
            f'<{tag} style="text-align:{"right" if right[name] else "left"}">{html.escape(text)}'
            f"</{tag}>"
            for name, text in zip(shown, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    hidden = sum(not _is_partner(str(name), frame) for name in frame.columns) - len(shown)
    note = f"{len(frame):,} rows" + (f"; {hidden} more columns" if hidden else "")
    return f"<table>{''.join(lines)}</table><p>{note}</p>"


def _is_partner(name: str, frame: DataFrame) -> bool:
    return any(name.endswith(e) and name.removesuffix(e) in frame.columns for e in PARTNERS)


def _notebook_cell(row: Mapping[Any, Any], name: str) -> str:
    """A value as a terminal's table has it."""
    import pandas as pd

    value = row[name]
    if pd.isna(value):
        reason = row.get(f"{name}.reason")
        return "n/a" if reason is None or pd.isna(reason) else f"n/a ({reason})"
    low, high = (row.get(f"{name}{end}") for end in (".low", ".high"))
    if isinstance(value, float) and not any(x is None or pd.isna(x) for x in (low, high)):
        return formats.interval(value, low, high, 4)
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and value > 999 else formats.number(value)
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return f"{value:,}" if type(value) is int else str(value)


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

    In CSV the heading of a column has its unit, `timing.step_median [s]`, since the file holds no
    other word of it, and a text that a spreadsheet would take for a formula gets an apostrophe.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the ending must be one of {', '.join(FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(path) as draft:
            if path.suffix == ".csv":
                headed = frame.map(_escape_text).rename(columns=_add_units(frame))
                headed.to_csv(draft, index=False)
            elif path.suffix == ".parquet":
                frame.to_parquet(draft, index=False)
            else:
                draft.write_text("".join(_json_lines(frame)), "utf-8")
    except OSError as error:
        error.filename = str(path)
        raise


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
        row[name] = value["value"]
        row |= {f"{name}.{key}": value[key] for key in ("low", "high") if value[key] is not None}
        if value["reason"]:
            row[f"{name}.reason"] = value["reason"]
    elif isinstance(value, dict):
        for key, inner in value.items():
            _flatten(row, f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        row[name] = _as_text(value)
    else:
        row[name] = value


def _require_columns(frame: DataFrame, columns: Sequence[str]) -> None:
    import difflib

    for column in columns:
        if column not in frame.columns:
            close = difflib.get_close_matches(column, map(str, frame.columns), n=3, cutoff=0.4)
            guess = f"; did you mean {', '.join(close)}?" if close else ""
            raise UnknownColumnError(f"no record has the column '{column}'{guess}")


def _as_text(value: Any) -> str:
    """As a person types it: whole floats without their fraction, lists with blanks between their
    items, nothing for NaN and None."""
    import pandas as pd

    if isinstance(value, list | tuple):
        return " ".join(map(_as_text, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _add_units(frame: DataFrame) -> dict[str, str]:
    """Heading with the unit by column, of those that have one."""
    units: Mapping[str, str] = frame.attrs.get("units", {})
    return {name: f"{name} [{unit}]" for name, unit in units.items() if name in frame.columns}


def _json_lines(frame: DataFrame) -> Iterator[str]:
    """A JSON object a row; pandas' own writer rounds to ten decimals: 1e-12 to 0."""
    for row in frame.astype(object).to_dict("records"):
        content = {str(name): _json_value(value) for name, value in row.items()}
        yield json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _json_value(value: Any) -> Any:
    """The value as JSON has it; null for what is missing or not finite."""
    import pandas as pd

    if isinstance(value, str | bool | int):
        return value
    if pd.isna(value) or value in (math.inf, -math.inf):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


def _escape_text(value: Any) -> Any:
    """A cell of CSV: a lone CR, which the writer does not quote and readers take for a row's end,
    becomes LF; a formula gets an apostrophe."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"\r\n?", "\n", value)
    return f"'{text}" if starts_formula(text) else text
