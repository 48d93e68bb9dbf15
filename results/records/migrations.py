"""Migrations of old lines of results.jsonl to the current schema, on reading.

The file itself is never rewritten. A change that removes or renames a field raises `schema.SCHEMA`
and adds one function here, which takes a dictionary of version n and returns one of version n + 1.
Sample lines of every version ever written are kept in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from results.records.schema import SCHEMA
from results.text.renamed_words import rename_keys, rename_plan_keys

RawRecord = dict[str, Any]


def _rename_settings(line: RawRecord) -> RawRecord:
    """Version 1 to 2: settings, and `until` of a forecast, by their present names."""
    identity = _replace(line.get("identity"), "params", rename_keys)
    identity = _replace(identity, "trial", lambda trial: _replace(trial, "settings", rename_keys))
    line = _replace(line, "identity", lambda _: identity)
    line = _replace(line, "forecast", rename_plan_keys)
    renamed: RawRecord = _replace(_replace(line, "facts", rename_keys), "origins", rename_keys)
    return renamed


def _replace(table: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """The table with another value of `key`; as it is without that key, or if it is no table."""
    if not isinstance(table, dict) or key not in table:
        return table
    return {**table, key: change(table[key])}


MIGRATIONS: Final[Mapping[int, Callable[[RawRecord], RawRecord]]] = {1: _rename_settings}
"""Version n -> the function that makes version n + 1."""


class NewerSchemaError(ValueError):
    """A later version of the workbench wrote this; guessing at it would falsify numbers."""


def schema_version(line: RawRecord) -> int:
    """The schema number of a line.

    Raises:
        ValueError: it has none, or one that no version ever had.
    """
    number = line.get("schema")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError("no schema number")
    return number


def migrate(
    line: RawRecord,
    steps: Mapping[int, Callable[[RawRecord], RawRecord]] = MIGRATIONS,
    newest: int = SCHEMA,
) -> RawRecord:
    """The line in version `newest`.

    Raises:
        NewerSchemaError: the line is of a later version.
        ValueError: it has no schema number.
    """
    number = schema_version(line)
    if number > newest:
        raise NewerSchemaError(f"schema {number}, and this workbench reads up to {newest}")
    while number < newest:
        line = {**steps[number](line), "schema": number + 1}
        number += 1
    return line
