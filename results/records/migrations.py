"""Migrations of old lines of results.jsonl to the current schema, on reading.

The file itself is never rewritten. A change that removes or renames a field raises `schema.SCHEMA`
and adds one function here, which takes a dictionary of version n and returns one of version n + 1.
Sample lines of every version ever written are kept in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from results.records.schema import SCHEMA

RawRecord = dict[str, Any]

MIGRATIONS: Final[Mapping[int, Callable[[RawRecord], RawRecord]]] = {}
"""Version n -> the function that makes version n + 1. Empty: version 1 is the first."""


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
