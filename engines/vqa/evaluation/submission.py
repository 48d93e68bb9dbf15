"""submission.csv: the answers of a challenge in the format of its sample submission.

All defects are reported before anything is written; the file is written atomically.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport, sample_submission, text_files
from datasets_mm.sources.fingerprint import SourceError
from engines.vqa.data.questions import SubmissionTemplate
from engines.vqa.evaluation.predictions import write_durable

LISTED_IDS: Final = 3
"""Ids that a message lists; the others are counted."""


class SubmissionError(ValueError):
    """An invalid submission; `problems` has one sentence per defect."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def read_sample(path: Path) -> SubmissionTemplate:
    """The columns and ids of sample_submission.csv.

    Raises:
        SubmissionError: it cannot be read, or is no sample submission.
    """
    table = _read_rows(path)
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
    if problems := _find_duplicates(ids, str(path)):
        raise SubmissionError(problems)
    capitals = sample_submission.has_capitals([row[1] for row in rows])
    return SubmissionTemplate((head[0], head[1]), ids, capitals)


def find_defects(answers: Mapping[str, str], sample: SubmissionTemplate) -> list[str]:
    """All defects of these letters by id as a submission of this sample."""
    sample_ids = set(sample.ids)
    defects = []
    if missing := [name for name in sample.ids if name not in answers]:
        defects.append(
            f"{_count(missing, 'id')} of the sample without an answer: {_list_ids(missing)}"
        )
    if strange := [name for name in answers if name not in sample_ids]:
        defects.append(f"{_count(strange, 'answer')} to no id of the sample: {_list_ids(strange)}")
    letters = sample.letters
    if wrong := [f"{k}={v!r}" for k, v in answers.items() if v not in letters]:
        defects.append(
            f"{_count(wrong, 'answer')} other than the letters {letters[0]} to {letters[-1]}: "
            f"{_list_ids(wrong)}"
        )
    return defects


def write_csv(path: Path, answers: Mapping[str, str], sample: SubmissionTemplate) -> bytes:
    """Write the submission in the order, columns and case of the sample; returns its bytes.

    Raises:
        SubmissionError: it would be invalid; nothing is written.
        OSError: the disk is full; nothing is left.
    """
    if sample.capitals:
        answers = {name: letter.upper() for name, letter in answers.items()}
    if defects := find_defects(answers, sample):
        raise SubmissionError(defects)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(sample.columns)
    out.writerows((name, answers[name]) for name in sample.ids)
    data = text.getvalue().encode("utf-8")
    if defects := _find_table_defects(_parse_rows(text.getvalue()), str(path), sample):
        raise SubmissionError(defects)  # for example, an id with a line break
    write_durable(path, data)
    return data


def check_file(path: Path, sample: SubmissionTemplate) -> list[str]:
    """All defects of a submission file against the sample; empty: it is valid.

    Raises:
        SubmissionError: it cannot be read.
    """
    return _find_table_defects(_read_rows(path), str(path), sample)


def _find_table_defects(
    table: Sequence[Sequence[str]], source: str, sample: SubmissionTemplate
) -> list[str]:
    head, *rows = table or [()]
    if tuple(head) != sample.columns:
        expected = ",".join(sample.columns)
        return [f"{source}: its columns are {','.join(head)!r}, those of the sample {expected!r}"]
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != 2]:
        return [f"{source}: line {wrong[0]} has not two columns"]
    ids = tuple(row[0] for row in rows)
    defects = _find_duplicates(ids, source) + find_defects({row[0]: row[1] for row in rows}, sample)
    if not defects and ids != sample.ids:
        line = next(n for n, (a, b) in enumerate(zip(ids, sample.ids, strict=True), 2) if a != b)
        defects.append(
            f"{source}: line {line} has id {ids[line - 2]} where the sample has "
            f"{sample.ids[line - 2]}; keep its order"
        )
    return defects


def _read_rows(path: Path) -> list[list[str]]:
    try:
        return _parse_rows(text_files.read_text(path, str(path), SourceReport()))
    except OSError as error:
        raise SubmissionError([f"{path}: cannot be read ({error.strerror})"]) from None
    except SourceError as error:
        raise SubmissionError([str(error)]) from None


def _parse_rows(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def _find_duplicates(ids: Sequence[str], source: str) -> list[str]:
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    return (
        [f"{source}: {_count(repeated, 'id')} more than once: {_list_ids(repeated)}"]
        if repeated
        else []
    )


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}"


def _list_ids(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_IDS} more" if len(names) > LISTED_IDS else ""
    return ", ".join(names[:LISTED_IDS]) + more
