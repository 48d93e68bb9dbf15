"""Values of a nested object by the dotted path of their keys; lists are read through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from datasets_mm.adapters.m2kr_fields import normalize_name

BLOCKS: Final = frozenset({
    "info", "license", "licenses", "licence", "licences", "categories", "category", "dataset",
     "dataset_info", "copyright", "contributor", "taxonomy", "version",
})  # fmt: skip
"""Blocks about the data set: nothing in them is about a medium."""
DEPTH: Final = 4

Leaves = Mapping[str, list[Any]]
"""Dotted path of a key -> its values; lists are read through."""


def flatten(record: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """(dotted path, values) of all leaves, outside of BLOCKS."""
    values: dict[str, list[Any]] = {}
    _collect_leaves(record, (), values)
    yield from values.items()


def _collect_leaves(
    record: Mapping[str, Any], path: tuple[str, ...], leaves: dict[str, list[Any]]
) -> None:
    for key, value in record.items():
        name = normalize_name(key)
        if name in BLOCKS or (name in {"description", "설명"} and isinstance(value, dict)):
            continue
        inner_path = (*path, name)
        if isinstance(value, dict):
            if len(inner_path) < DEPTH:
                _collect_leaves(value, inner_path, leaves)
            continue
        objects = [item for item in value if isinstance(item, dict)] if type(value) is list else []
        for item in objects:
            if len(inner_path) < DEPTH:
                _collect_leaves(item, inner_path, leaves)
        if not objects:
            leaves.setdefault(".".join(inner_path), []).extend(
                value if type(value) is list else [value]
            )
        elif len(objects) < len(value):
            others = [item for item in value if not isinstance(item, dict)]
            leaves.setdefault(".".join(inner_path), []).extend(others)


def lookup(record: Any, path: str) -> list[Any]:
    """Values under a dotted path as a recipe writes it; lists are read through."""
    values = [record]
    if isinstance(record, dict) and path in record:
        values, parts = [record[path]], []
    else:
        parts = path.split(".")
    for part in parts:
        values = [inner for value in values for inner in _values_of_key(value, part)]
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _values_of_key(value: Any, part: str) -> list[Any]:
    if isinstance(value, list):
        return [inner for item in value for inner in _values_of_key(item, part)]
    if not isinstance(value, dict):
        return []
    if part in value:
        return [value[part]]
    return [inner for key, inner in value.items() if normalize_name(key) == normalize_name(part)][
        :1
    ]
