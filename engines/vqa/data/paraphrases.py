"""Paraphrases of training questions, from a table: one wording is drawn in every epoch.

Off unless a table is set. Held-out, evaluated and submitted questions keep their original wording.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from engines.emitter import EngineError
from engines.vqa.data.questions import Questions

KEYS: Final = ("data_id", "id", "question")
"""Columns that identify the question of a wording; the first that the table has is used."""
WORDING: Final = "paraphrase"
LONGEST: Final = 4_000
"""Most characters of a wording; longer ones are dropped."""


def add_paraphrases(questions: Questions, path: str) -> tuple[Questions, str]:
    """The questions with the wordings of a table, and a fact for the record.

    Raises:
        EngineError: the table cannot be read, or has none of the questions.
    """
    table_path = Path(path).expanduser()
    try:
        key, table = read_table(table_path)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise EngineError(f"paraphrases: {table_path}: {reason}; {FORM}") from None
    names = questions.texts if key == "question" else questions.ids
    wordings = [
        tuple(dict.fromkeys([text, *table.get(name.strip(), ())]))
        for name, text in zip(names, questions.texts, strict=True)
    ]
    more = [len(texts) - 1 for texts in wordings if len(texts) > 1]
    if not more:
        raise EngineError(
            f"paraphrases: {table_path}: its `{key}` names none of the {len(questions)} training "
            f"questions; {FORM}"
        )
    digest = hashlib.blake2b(repr(wordings).encode(), digest_size=6).hexdigest()
    fact = (
        f"{len(more):,} of {len(questions):,} training questions have {_describe_range(more)} more "
        f"wordings, one drawn by question and epoch; table {digest}"
    )
    return replace(questions, wordings=wordings), fact


FORM: Final = (
    f"it is CSV or JSON lines with the columns `{WORDING}` and one of {', '.join(KEYS)}; "
    "`workbench data paraphrase` writes one with a local model"
)


def _describe_range(counts: list[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def read_table(path: Path) -> tuple[str, dict[str, list[str]]]:
    """The column that identifies questions, and the wordings by its values.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no table of paraphrases; the message is a clause.
    """
    key, wordings = "", dict[str, list[str]]()
    for number, row in enumerate(_iterate_rows(path), 1):
        key = key or next((name for name in KEYS if name in row), "")
        if not key or WORDING not in row:
            lacking = f"`{WORDING}`" if key else "a column that names the question"
            raise ValueError(f"row {number} lacks {lacking}")
        texts = row[WORDING] if isinstance(row[WORDING], list) else [row[WORDING]]
        for text in texts:
            words = " ".join(str(text or "").split())
            if words and len(words) <= LONGEST:
                wordings.setdefault(str(row.get(key, "")).strip(), []).append(words)
    if not wordings:
        raise ValueError("it has no wording")
    return key, wordings


def _iterate_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() in (".jsonl", ".json"):
            for line in filter(str.strip, file):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is no JSON object")
                yield row
        else:
            yield from csv.DictReader(file)
