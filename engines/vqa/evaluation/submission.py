"""submission.csv: the answers of a challenge, in the form that its sample asks for, or no file.

What is wrong is said before anything is written, every defect in a sentence of its own; the file
then appears whole, by a rename.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport, text_files
from datasets_mm.sources.fingerprint import SourceError
from engines.vqa.data.questions import LETTERS, Sample
from engines.vqa.evaluation.predictions import replace

NAMED: Final = 3
"""Ids that a sentence names; the others are counted."""


class SubmissionError(ValueError):
    """A submission that cannot be; `problems` has one sentence for each defect."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def read_sample(path: Path) -> Sample:
    """The columns and ids of sample_submission.csv.

    Raises:
        SubmissionError: it cannot be read or is no such sample.
    """
    table = _read(path)
    if not table or len(table[0]) != 2:
        count = len(table[0]) if table else 0
        raise SubmissionError(
            [f"{path}: the first line has {count} columns; a sample has two, id and answer"]
        )
    head, *rows = table
    short = [number for number, row in enumerate(rows, 2) if len(row) != 2]
    if short:
        raise SubmissionError([f"{path}: line {short[0]} has not two columns"])
    ids = tuple(row[0] for row in rows)
    if problems := _twice(ids, str(path)):
        raise SubmissionError(problems)
    return Sample((head[0], head[1]), ids)


def problems(answers: Mapping[str, str], sample: Sample) -> list[str]:
    """Every reason why these letters by id are no submission of this sample."""
    wanted = set(sample.ids)
    found = []
    if missing := [name for name in sample.ids if name not in answers]:
        found.append(f"{_count(missing, 'id')} of the sample without an answer: {_named(missing)}")
    if strange := [name for name in answers if name not in wanted]:
        found.append(f"{_count(strange, 'answer')} to no id of the sample: {_named(strange)}")
    if wrong := [f"{k}={v!r}" for k, v in answers.items() if v not in tuple(LETTERS)]:
        found.append(f"{_count(wrong, 'answer')} other than the letters a to d: {_named(wrong)}")
    return found


def write(path: Path, answers: Mapping[str, str], sample: Sample) -> bytes:
    """Write the submission in the sample's order and columns; returns what was written.

    Raises:
        SubmissionError: it would not be one; nothing is written.
        OSError: the disk is full; nothing is left.
    """
    if found := problems(answers, sample):
        raise SubmissionError(found)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(sample.columns)
    out.writerows((name, answers[name]) for name in sample.ids)
    data = text.getvalue().encode("utf-8")
    if found := _defects(_rows(text.getvalue()), str(path), sample):
        raise SubmissionError(found)  # an id with a line break in it, say
    replace(path, data)
    return data


def check(path: Path, sample: Sample) -> list[str]:
    """Every defect of a submission file, from anywhere, against the sample; none: it is valid.

    Raises:
        SubmissionError: it cannot be read at all.
    """
    return _defects(_read(path), str(path), sample)


def _defects(table: Sequence[Sequence[str]], place: str, sample: Sample) -> list[str]:
    head, *rows = table or [()]
    if tuple(head) != sample.columns:
        wanted = ",".join(sample.columns)
        return [f"{place}: its columns are {','.join(head)!r}, those of the sample {wanted!r}"]
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != 2]:
        return [f"{place}: line {wrong[0]} has not two columns"]
    ids = tuple(row[0] for row in rows)
    found = _twice(ids, place) + problems({row[0]: row[1] for row in rows}, sample)
    if not found and ids != sample.ids:
        line = next(n for n, (a, b) in enumerate(zip(ids, sample.ids, strict=True), 2) if a != b)
        found.append(
            f"{place}: line {line} has id {ids[line - 2]} where the sample has "
            f"{sample.ids[line - 2]}; keep its order"
        )
    return found


def _read(path: Path) -> list[list[str]]:
    try:
        return _rows(text_files.read_text(path, str(path), SourceReport()))
    except OSError as error:
        raise SubmissionError([f"{path}: cannot be read ({error.strerror})"]) from None
    except SourceError as error:
        raise SubmissionError([str(error)]) from None


def _rows(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def _twice(ids: Sequence[str], place: str) -> list[str]:
    again = [name for name, count in Counter(ids).items() if count > 1]
    return [f"{place}: {_count(again, 'id')} more than once: {_named(again)}"] if again else []


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' * (len(names) != 1)}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
