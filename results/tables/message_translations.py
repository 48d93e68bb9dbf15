"""What engines, warden and recipes say, in the language of a report.

Records hold English sentences with names and numbers in them. `lang/phrases.ko.toml` and
`lang/errors.ko.toml` have their templates beside the Korean ones; a sentence that neither knows
stays as it is.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from results.records.schema import Reading, RunRecord
from results.tables.table import Cell, Table
from results.text.translations import LANGS

GROUPS: Final = (
    "notices", "reasons", "methods", "facts", "recipes", "data", "plan", "oddities", "errors",
)  # fmt: skip
_DEPTH: Final = 3
"""A sentence inside a sentence inside a sentence."""
_CODE: Final = re.compile(r"([a-z][a-z0-9-]*): (.+)", re.DOTALL)
"""A notice as records hold it: its code, then its text."""


def localized(text: str, lang: str, depth: int = 0) -> str:
    """The sentence in that language, the sentences inside it too; unchanged where it is unknown."""
    if lang == "en" or not text:
        return text
    for pattern, template in _phrases(lang):
        if found := pattern.fullmatch(text):
            inner = found.groups()
            if depth < _DEPTH:
                inner = tuple(localized(part, lang, depth + 1) for part in inner)
            return template.format(*inner)
    for separator in ("; ", ", "):
        if separator in text and depth < _DEPTH:
            parts = text.split(separator)
            known = [localized(part, lang, depth + 1) for part in parts]
            if known != parts:
                return separator.replace(";", ",").join(known)
    return text


def name(key: str, lang: str) -> str:
    """What a fact is called."""
    return key if lang == "en" else str(_table(lang)["names"].get(key, key))


def notice(text: str, lang: str) -> str:
    """A notice, `code: text`; the code stays."""
    found = _CODE.fullmatch(text)
    return f"{found[1]}: {localized(found[2], lang)}" if found else localized(text, lang)


def records(found: Sequence[RunRecord], lang: str) -> tuple[RunRecord, ...]:
    """The records with every reason, method and notice in that language; facts stay.

    Facts are read by tables, and a method that begins with `forecast` marks a number: both stay.
    """
    return tuple(found) if lang == "en" else tuple(_record(record, lang) for record in found)


def _record(record: RunRecord, lang: str) -> RunRecord:
    metrics = tuple(
        m.model_copy(update={"method": localized(m.method, lang)}) for m in record.metrics
    )
    machine = record.environment
    update: dict[str, Any] = {
        "timing": _readings(record.timing, lang),
        "memory": _readings(record.memory, lang),
        "metrics": metrics,
        "notices": tuple(notice(text, lang) for text in record.notices),
        "exit": record.exit.model_copy(update={"detail": localized(record.exit.detail, lang)}),
        "environment": machine.model_copy(
            update={"gpu_reason": localized(machine.gpu_reason, lang)}
        ),
    }
    for part in ("forecast", "fit"):
        held = getattr(record, part)
        update[part] = _readings(held, lang) if held is not None else None
    return record.model_copy(update=update)


def _readings(part: Any, lang: str) -> Any:
    """A part of a record with the words of its readings in that language."""
    update = {key: _reading(held, lang) for key, held in part if isinstance(held, Reading)}
    return part.model_copy(update=update)


def _reading(held: Reading, lang: str) -> Reading:
    method = held.method
    if not method.startswith("forecast"):
        method = localized(method, lang)
    return held.model_copy(update={"reason": localized(held.reason, lang), "method": method})


@functools.cache
def _phrases(lang: str) -> list[tuple[re.Pattern[str], str]]:
    return [
        (_pattern(english), other) for group in GROUPS for english, other in _table(lang)[group]
    ]


def _pattern(template: str) -> re.Pattern[str]:
    """`{}` is any text, as short as it can be, `{?}` also none; `{#}` is a number."""
    parts = re.split(r"(\{[#?]?\})", template)
    kinds = {"{}": "(.+?)", "{?}": "(.*?)", "{#}": r"([-+]?\d[\d.,]*(?: ?%)?)"}
    return re.compile("".join(kinds.get(part) or re.escape(part) for part in parts), re.DOTALL)


@functools.cache
def _table(lang: str) -> dict[str, Any]:
    if lang not in LANGS:
        raise KeyError(lang)
    folder = Path(__file__).parents[1] / "text" / "lang"
    names = (f"phrases.{lang}.toml", f"errors.{lang}.toml")
    read = [tomllib.loads((folder / name).read_text("utf-8")) for name in names]
    return {key: value for table in read for key, value in table.items()}


def table(made: Table, lang: str) -> Table:
    """A table of `plan` or `data` with its headings, labels and remarks in that language.

    Code spans and the prose of people stay.
    """
    if lang == "en":
        return made

    def cell(one: Cell) -> Cell:
        if one.kind in ("code", "prose"):
            return one
        return one._replace(text=localized(one.text, lang))

    return Table(
        tuple(column._replace(title=localized(column.title, lang)) for column in made.columns),
        tuple(tuple(map(cell, row)) for row in made.rows),
        tuple(map(cell, made.remarks)),
    )
