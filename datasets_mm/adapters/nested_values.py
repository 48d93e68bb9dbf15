"""Values of a nested object by the dotted path of their keys; lists are read through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from datasets_mm.adapters.m2kr_fields import heading

BLOCKS: Final = frozenset({
    "info", "license", "licenses", "licence", "licences", "categories", "category", "dataset",
     "dataset_info", "copyright", "contributor", "taxonomy", "version",
})  # fmt: skip
"""Blocks about the data set: nothing in them is about a medium."""
DEPTH: Final = 4

Leaves = Mapping[str, list[Any]]
"""Dotted path of a key -> its values; lists are read through."""


def leaves(record: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """(dotted path, values) of all that is no object, outside of BLOCKS."""
    found: dict[str, list[Any]] = {}
    _collect(record, (), found)
    yield from found.items()


def _collect(record: Mapping[str, Any], path: tuple[str, ...], found: dict[str, list[Any]]) -> None:
    for key, value in record.items():
        name = heading(key)
        if name in BLOCKS or (name in {"description", "설명"} and isinstance(value, dict)):
            continue
        here = (*path, name)
        if isinstance(value, dict):
            if len(here) < DEPTH:
                _collect(value, here, found)
            continue
        objects = [item for item in value if isinstance(item, dict)] if type(value) is list else []
        for item in objects:
            if len(here) < DEPTH:
                _collect(item, here, found)
        if not objects:
            found.setdefault(".".join(here), []).extend(value if type(value) is list else [value])
        elif len(objects) < len(value):
            others = [item for item in value if not isinstance(item, dict)]
            found.setdefault(".".join(here), []).extend(others)


def lookup(record: Any, path: str) -> list[Any]:
    """Values under a dotted path as a recipe writes it; lists are read through."""
    found = [record]
    if isinstance(record, dict) and path in record:
        found, parts = [record[path]], []
    else:
        parts = path.split(".")
    for part in parts:
        found = [inner for value in found for inner in _under(value, part)]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]


def _under(value: Any, part: str) -> list[Any]:
    if isinstance(value, list):
        return [inner for item in value for inner in _under(item, part)]
    if not isinstance(value, dict):
        return []
    if part in value:
        return [value[part]]
    return [inner for key, inner in value.items() if heading(key) == heading(part)][:1]
