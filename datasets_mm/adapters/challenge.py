"""Reads a VQA challenge: train.csv, test.csv and sample_submission.csv of four-choice questions.

A training row that cannot be used is left out, counted and named by file and row. A test row that
cannot be answered refuses the file: a submission without it would be short of a line, and that
would be known only when it is too late. Rows are counted as a spreadsheet shows them, the heading
being row 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from datasets_mm import store
from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.textfile import read_table
from datasets_mm.location import Location
from datasets_mm.paths import clean
from datasets_mm.source import SourceError

REVISION = 1

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

SHORT: Final = (
    "row has not as many cells as the heading (quote cells with commas, or copy it again)"
)
NO_ID: Final = "row has no id"
NO_IMAGE: Final = "row names no picture"
NO_QUESTION: Final = "row has no question"
NO_OPTION: Final = "an option is empty (fill in all four)"
NO_LETTER: Final = "the answer is not a, b, c or d (write the letter)"
TWICE: Final = "one id stands for different rows (give each its own)"
AGAIN: Final = "rows repeat another one and were read once"
ALIKE: Final = "questions offer the same option twice"
UNASKED: Final = "test rows have no question and were kept"
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
    rows = [row for path in found.records for row in _rows(path, found.name(path), report, is_test)]
    kept = _answerable(rows) if is_test else _usable(rows, report)
    for row in kept:
        if len(set(row.options)) < len(LETTERS):
            report.note(ALIKE, row.named)
        if not row.question:
            report.note(UNASKED, row.named)
    if is_test:
        _write_submission(found, kept, folder, report)
    store.corpus_writer(folder).close()
    records = store.record_writer(folder, store.CHOICE_RECORDS)
    for row in kept:
        part = f"challenge.{row.kind}" if row.kind else "challenge"
        records.add(record(row.id, part, row.image, (row.question, row.options), row.answer))
    records.close()
    store.sort_by(folder / "records.arrow", "data_id")
    report.content = store.content_digest(folder / "records.arrow")
    if (folder / store.SUBMISSION).is_file():
        report.content += "-" + store.digest(folder / store.SUBMISSION)
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
        for row in _rows(path, found.name(path), report, found.source.dataset == "test"):
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


# -- one file ----------------------------------------------------------------------------------


def _rows(path: Path, name: str, report: SourceReport, is_test: bool) -> Iterator[Row]:
    """Every row of a file, usable or not; blank lines are passed over."""
    needed = [key for key in COLUMNS if key != "kind" and not (is_test and key == "answer")]
    header, lines = read_table(path, name, report)
    at = _columns(header, name, needed)
    for number, cells in lines:
        while len(cells) > len(header) and not cells[-1].strip():
            cells = cells[:-1]  # noqa: PLW2901 - commas at the end of a line are no cells
        values = {key: _clean(cells[place]) for key, place in at.items() if place < len(cells)}
        row = Row(
            place=f"{name} row {number}",
            id=values.get("id", ""),
            image=clean(cells[at["image"]]) if at["image"] < len(cells) else "",
            question=values.get("question", ""),
            options=tuple(values.get(letter, "") for letter in LETTERS),
            answer=values.get("answer", "").lower(),
            kind=values.get("kind", ""),
        )
        whole = len(cells) == len(header)
        problem = _problem(row, is_test=is_test) if whole else SHORT
        yield replace(row, problem=problem, answer=row.answer if row.answer in LETTERS else "")


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
    if row.answer not in LETTERS and (row.answer or not is_test):
        return NO_LETTER
    return ""


def _columns(header: Sequence[str], name: str, needed: Collection[str]) -> dict[str, int]:
    """What -> number of its column.

    Raises:
        SourceError: a needed one is not there.
    """
    written = ["_".join(cell.lower().split()) for cell in header]
    at = {
        key: written.index(known[0])
        for key, names in COLUMNS.items()
        if (known := [one for one in names if one in written])
    }
    if missing := [key for key in needed if key not in at]:
        raise SourceError(
            f"{name} has no column {', '.join(missing)} (its first row has "
            f"{', '.join(map(repr, header[:12]))}); name the columns {', '.join(needed)}"
        )
    return at


def _clean(cell: str) -> str:
    """A cell in one line. "None" and "NA" stay: they may well be options."""
    return " ".join(cell.encode("utf-8", "replace").decode().split())


# -- the sample submission ---------------------------------------------------------------------


def _write_submission(
    found: Location, rows: Sequence[Row], folder: Path, report: SourceReport
) -> None:
    """Keep the sample's columns and order: a submission is written after them.

    Raises:
        SourceError: its ids are not those of the test rows.
    """
    columns, ids = ["id", "answer"], [row.id for row in rows]
    if found.submission is None:
        report.note(NO_SAMPLE, found.source.submission or "sample_submission.csv")
    else:
        name = found.name(found.submission)
        header, lines = read_table(found.submission, name, report)
        at = _columns(header, name, ("id", "answer"))
        columns = [header[at["id"]].strip(), header[at["answer"]].strip()]
        ids = [_clean(cells[at["id"]]) for _, cells in lines if at["id"] < len(cells)]
        _same_ids(name, ids, rows)
    text = json.dumps({"columns": columns, "ids": ids}, ensure_ascii=False)
    (folder / store.SUBMISSION).write_text(text, "utf-8")


def _same_ids(name: str, ids: Sequence[str], rows: Sequence[Row]) -> None:
    wanted, given = {row.id: row.place for row in rows}, frozenset(ids)
    repeated = len(ids) - len(given)
    lacking = [place for one, place in wanted.items() if one not in given]
    beyond = [one for one in dict.fromkeys(ids) if one not in wanted]
    said = [f"{len(lacking)} test rows are not in it (first: {lacking[0]})"] if lacking else []
    said += [f"{len(beyond)} of its ids are no test row (first: {beyond[0]})"] if beyond else []
    said += [f"{repeated} of its ids come twice"] if repeated else []
    if said:
        raise SourceError(f"{name}: {'; '.join(said)}; take both files from one download")
