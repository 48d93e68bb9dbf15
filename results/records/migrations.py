"""Old lines of results.jsonl in today's shape, on reading; the file itself is never rewritten.

Apart from the schema, which describes only the present. A change that loses or renames a field
raises `schema.SCHEMA` and adds one function here: it takes a dictionary of version n and returns
one of version n + 1. Sample lines of every version ever written are kept in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from results.records.schema import SCHEMA

Raw = dict[str, Any]

STEPS: Final[Mapping[int, Callable[[Raw], Raw]]] = {}
"""Version n -> the function that makes version n + 1. Empty: version 1 is the first."""


class NewerSchema(ValueError):  # noqa: N818 - it names what was met, not a fault
    """A later version of the workbench wrote this; guessing at it would falsify numbers."""


def version(line: Raw) -> int:
    """The schema number of a line.

    Raises:
        ValueError: it has none, or one that no version ever had.
    """
    number = line.get("schema")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError("no schema number")
    return number


def upgrade(
    line: Raw, steps: Mapping[int, Callable[[Raw], Raw]] = STEPS, newest: int = SCHEMA
) -> Raw:
    """The line in version `newest`.

    Raises:
        NewerSchema: the line is of a later version.
        ValueError: it has no schema number.
    """
    number = version(line)
    if number > newest:
        raise NewerSchema(f"schema {number}, and this workbench reads up to {newest}")
    while number < newest:
        line = {**steps[number](line), "schema": number + 1}
        number += 1
    return line
