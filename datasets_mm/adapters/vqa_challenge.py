"""Adapter for a VQA challenge of four-choice questions: train.csv, test.csv, sample_submission.csv.

A training row that cannot be used is skipped and counted, the first ones named by file and row. A
test row that cannot be answered raises SourceError, because the submission would lack a line. Rows
are numbered as a spreadsheet shows them, the heading being row 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.sample_submission import (
    SampleSubmission,
    has_capitals,
    write_submission,
)
from datasets_mm.adapters.text_damage import note_damage
from datasets_mm.adapters.text_files import (
    note_spreadsheet_errors,
    read_table,
    require_columns,
    require_readable,
)
from datasets_mm.child_messages import Progress
from datasets_mm.media_paths import INVISIBLE, clean_path
from datasets_mm.recipes.record_classes import LETTERS
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store

REVISION = 4

OPTION_LETTERS: Final = frozenset(LETTERS)
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "id": ("id", "data_id", "question_id"),
    "image": ("image", "image_path", "img_path", "path", "file_name", "filename"),
    "question": ("question", "질문"),
    **{letter: (letter, f"option_{letter}", f"choice_{letter}") for letter in LETTERS},
    "answer": ("answer", "label", "정답"),
    "kind": ("question_type", "type", "category"),
    "fifth": ("e", "option_e", "choice_e"),
}
"""Accepted names of each column, in upper or lower case; the first that exists is used."""
SHOWN: Final = 3
"""Rows that the refusal of a file names."""

NO_ID: Final = "row has no id"
NO_IMAGE: Final = "row names no picture"
NO_QUESTION: Final = "row has no question"
NO_OPTION: Final = "an option is empty (fill in all four)"
FIFTH_OPTION: Final = "the question has a fifth option (only a to d are read)"
NO_LETTER: Final = "the answer is not a, b, c or d (write the letter)"
CONFLICTING_ID: Final = "one id stands for different rows (give each its own)"
DUPLICATE_ROW: Final = "rows repeat another one and were read once"
EQUAL_OPTIONS: Final = "questions offer the same option twice"
NO_TEST_QUESTION: Final = "test rows have no question and were kept"
NO_LETTERS: Final = "answers of test rows are no letters: they count as not known"
PLACEHOLDERS: Final = (
    "answers of test rows are placeholders (all have the same answer, or that of the sample "
    "submission): they count as not known"
)
ONE_LETTER: Final = "rows all have the same answer"
LEAST_CONSTANT_ANSWERS: Final = 5
"""Rows from which on a constant answer is no coincidence: by chance in one of 256 files."""
SAMPLE_FORM: Final = (
    "answers of the sample submission are no letters: a submission is written with a to d, as the "
    "answers of train.csv are; look up what the challenge takes"
)
NO_SAMPLE: Final = "sample submission is not there: its columns are taken to be id and answer"


@dataclass(frozen=True, slots=True)
class ChallengeRow:
    """One question as the file has it; `problem`: why it cannot be used, "" if it can."""

    position: str
    id: str
    image: str
    question: str
    options: tuple[str, ...]
    answer: str
    kind: str
    problem: str = ""

    @property
    def title(self) -> str:
        """Where it is, and which one."""
        return f"{self.position} (id {self.id})" if self.id else self.position


def write(location: Location, folder: Path, progress: Progress) -> SourceReport:
    """Write one record for each usable question.

    Raises:
        SourceError: a file is no table of questions, is cut off, or a test row cannot be answered.
    """
    report = SourceReport()
    is_test = location.source.dataset == "test"
    rows: Sequence[ChallengeRow] = [
        row for path in location.records for row in _read_file(location, path, report)
    ]
    kept = _require_answerable(rows) if is_test else _select_usable(rows, report)
    for row in kept:
        note_damage((row.question, *row.options), row.title, report)
        if len(set(row.options)) < len(LETTERS):
            report.note(EQUAL_OPTIONS, row.title)
        if not row.question:
            report.note(NO_TEST_QUESTION, row.title)
    sample = _read_sample_submission(location, report) if is_test else None
    if is_test:
        write_submission(folder, sample, kept)
    kept = _resolve_answers(kept, sample, report, is_test=is_test)
    arrow_store.corpus_writer(folder).close()
    records = arrow_store.record_writer(folder, arrow_store.CHOICE_RECORD_SCHEMA)
    for row in kept:
        data_set = f"challenge.{row.kind}" if row.kind else "challenge"
        records.add(
            make_record(row.id, data_set, row.image, (row.question, row.options), row.answer)
        )
    records.close()
    arrow_store.sort_by(folder / "records.arrow", "data_id")
    report.content = arrow_store.content_digest(folder / "records.arrow")
    if (folder / arrow_store.SUBMISSION).is_file():
        report.content += "-" + arrow_store.file_digest(folder / arrow_store.SUBMISSION)
    progress(len(kept), len(rows), "rows")
    return report


def make_record(
    data_id: str,
    data_set: str,
    image: str,
    question_and_options: tuple[str, Sequence[str]],
    answer: str,
) -> dict[str, Any]:
    """Fields of a record with options. `answer`: letter, "" where not known.

    `data_set`: what the question belongs to; behind a dot its kind.
    """
    question, options = question_and_options
    lists = ("passage_id", "passage_image_path", "passage_text")
    return {name: [] for name in lists} | {
        "answer": [answer] if answer else [], "data_id": data_id, "dataset_id": data_set,
        "image_path": image, "instruction": "", "question": question, "options": list(options),
    }  # fmt: skip


def find_image_rows(location: Location, paths: Collection[str]) -> dict[str, str]:
    """Image path -> name of the first row with it, for messages about missing images."""
    report, images = SourceReport(), set(paths)
    rows: dict[str, str] = {}
    for path in location.records:
        for row in _read_file(location, path, report):
            if row.image in images:
                rows.setdefault(row.image, f"{row.title}: {row.image}")
    return rows


def _select_usable(rows: Sequence[ChallengeRow], report: SourceReport) -> list[ChallengeRow]:
    """Training rows without a problem, each id once."""
    by_id: dict[str, list[ChallengeRow]] = {}
    for row in rows:
        if row.problem:
            report.skip(row.problem, row.title)
        else:
            by_id.setdefault(row.id, []).append(row)
    kept = []
    for duplicates in by_id.values():
        if len({replace(row, position="") for row in duplicates}) > 1:
            # Any choice would depend on the file's order.
            for row in duplicates:
                report.skip(CONFLICTING_ID, row.title)
            continue
        for row in duplicates[1:]:
            report.note(DUPLICATE_ROW, row.title)
        kept.append(duplicates[0])
    return kept


def _require_answerable(rows: Sequence[ChallengeRow]) -> list[ChallengeRow]:
    """All rows of a test file.

    Raises:
        SourceError: one of them cannot be answered.
    """
    problems = [f"{row.title}: {row.problem}" for row in rows if row.problem]
    first: dict[str, ChallengeRow] = {}
    problems += [
        f"{row.position}: id {row.id} is also that of {first[row.id].position}"
        for row in rows
        if not row.problem and first.setdefault(row.id, row) is not row
    ]
    if problems:
        rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise SourceError(
            f"{len(problems)} of {len(rows)} test rows cannot be answered, and a submission needs "
            f"every one; mend them: {'; '.join(problems[:SHOWN])}{rest}"
        )
    return list(rows)


def _resolve_answers(
    rows: Sequence[ChallengeRow],
    sample: SampleSubmission | None,
    report: SourceReport,
    *,
    is_test: bool,
) -> list[ChallengeRow]:
    """Rows with their answers; placeholders of test rows are removed."""
    for row in rows:
        if row.answer and row.answer not in OPTION_LETTERS:
            report.note(NO_LETTERS, f"{row.title}: {row.answer[:20]!r}")
    kept = [row if row.answer in OPTION_LETTERS else replace(row, answer="") for row in rows]
    letters = [row.answer for row in kept if row.answer]
    is_constant = len(letters) > 1 and len(set(letters)) == 1
    is_sample = is_test and sample is not None and len(letters) >= LEAST_CONSTANT_ANSWERS and all(
        sample.answers.get(row.id, "") == row.answer for row in kept if row.answer
    )  # fmt: skip
    if is_test and (is_sample or (is_constant and len(letters) >= LEAST_CONSTANT_ANSWERS)):
        for row in kept:
            if row.answer:
                report.note(PLACEHOLDERS, row.title)
        return [replace(row, answer="") for row in kept]
    if is_constant:
        report.note(ONE_LETTER, f"{len(letters)} times {letters[0]}")
    return kept


# -- one file ----------------------------------------------------------------------------------


def _read_file(location: Location, path: Path, report: SourceReport) -> Iterator[ChallengeRow]:
    source = location.source
    is_test = source.dataset == "test"
    return _read_rows(path, location.name(path), report, is_test=is_test, encoding=source.encoding)


def _read_rows(
    path: Path, name: str, report: SourceReport, *, is_test: bool, encoding: str
) -> Iterator[ChallengeRow]:
    """Every row of a file, usable or not; blank lines are passed over."""
    optional = ("kind", "fifth", "answer") if is_test else ("kind", "fifth")
    needed = [key for key in COLUMNS if key not in optional]
    table = read_table(path, name, report, encoding)
    columns = table.find_columns(COLUMNS)
    require_columns(table, columns, needed)
    note_spreadsheet_errors(table, report)
    for line in table.rows:
        cells = line.cells
        values = {
            key: _clean_cell(cells[index]) for key, index in columns.items() if index < len(cells)
        }
        row = ChallengeRow(
            position=f"{name} row {line.number}",
            id=values.get("id", ""),
            image=clean_path(cells[columns["image"]]) if columns["image"] < len(cells) else "",
            question=values.get("question", ""),
            options=tuple(values.get(letter, "") for letter in LETTERS),
            answer=values.get("answer", "").lower(),
            kind=values.get("kind", ""),
        )
        fifth = FIFTH_OPTION if values.get("fifth") else ""
        problem = line.problem or fifth or _find_problem(row, is_test=is_test)
        yield replace(row, problem=problem)


def _find_problem(row: ChallengeRow, *, is_test: bool) -> str:
    """Why a row cannot be used; "": it can."""
    if not row.id:
        return NO_ID
    if not row.image:
        return NO_IMAGE
    if not row.question and not is_test:
        return NO_QUESTION
    if not all(row.options):
        return NO_OPTION
    if row.answer not in OPTION_LETTERS and not is_test:
        return NO_LETTER
    return ""


def _clean_cell(cell: str) -> str:
    """A cell in one line. "None" and "NA" stay: they may well be options."""
    return " ".join(cell.encode("utf-8", "replace").decode().strip(INVISIBLE).split())


def _read_sample_submission(location: Location, report: SourceReport) -> SampleSubmission | None:
    """The sample submission of the test rows; None: there is none."""
    if location.submission is None:
        report.note(NO_SAMPLE, location.source.submission or "sample_submission.csv")
        return None
    name = location.name(location.submission)
    table = read_table(location.submission, name, report, location.source.encoding)
    columns = table.find_columns(COLUMNS)
    require_columns(table, columns, ("id", "answer"))
    pairs = [
        (row.cells[columns["id"]], row.cells[columns["answer"]]) for row in require_readable(table)
    ]
    for row_id, answer in pairs:
        if _clean_cell(answer).lower() not in {"", *LETTERS}:
            report.note(SAMPLE_FORM, f"{_clean_cell(row_id)}: {_clean_cell(answer)[:20]!r}")
    return SampleSubmission(
        name=name,
        columns=(table.header[columns["id"]].strip(), table.header[columns["answer"]].strip()),
        ids=tuple(_clean_cell(name) for name, _ in pairs),
        answers={_clean_cell(name): _clean_cell(answer).lower() for name, answer in pairs},
        capitals=has_capitals(answer for _, answer in pairs),
    )
