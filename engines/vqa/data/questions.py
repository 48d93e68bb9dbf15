"""The questions of a built subset: picture, text, four options and, if known, the right one.

A subset of questions is an ordinary subset with a column `options`; `answer` is the letter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets_mm.building.build import Subset
from datasets_mm.building.selection import is_inside
from datasets_mm.folds import Folds
from datasets_mm.media_paths import find_on_disk
from datasets_mm.recipes.record_classes import LETTERS, question_kind
from datasets_mm.storage import arrow_store
from engines.emitter import EngineError

Rows = np.ndarray[Any, np.dtype[np.int64]]
Options = tuple[str, str, str, str]


@dataclass(frozen=True)
class Questions:
    """Four-choice questions about pictures; all lists have one entry a question."""

    ids: list[str]
    paths: list[str]
    """Relative to `root`."""
    root: Path
    texts: list[str]
    options: list[Options]
    """In the order of their letters."""
    answers: Rows
    """Index of the right option, 0 to 3; -1: not known."""
    kinds: list[str]
    """Type of the question, from the data or by its words."""
    fold: Rows | None = None
    """Fold of each question [n]; None: not assigned."""
    wordings: list[tuple[str, ...]] | None = None
    """Texts of each question, the original first, then its paraphrases; None: no paraphrases."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int] | Rows) -> Questions:
        """The questions of these rows, in this order."""
        indices = [int(row) for row in rows]
        at = np.asarray(indices, np.int64)
        return Questions(
            ids=[self.ids[row] for row in indices],
            paths=[self.paths[row] for row in indices],
            root=self.root,
            texts=[self.texts[row] for row in indices],
            options=[self.options[row] for row in indices],
            answers=self.answers[at],
            kinds=[self.kinds[row] for row in indices],
            fold=None if self.fold is None else self.fold[at],
            wordings=None if self.wordings is None else [self.wordings[row] for row in indices],
        )

    def groups(self) -> list[str]:
        """Group of each question, kept within a fold: picture content, or path if unreadable."""
        contents = {path: _content(self.root, path) for path in dict.fromkeys(self.paths)}
        return [contents[path] for path in self.paths]

    def with_media(self, paths: list[str]) -> Questions:
        """The same questions about other pictures [n]."""
        return replace(self, paths=paths)

    def with_folds(self, folds: Folds) -> Questions:
        """The same questions with their folds.

        Raises:
            FoldError: the folds are those of other questions.
        """
        return replace(self, fold=folds.lookup(self.ids))


@dataclass(frozen=True)
class SubmissionTemplate:
    """The columns and ids of a sample submission."""

    columns: tuple[str, str]
    """Names of the id column and the answer column."""
    ids: tuple[str, ...]
    """In the order of the sample."""
    capitals: bool = False
    """Whether its answers are A to D."""

    @property
    def letters(self) -> tuple[str, ...]:
        """The answers that it may have."""
        return tuple(LETTERS.upper() if self.capitals else LETTERS)


def read_questions(subset: Subset) -> Questions:
    """The questions of a subset.

    Raises:
        EngineError: it has none, or one of them has no picture or not four options.
    """
    records = subset.records
    if "options" not in records.column_names:
        raise EngineError(
            f"subset '{subset.name}': its records have no options; run vqa on a subset of "
            "four-choice questions, such as easy_vqa_train"
        )
    columns = {name: records[name].to_pylist() for name in records.column_names}
    ids: list[str] = columns["data_id"]
    for name, path, options in zip(ids, columns["image_path"], columns["options"], strict=True):
        if not path or len(options) != len(LETTERS):
            raise EngineError(
                f"subset '{subset.name}': record {name} has "
                f"{f'{len(options)} options' if path else 'no picture'}; vqa needs a picture and "
                "four options"
            )
    texts: list[str] = columns["question"]
    return Questions(
        ids=ids,
        paths=columns["image_path"],
        root=subset.image_root,
        texts=texts,
        options=[(a, b, c, d) for a, b, c, d in columns["options"]],
        answers=np.asarray([_answer_index(answer) for answer in columns["answer"]], np.int64),
        kinds=list(map(question_kind, columns["dataset_id"], texts)),
    )


def read_sample_submission(subset: Subset) -> SubmissionTemplate | None:
    """The sample submission of a challenge subset; None: it has none."""
    try:
        content = json.loads((subset.folder / arrow_store.SUBMISSION).read_text("utf-8"))
    except FileNotFoundError:
        return None
    first, second = content["columns"]
    return SubmissionTemplate(
        (first, second), tuple(content["ids"]), content.get("capitals", False)
    )


def _answer_index(answer: Sequence[str]) -> int:
    return LETTERS.find(answer[0]) if answer and len(answer[0]) == 1 else -1


def _content(root: Path, path: str) -> str:
    return (
        arrow_store.file_digest(root / find_on_disk(root, path)) if is_inside(path, root) else path
    )


def select_stratified(answers: Rows, limit: int) -> Rows:
    """At most `limit` rows (0: all), stratified by answer, spread over the data, sorted.

    Independent of the seed of a run: all epochs and runs select equal questions.
    """
    if limit <= 0 or len(answers) <= limit:
        return np.arange(len(answers))
    order = np.random.default_rng(0).permutation(len(answers))
    order = order[np.argsort(answers[order], kind="stable")]  # by answer, at random within
    places = (np.arange(limit) * len(answers)) // limit
    return np.sort(order[places])
