"""Reads a VQA challenge: train.csv, test.csv and sample_submission.csv of four-choice questions.

A training row that cannot be used is left out, counted and named by file and row. A test row that
cannot be answered refuses the file: a submission without it would be short of a line, and that
would be known only when it is too late. Rows are counted as a spreadsheet shows them, the heading
being row 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.sample_submission import Sample, write_submission
from datasets_mm.adapters.text_files import (
    RAGGED,
    need_columns,
    read_table,
    tell_lost_cells,
    whole_rows,
)
from datasets_mm.media_paths import INVISIBLE, clean
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store

REVISION = 3

LETTERS: Final = ("a", "b", "c", "d")
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "id": ("id", "data_id", "question_id"),
    "image": ("image", "image_path", "img_path", "path", "file_name", "filename"),
    "question": ("question", "질문"),
    **{letter: (letter, f"option_{letter}", f"choice_{letter}") for letter in LETTERS},
    "answer": ("answer", "label", "정답"),
    "kind": ("question_type", "type", "category"),
}
"""What a column may be called, in any case of letters; the first that is there."""
SHOWN: Final = 3
"""Rows that the refusal of a file names."""

SHORT: Final = RAGGED
NO_ID: Final = "row has no id"
NO_IMAGE: Final = "row names no picture"
NO_QUESTION: Final = "row has no question"
NO_OPTION: Final = "an option is empty (fill in all four)"
NO_LETTER: Final = "the answer is not a, b, c or d (write the letter)"
TWICE: Final = "one id stands for different rows (give each its own)"
AGAIN: Final = "rows repeat another one and were read once"
ALIKE: Final = "questions offer the same option twice"
UNASKED: Final = "test rows have no question and were kept"
NO_LETTERS: Final = "answers of test rows are no letters: they count as not known"
PLACEHOLDERS: Final = (
    "answers of test rows are placeholders (all have the same answer, or that of the sample "
    "submission): they count as not known"
)
ONE_LETTER: Final = "rows all have the same answer"
FEW: Final = 5
"""Rows from which on one letter for all is no chance: it comes once in 256 files."""
NO_SAMPLE: Final = "sample submission is not there: its columns are taken to be id and answer"

Say = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One question as the file has it; `problem`: why it cannot be used, "" if it can."""

    place: str
    id: str
    image: str
    question: str
    options: tuple[str, ...]
    answer: str
    kind: str
    problem: str = ""

    @property
    def named(self) -> str:
        """Where it is, and which one."""
        return f"{self.place} (id {self.id})" if self.id else self.place


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write one record for each usable question.

    Raises:
        SourceError: a file is no table of questions, is cut off, or a test row cannot be answered.
    """
    report = SourceReport()
    is_test = found.source.dataset == "test"
    rows: Sequence[Row] = [row for path in found.records for row in _of_file(found, path, report)]
    kept = _answerable(rows) if is_test else _usable(rows, report)
    for row in kept:
        if len(set(row.options)) < len(LETTERS):
            report.note(ALIKE, row.named)
        if not row.question:
            report.note(UNASKED, row.named)
    sample = _sample(found, report) if is_test else None
    if is_test:
        write_submission(folder, sample, kept)
    kept = _with_known_answers(kept, sample, report, is_test=is_test)
    arrow_store.corpus_writer(folder).close()
    records = arrow_store.record_writer(folder, arrow_store.CHOICE_RECORDS)
    for row in kept:
        part = f"challenge.{row.kind}" if row.kind else "challenge"
        records.add(record(row.id, part, row.image, (row.question, row.options), row.answer))
    records.close()
    arrow_store.sort_by(folder / "records.arrow", "data_id")
    report.content = arrow_store.content_digest(folder / "records.arrow")
    if (folder / arrow_store.SUBMISSION).is_file():
        report.content += "-" + arrow_store.digest(folder / arrow_store.SUBMISSION)
    progress(len(kept), len(rows), "rows")
    return report


def record(
    data_id: str, part: str, image: str, asked: tuple[str, Sequence[str]], answer: str
) -> dict[str, Any]:
    """The fields of a question with its options; `answer`: their letter, "": not known.

    `part`: what the question belongs to; behind a dot its kind.
    """
    question, options = asked
    lists = ("passage_id", "passage_image_path", "passage_text")
    return {name: [] for name in lists} | {
        "answer": [answer] if answer else [], "data_id": data_id, "dataset_id": part,
        "image_path": image, "instruction": "", "question": question, "options": list(options),
    }  # fmt: skip


def places(found: Location, paths: Collection[str]) -> dict[str, str]:
    """Picture -> the first row that names it: asked where pictures are missing."""
    report, wanted = SourceReport(), set(paths)
    named: dict[str, str] = {}
    for path in found.records:
        for row in _of_file(found, path, report):
            if row.image in wanted:
                named.setdefault(row.image, f"{row.named}: {row.image}")
    return named


def _usable(rows: Sequence[Row], report: SourceReport) -> list[Row]:
    """Training rows without a problem, each id once."""
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        if row.problem:
            report.skip(row.problem, row.named)
        else:
            by_id.setdefault(row.id, []).append(row)
    kept = []
    for same in by_id.values():
        if len({replace(row, place="") for row in same}) > 1:
            # Which of them is meant cannot be known, and any choice would be the file's order.
            for row in same:
                report.skip(TWICE, row.named)
            continue
        for row in same[1:]:
            report.note(AGAIN, row.named)
        kept.append(same[0])
    return kept


def _answerable(rows: Sequence[Row]) -> list[Row]:
    """All rows of a test file.

    Raises:
        SourceError: one of them cannot be answered.
    """
    wrong = [f"{row.named}: {row.problem}" for row in rows if row.problem]
    first: dict[str, Row] = {}
    wrong += [
        f"{row.place}: id {row.id} is also that of {first[row.id].place}"
        for row in rows
        if not row.problem and first.setdefault(row.id, row) is not row
    ]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise SourceError(
            f"{len(wrong)} of {len(rows)} test rows cannot be answered, and a submission needs "
            f"every one; mend them: {'; '.join(wrong[:SHOWN])}{more}"
        )
    return list(rows)


def _with_known_answers(
    rows: Sequence[Row], sample: Sample | None, report: SourceReport, *, is_test: bool
) -> list[Row]:
    """The rows with their answers; those of test rows that nobody gave are taken away."""
    for row in rows:
        if row.answer and row.answer not in LETTERS:
            report.note(NO_LETTERS, f"{row.named}: {row.answer[:20]!r}")
    kept = [row if row.answer in LETTERS else replace(row, answer="") for row in rows]
    letters = [row.answer for row in kept if row.answer]
    is_constant = len(letters) > 1 and len(set(letters)) == 1
    is_sample = is_test and sample is not None and len(letters) >= FEW and all(
        sample.answers.get(row.id, "") == row.answer for row in kept if row.answer
    )  # fmt: skip
    if is_test and (is_sample or (is_constant and len(letters) >= FEW)):
        for row in kept:
            if row.answer:
                report.note(PLACEHOLDERS, row.named)
        return [replace(row, answer="") for row in kept]
    if is_constant:
        report.note(ONE_LETTER, f"{len(letters)} times {letters[0]}")
    return kept


# -- one file ----------------------------------------------------------------------------------


def _of_file(found: Location, path: Path, report: SourceReport) -> Iterator[Row]:
    source = found.source
    is_test = source.dataset == "test"
    return _rows(path, found.name(path), report, is_test=is_test, encoding=source.encoding)


def _rows(
    path: Path, name: str, report: SourceReport, *, is_test: bool, encoding: str
) -> Iterator[Row]:
    """Every row of a file, usable or not; blank lines are passed over."""
    needed = [key for key in COLUMNS if key != "kind" and not (is_test and key == "answer")]
    table = read_table(path, name, report, encoding)
    at = table.columns(COLUMNS)
    need_columns(table, at, needed)
    tell_lost_cells(table, report)
    for line in table.rows:
        cells = line.cells
        values = {key: _clean(cells[place]) for key, place in at.items() if place < len(cells)}
        row = Row(
            place=f"{name} row {line.number}",
            id=values.get("id", ""),
            image=clean(cells[at["image"]]) if at["image"] < len(cells) else "",
            question=values.get("question", ""),
            options=tuple(values.get(letter, "") for letter in LETTERS),
            answer=values.get("answer", "").lower(),
            kind=values.get("kind", ""),
        )
        problem = line.problem or _problem(row, is_test=is_test)
        yield replace(row, problem=problem)


def _problem(row: Row, *, is_test: bool) -> str:
    """Why a row cannot be used; "": it can."""
    if not row.id:
        return NO_ID
    if not row.image:
        return NO_IMAGE
    if not row.question and not is_test:
        return NO_QUESTION
    if not all(row.options):
        return NO_OPTION
    if row.answer not in LETTERS and not is_test:
        return NO_LETTER
    return ""


def _clean(cell: str) -> str:
    """A cell in one line. "None" and "NA" stay: they may well be options."""
    return " ".join(cell.encode("utf-8", "replace").decode().strip(INVISIBLE).split())


def _sample(found: Location, report: SourceReport) -> Sample | None:
    """The sample submission beside the test rows; None: it is not there."""
    if found.submission is None:
        report.note(NO_SAMPLE, found.source.submission or "sample_submission.csv")
        return None
    name = found.name(found.submission)
    table = read_table(found.submission, name, report, found.source.encoding)
    at = table.columns(COLUMNS)
    need_columns(table, at, ("id", "answer"))
    pairs = [(row.cells[at["id"]], row.cells[at["answer"]]) for row in whole_rows(table)]
    return Sample(
        name=name,
        columns=(table.header[at["id"]].strip(), table.header[at["answer"]].strip()),
        ids=tuple(_clean(name) for name, _ in pairs),
        answers={_clean(name): _clean(answer).lower() for name, answer in pairs},
    )
