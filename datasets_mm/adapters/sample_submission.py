"""The sample submission of a challenge: its columns, order of ids and case of letters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.storage import arrow_store


class SubmissionRow(Protocol):
    """A test row: its id, and where it is."""

    @property
    def id(self) -> str:
        """Of the row."""
        ...

    @property
    def position(self) -> str:
        """File and number of the row."""
        ...


@dataclass(frozen=True)
class SampleSubmission:
    """A sample submission as it is written."""

    name: str
    columns: tuple[str, str]
    """What its columns of ids and answers are called."""
    ids: tuple[str, ...]
    answers: Mapping[str, str]
    """Id -> its answer, in small letters: placeholders."""
    capitals: bool = False
    """Whether the letters of its answers are A to D."""


def has_capitals(answers: Iterable[str]) -> bool:
    """Whether the answers of a sample that are letters are A to D."""
    letters = {answer.strip() for answer in answers} & set("abcdABCD")
    return bool(letters) and all(letter.isupper() for letter in letters)


def write_submission(
    folder: Path, sample: SampleSubmission | None, rows: Sequence[SubmissionRow]
) -> None:
    """Keep the sample's columns and order of ids; without one those of the test rows.

    Raises:
        SourceError: its ids are not those of the test rows.
    """
    columns, ids = ["id", "answer"], [row.id for row in rows]
    if sample is not None:
        columns, ids = list(sample.columns), list(sample.ids)
        _check_ids(sample.name, ids, rows)
    case = {"capitals": True} if sample is not None and sample.capitals else {}
    text = json.dumps({"columns": columns, "ids": ids, **case}, ensure_ascii=False)
    (folder / arrow_store.SUBMISSION).write_text(text, "utf-8")


def _check_ids(name: str, ids: Sequence[str], rows: Sequence[SubmissionRow]) -> None:
    positions, unique = {row.id: row.position for row in rows}, frozenset(ids)
    repeated = len(ids) - len(unique)
    lacking = [position for row_id, position in positions.items() if row_id not in unique]
    beyond = [row_id for row_id in dict.fromkeys(ids) if row_id not in positions]
    clauses = [f"{len(lacking)} test rows are not in it (first: {lacking[0]})"] if lacking else []
    clauses += [f"{len(beyond)} of its ids are no test row (first: {beyond[0]})"] if beyond else []
    clauses += [f"{repeated} of its ids come twice"] if repeated else []
    if clauses:
        raise SourceError(f"{name}: {'; '.join(clauses)}; take both files from one download")
