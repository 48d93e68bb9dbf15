"""The questions of a built subset: pictures, words, four options each and the right one, if known.

A subset of questions is an ordinary subset with an `options` column: `answer` is the letter. Apart
from the work, because training, inference, folds and submissions all read the same few lists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from datasets_mm.building.build import Subset
from datasets_mm.building.selection import is_inside
from datasets_mm.folds import Folds
from datasets_mm.media_paths import find_on_disk
from datasets_mm.recipes.record_classes import question_kind
from datasets_mm.storage import arrow_store
from engines.emitter import EngineError

LETTERS: Final = "abcd"

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
    """0 to 3: the option that is right; -1: not known."""
    kinds: list[str]
    """Type of the question: the data's own where it has one, else by its words."""
    fold: Rows | None = None
    """Which fold a question belongs to, once they are dealt."""
    wordings: list[tuple[str, ...]] | None = None
    """Of each question its own text first, then its paraphrases; None: there are none."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | Rows) -> Questions:
        """Some of them, in this order."""
        places = [int(row) for row in rows]
        at = np.asarray(places, np.int64)
        return Questions(
            ids=[self.ids[row] for row in places],
            paths=[self.paths[row] for row in places],
            root=self.root,
            texts=[self.texts[row] for row in places],
            options=[self.options[row] for row in places],
            answers=self.answers[at],
            kinds=[self.kinds[row] for row in places],
            fold=None if self.fold is None else self.fold[at],
            wordings=None if self.wordings is None else [self.wordings[row] for row in places],
        )

    def groups(self) -> list[str]:
        """What must stay together in a fold: the content of the picture, its path if unreadable."""
        known = {path: _content(self.root, path) for path in dict.fromkeys(self.paths)}
        return [known[path] for path in self.paths]

    def dealt(self, folds: Folds) -> Questions:
        """The same questions with their folds.

        Raises:
            FoldError: the folds are those of other questions.
        """
        return replace(self, fold=folds.lookup(self.ids))


@dataclass(frozen=True)
class Sample:
    """What the sample submission asks for."""

    columns: tuple[str, str]
    """Names of the id and of the answer."""
    ids: tuple[str, ...]
    """In its order."""


def read(subset: Subset) -> Questions:
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
        answers=np.asarray([_answer(said) for said in columns["answer"]], np.int64),
        kinds=list(map(question_kind, columns["dataset_id"], texts)),
    )


def sample(subset: Subset) -> Sample | None:
    """The form of a submission to this subset of a challenge; None: nobody asks for one."""
    try:
        said = json.loads((subset.folder / arrow_store.SUBMISSION).read_text("utf-8"))
    except FileNotFoundError:
        return None
    first, second = said["columns"]
    return Sample((first, second), tuple(said["ids"]))


def _answer(said: Sequence[str]) -> int:
    return LETTERS.find(said[0]) if said and len(said[0]) == 1 else -1


def _content(root: Path, path: str) -> str:
    return (
        arrow_store.file_digest(root / find_on_disk(root, path)) if is_inside(path, root) else path
    )


def stratified(answers: Rows, limit: int) -> Rows:
    """At most `limit` rows with the answers' own shares, spread over the data; sorted. 0: all.

    Deterministic, whatever the run's seed: looks at different epochs and runs see equal questions.
    """
    if limit <= 0 or len(answers) <= limit:
        return np.arange(len(answers))
    order = np.random.default_rng(0).permutation(len(answers))
    order = order[np.argsort(answers[order], kind="stable")]  # by answer, at random within
    places = (np.arange(limit) * len(answers)) // limit
    return np.sort(order[places])
