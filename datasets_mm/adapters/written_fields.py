"""How M2KR's fields are written in a file, counted while an adapter reads it.

A built table no longer tells null from "NA" or a missing key: all are "". `data describe` and
`data check` report them as they were written, from the counts in the source's manifest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from datasets_mm.adapters import m2kr_fields
from datasets_mm.adapters.m2kr_fields import ABSENT
from datasets_mm.recipes.recipe import FIELDS

LONGEST_ABSENT: Final = 8
"""Characters, blanks included. Longer texts are not compared with the words for absent values."""
MAX_POSITIONS: Final = 5
"""Positions that are stored for each field with missing or unfilled values."""
_NO_KEY: Final = object()
_TEXT_ONLY: Final = {str}


@dataclass
class WrittenField:
    """Counts of records by how they write one field; see `profile.FieldProfile`."""

    types: Counter[str] = field(default_factory=Counter)
    no_key: int = 0
    null: int = 0
    stated_na: int = 0
    empty: int = 0
    elements: int = 0
    elements_absent: int = 0

    def add_text(self, text: str) -> bool:
        """Count a text. True: it says that there is no value."""
        self.types["text"] += 1
        if len(text) > LONGEST_ABSENT and not text.isspace():
            return False
        is_absent = text.strip().lower() in ABSENT
        if is_absent:
            self._count_absent(text)
        return is_absent

    def add_list(self, values: list[Any], *, is_verbatim: bool) -> bool:
        """Count a list. True: it is empty, or elements are absent.

        `is_verbatim`: "none" and "NA" are values (answers); only blanks are absent.
        """
        self.elements += len(values)
        kinds = set(map(type, values))
        self.types[_list_type(kinds)] += 1
        if not values:
            self.empty += 1
            return True
        texts = values
        if kinds != _TEXT_ONLY:
            read = m2kr_fields.answer_text if is_verbatim else m2kr_fields.scalar_text
            texts = list(map(read, values))
        if min(map(len, texts)) > LONGEST_ABSENT:
            return False
        words = {""} if is_verbatim else ABSENT
        absent = sum(len(t) <= LONGEST_ABSENT and t.strip().lower() in words for t in texts)
        self.elements_absent += absent
        if absent == len(texts):
            self._count_absent(values[0])
        return bool(absent)

    def add_other(self, value: Any) -> bool:
        """Count a value that is neither text nor list. True: it is null or NaN."""
        self.types[type_name(value)] += 1
        is_null = value is None or (isinstance(value, float) and math.isnan(value))
        self.null += is_null
        return is_null

    def _count_absent(self, value: Any) -> None:
        if not isinstance(value, str):
            self.null += 1
        elif value.strip():
            self.stated_na += 1
        else:
            self.empty += 1


@dataclass
class WrittenFields:
    """Counts over all records of a source, those that are skipped among them."""

    records: int = 0
    fields: dict[str, WrittenField] = field(
        default_factory=lambda: {name: WrittenField() for name in FIELDS}
    )
    other_fields: Counter[str] = field(default_factory=Counter)
    """Keys beside M2KR's nine -> records that have them."""
    positions: dict[str, list[str]] = field(default_factory=dict)
    """`<field> missing` or `<field> not filled` -> positions of the first such records."""

    def add(self, line: Mapping[str, Any], position: str) -> None:
        """Count the fields of one record."""
        self.records += 1
        line = m2kr_fields.normalize_keys(line)
        for name, column in self.fields.items():
            value = line.get(name, _NO_KEY)
            if type(value) is str:
                problem = "not filled" if column.add_text(value) else ""
            elif type(value) is list:
                is_verbatim = name == "answer"
                problem = "not filled" if column.add_list(value, is_verbatim=is_verbatim) else ""
            elif value is _NO_KEY:
                column.no_key += 1
                problem = "missing"
            else:
                problem = "missing" if column.add_other(value) else ""
            if problem:
                self._add_position(f"{name} {problem}", position)
        if len(line) > len(FIELDS) or not line.keys() <= self.fields.keys():
            self.other_fields.update(str(key) for key in line.keys() - self.fields.keys())

    def _add_position(self, problem: str, position: str) -> None:
        positions = self.positions.setdefault(problem, [])
        if len(positions) < MAX_POSITIONS:
            positions.append(position)

    def content(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        return {
            "records": self.records,
            "fields": {
                name: {**vars(column), "types": dict(column.types.most_common())}
                for name, column in self.fields.items()
            },
            "other_fields": dict(self.other_fields.most_common()),
            "positions": self.positions,
        }


def type_name(value: Any) -> str:
    """Name of a JSON type, for people."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    names = {str: "text", bool: "boolean", dict: "object", list: "list", type(None): "null"}
    return names.get(type(value), "number")


def _list_type(kinds: set[type]) -> str:
    if kinds == _TEXT_ONLY:
        return "list of text"
    if not kinds:
        return "empty list"
    names = {str: "text", dict: "object", list: "list", type(None): "null", bool: "boolean"}
    inner = sorted({names.get(kind, "number") for kind in kinds})
    return f"list of {' and '.join(inner)}"
