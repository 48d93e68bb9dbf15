"""Translation of the messages of engines, warden and recipes into the language of a report.

Records hold English sentences with names and numbers in them. `text/lang/messages.ko.toml` and
`text/lang/errors.ko.toml` pair their templates with Korean ones; a sentence without a template
stays as it is.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from results.records import published_runs
from results.records.schema import Reading, RunRecord
from results.text.particles import KoreanTemplate
from results.text.table import Table, TableCell
from results.text.translations import LANGS

GROUPS: Final = (
    "findings", "notices", "reasons", "methods", "facts", "recipes", "data", "plan", "oddities",
    "errors",
)  # fmt: skip
_EXPERIMENT: Final = "experiment "
"""How a finding begins that `workbench experiment` noted; people's own are left as they are."""
_DEPTH: Final = 3
"""A sentence inside a sentence inside a sentence."""
_CODE: Final = re.compile(r"([a-z][a-z0-9-]*): (.+)", re.DOTALL)
"""A notice as records hold it: its code, then its text."""
_PLACE: Final = re.compile(r"(\{[#?]?\})")


def localize(text: str, lang: str) -> str:
    """The sentence in that language, the sentences inside it too; unchanged where it is unknown.

    Of several templates that fit, the one counts whose own letters, and those of the templates of
    its parts, are most of the sentence.
    """
    return text if lang == "en" else _translate(text, lang, 0)[0]


@functools.lru_cache(maxsize=4096)
def _translate(text: str, lang: str, depth: int) -> tuple[str, int]:
    """The sentence in that language, and how many of its letters are those of templates."""
    best, most = text, 0
    for pattern, template, letters in _load_phrases(lang) if text else ():
        if match := pattern.fullmatch(text):
            inner = [(part, 0) for part in match.groups()]
            if depth < _DEPTH:
                inner = [_translate(part, lang, depth + 1) for part in match.groups()]
            count = letters + sum(score for _, score in inner)
            if count > most:
                best, most = template.format(*(part for part, _ in inner)), count
    if most or depth >= _DEPTH:
        return best, most
    for separator in ("; ", ", "):
        if separator in text:
            parts = [_translate(part, lang, depth + 1) for part in text.split(separator)]
            if count := sum(score for _, score in parts):
                return separator.replace(";", ",").join(part for part, _ in parts), count
    return text, 0


def localize_fact_name(key: str, lang: str) -> str:
    """Title of a fact."""
    return key if lang == "en" else str(_load_table(lang)["names"].get(key, key))


def localize_notice(text: str, lang: str) -> str:
    """A notice, `code: text`; the code stays."""
    match = _CODE.fullmatch(text)
    return f"{match[1]}: {localize(match[2], lang)}" if match else localize(text, lang)


def localize_findings(notes: Mapping[str, Sequence[str]], lang: str) -> dict[str, tuple[str, ...]]:
    """Notes by run, with what experiments found in that language."""
    return {
        run: tuple(localize(t, lang) if t.startswith(_EXPERIMENT) else t for t in texts)
        for run, texts in notes.items()
    }


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
        "metrics": metrics,
        "notices": tuple(localize_notice(text, lang) for text in record.notices),
        "exit": ended,
        "environment": machine.model_copy(
            update={"gpu_reason": localize(machine.gpu_reason, lang)}
        ),
    }
    localized: RunRecord = _localize_readings(record.model_copy(update=update), lang)
    return localized


def _localize_readings(part: Any, lang: str) -> Any:
    """A part of a record with the texts of its readings, and of its own parts, in that language."""
    if isinstance(part, Reading):
        return _localize_reading(part, lang)
    if isinstance(part, tuple):
        return tuple(_localize_readings(each, lang) for each in part)
    if not isinstance(part, BaseModel):
        return part
    inner = {
        key: _localize_readings(value, lang)
        for key, value in part
        if isinstance(value, BaseModel | tuple)
    }
    return part.model_copy(update=inner)


def _localize_reading(reading: Reading, lang: str) -> Reading:
    method = reading.method
    if not method.startswith("forecast"):
        method = localize(method, lang)
    return reading.model_copy(update={"reason": localize(reading.reason, lang), "method": method})


@functools.cache
def _load_phrases(lang: str) -> list[tuple[re.Pattern[str], str, int]]:
    """Pattern, template and own letters of each; those with most letters first."""
    pairs = [pair for group in GROUPS for pair in _load_table(lang)[group]]
    phrases = [
        (
            _compile_pattern(english),
            KoreanTemplate(other) if lang == "ko" else other,
            len(_PLACE.sub("", english)),
        )
        for english, other in pairs
    ]
    return sorted(phrases, key=lambda phrase: -phrase[2])


def _compile_pattern(template: str) -> re.Pattern[str]:
    """`{}` is any text, as short as it can be, `{?}` also none; `{#}` is a number."""
    parts = _PLACE.split(template)
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
