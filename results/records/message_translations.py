"""Translation of the messages of engines, warden and recipes into the language of a report.

Records hold English sentences with names and numbers in them. `text/lang/messages.ko.toml` and
`text/lang/errors.ko.toml` pair their templates with Korean ones; a sentence without a template
stays as it is.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from results.records import published_runs
from results.records.schema import Reading, RunRecord
from results.text.particles import KoreanTemplate
from results.text.table import Table, TableCell
from results.text.translations import LANGS

GROUPS: Final = (
    "notices", "reasons", "methods", "facts", "recipes", "data", "plan", "oddities", "errors",
)  # fmt: skip
_DEPTH: Final = 3
"""A sentence inside a sentence inside a sentence."""
_CODE: Final = re.compile(r"([a-z][a-z0-9-]*): (.+)", re.DOTALL)
"""A notice as records hold it: its code, then its text."""


def localize(text: str, lang: str, depth: int = 0) -> str:
    """The sentence in that language, the sentences inside it too; unchanged where it is unknown."""
    if lang == "en" or not text:
        return text
    for pattern, template in _load_phrases(lang):
        if match := pattern.fullmatch(text):
            inner = match.groups()
            if depth < _DEPTH:
                inner = tuple(localize(part, lang, depth + 1) for part in inner)
            return template.format(*inner)
    for separator in ("; ", ", "):
        if separator in text and depth < _DEPTH:
            parts = text.split(separator)
            translated = [localize(part, lang, depth + 1) for part in parts]
            if translated != parts:
                return separator.replace(";", ",").join(translated)
    return text


def localize_fact_name(key: str, lang: str) -> str:
    """Title of a fact."""
    return key if lang == "en" else str(_load_table(lang)["names"].get(key, key))


def localize_notice(text: str, lang: str) -> str:
    """A notice, `code: text`; the code stays."""
    match = _CODE.fullmatch(text)
    return f"{match[1]}: {localize(match[2], lang)}" if match else localize(text, lang)


def localize_records(records: Sequence[RunRecord], lang: str) -> tuple[RunRecord, ...]:
    """The records with every reason, method and notice in that language; facts stay.

    Facts are read by tables, and a method that begins with `forecast` marks a number: both stay.
    """
    return (
        tuple(records)
        if lang == "en"
        else tuple(_localize_record(record, lang) for record in records)
    )


def _localize_record(record: RunRecord, lang: str) -> RunRecord:
    metrics = tuple(
        m.model_copy(update={"method": localize(m.method, lang)}) for m in record.metrics
    )
    machine, ended = record.environment, record.exit
    if not published_runs.is_imported(record):  # whose detail is what marks it
        ended = ended.model_copy(update={"detail": localize(ended.detail, lang)})
    update: dict[str, Any] = {
        "timing": _localize_readings(record.timing, lang),
        "memory": _localize_readings(record.memory, lang),
        "energy": _localize_readings(record.energy, lang),
        "metrics": metrics,
        "notices": tuple(localize_notice(text, lang) for text in record.notices),
        "exit": ended,
        "environment": machine.model_copy(
            update={"gpu_reason": localize(machine.gpu_reason, lang)}
        ),
    }
    for part in ("forecast", "fit"):
        value = getattr(record, part)
        update[part] = _localize_readings(value, lang) if value is not None else None
    return record.model_copy(update=update)


def _localize_readings(part: Any, lang: str) -> Any:
    """A part of a record with the texts of its readings in that language."""
    update = {
        key: _localize_reading(value, lang) for key, value in part if isinstance(value, Reading)
    }
    return part.model_copy(update=update)


def _localize_reading(reading: Reading, lang: str) -> Reading:
    method = reading.method
    if not method.startswith("forecast"):
        method = localize(method, lang)
    return reading.model_copy(update={"reason": localize(reading.reason, lang), "method": method})


@functools.cache
def _load_phrases(lang: str) -> list[tuple[re.Pattern[str], str]]:
    return [
        (_compile_pattern(english), KoreanTemplate(other) if lang == "ko" else other)
        for group in GROUPS
        for english, other in _load_table(lang)[group]
    ]


def _compile_pattern(template: str) -> re.Pattern[str]:
    """`{}` is any text, as short as it can be, `{?}` also none; `{#}` is a number."""
    parts = re.split(r"(\{[#?]?\})", template)
    kinds = {"{}": "(.+?)", "{?}": "(.*?)", "{#}": r"([-+]?\d[\d.,]*(?: ?%)?)"}
    return re.compile("".join(kinds.get(part) or re.escape(part) for part in parts), re.DOTALL)


@functools.cache
def _load_table(lang: str) -> dict[str, Any]:
    if lang not in LANGS:
        raise KeyError(lang)
    folder = Path(__file__).parents[1] / "text" / "lang"
    names = (f"messages.{lang}.toml", f"errors.{lang}.toml")
    read = [tomllib.loads((folder / name).read_text("utf-8")) for name in names]
    return {key: value for table in read for key, value in table.items()}


def localize_table(table: Table, lang: str) -> Table:
    """A table of `plan` or `data` with its headings, labels and remarks in that language.

    Code spans and the prose of people stay.
    """
    if lang == "en":
        return table

    def localize_cell(cell: TableCell) -> TableCell:
        if cell.kind in ("code", "prose"):
            return cell
        return cell._replace(text=localize(cell.text, lang))

    return Table(
        tuple(column._replace(title=localize(column.title, lang)) for column in table.columns),
        tuple(tuple(map(localize_cell, row)) for row in table.rows),
        tuple(map(localize_cell, table.remarks)),
    )
