"""Other wordings of questions, from a table: training shows one of them, drawn anew in every epoch.

Off unless a table is named. Only training questions are worded anew: what is held out, evaluated or
submitted is asked as the data ask it.
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
"""Columns that say which question a wording is of; the first that the table has."""
WORDING: Final = "paraphrase"
LONGEST: Final = 4_000
"""Characters of a wording; a longer one is no question."""


def applied(asked: Questions, path: str) -> tuple[Questions, str]:
    """The questions with the wordings that a table has of them, and a sentence for the record.

    Raises:
        EngineError: the table cannot be read, or knows none of the questions.
    """
    place = Path(path).expanduser()
    try:
        key, found = read(place)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise EngineError(f"paraphrases: {place}: {reason}; {FORM}") from None
    names = asked.texts if key == "question" else asked.ids
    wordings = [
        tuple(dict.fromkeys([text, *found.get(name.strip(), ())]))
        for name, text in zip(names, asked.texts, strict=True)
    ]
    more = [len(some) - 1 for some in wordings if len(some) > 1]
    if not more:
        raise EngineError(
            f"paraphrases: {place}: its `{key}` names none of the {len(asked)} training questions; "
            f"{FORM}"
        )
    mark = hashlib.blake2b(repr(wordings).encode(), digest_size=6).hexdigest()
    said = (
        f"{len(more):,} of {len(asked):,} training questions have {_span(more)} more wordings, one "
        f"drawn by question and epoch; table {mark}"
    )
    return replace(asked, wordings=wordings), said


FORM: Final = (
    f"it is CSV or JSON lines with the columns `{WORDING}` and one of {', '.join(KEYS)}; "
    "`workbench data paraphrase` writes one with a local model"
)


def _span(counts: list[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def read(path: Path) -> tuple[str, dict[str, list[str]]]:
    """Which column names the question, and the wordings of each.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no table of paraphrases; half a sentence.
    """
    key, found = "", dict[str, list[str]]()
    for number, row in enumerate(_rows(path), 1):
        key = key or next((name for name in KEYS if name in row), "")
        if not key or WORDING not in row:
            lacking = f"`{WORDING}`" if key else "a column that names the question"
            raise ValueError(f"row {number} lacks {lacking}")
        texts = row[WORDING] if isinstance(row[WORDING], list) else [row[WORDING]]
        for text in texts:
            words = " ".join(str(text or "").split())
            if words and len(words) <= LONGEST:
                found.setdefault(str(row.get(key, "")).strip(), []).append(words)
    if not found:
        raise ValueError("it has no wording")
    return key, found


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() in (".jsonl", ".json"):
            for line in filter(str.strip, file):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is no JSON object")
                yield row
        else:
            yield from csv.DictReader(file)
