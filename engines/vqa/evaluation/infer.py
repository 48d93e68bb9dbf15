"""Answers to every question of a subset, resumed where an attempt was killed, proven complete.

Questions are worked through in blocks of their own order. A block that is only partly in the file
is computed again as a whole and only what is missing is added: batches, and with them the last bits
of every number, are those of an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from engines.emitter import EngineError
from engines.vqa.data.questions import LETTERS, Questions
from engines.vqa.evaluation import answer_parser, predictions, tta
from engines.vqa.evaluation.calibration import softmax
from engines.vqa.evaluation.predictions import Answer, Four
from engines.vqa.evaluation.tta import Logits, View

BLOCK_BATCHES: Final = 4
"""Batches between two appends: a kill costs at most these."""


class Model(Protocol):
    """What answers questions."""

    def logits(self, questions: Questions, view: View, *, blank: bool = False) -> Logits:
        """Of the four letters at the first position of the answer, [n, 4], un-permuted."""

    def written(self, questions: Questions) -> list[str]:
        """What it writes, greedy."""


@dataclass(frozen=True)
class Asked:
    """How the questions of a subset are to be answered."""

    views: Sequence[View]
    block: int
    """Questions between two appends."""
    blank: bool = False
    """Answer once more without the picture."""
    written: frozenset[str] = frozenset()
    """Ids of the questions to which the model also writes its answer."""
    key: Mapping[str, Any] = field(default_factory=dict)
    """What answers depend on beside this: weights, data."""

    @property
    def whole_key(self) -> dict[str, Any]:
        """Answers of an earlier attempt count if this is equal."""
        views = [[view.scale, *view.permutation] for view in self.views]
        return {
            **self.key, "views": views, "block": self.block, "blank": self.blank,
            "written": sorted(self.written),
        }  # fmt: skip


def answer_all(
    model: Model,
    questions: Questions,
    asked: Asked,
    path: Path,
    say: Callable[[int, int, str], None],
) -> list[Answer]:
    """Answer every question and append each answer to `path`; returns them in the data's order.

    Raises:
        EngineError: an id occurs twice, the model's logits are no numbers, or, after all, the file
            does not hold exactly the ids of the questions.
    """
    if len(set(questions.ids)) < len(questions.ids):
        twice = next(name for name in questions.ids if questions.ids.count(name) > 1)
        raise EngineError(f"id '{twice}' occurs more than once; answers are kept by id")
    done = {answer.id for answer in predictions.resume(path, asked.whole_key)}
    for rows in _blocks(len(questions.ids), asked.block):
        some = questions.take(rows)
        if not done.issuperset(some.ids):
            fresh = answer(model, some, asked)
            predictions.append(path, [one for one in fresh if one.id not in done])
        say(int(rows[-1]) + 1, len(questions.ids), "questions")
    return proven(path, questions.ids)


def answer(model: Model, questions: Questions, asked: Asked) -> list[Answer]:
    """The answers to a few questions, through all views."""
    seen = tta.look(lambda view: _finite(model.logits(questions, view)), asked.views)
    several = len(asked.views) > 1
    unseen = None
    if asked.blank:
        unseen = softmax(_finite(model.logits(questions, View(), blank=True)))
    spoken = _spoken(model, questions, asked.written)
    found = []
    for row, name in enumerate(questions.ids):
        truth = int(questions.answers[row])
        text = spoken.get(name)
        options = questions.options[row]
        found.append(
            Answer(
                id=name,
                letter=predictions.best(seen.mean[row]),
                probabilities=_four(seen.mean[row]),
                truth=LETTERS[truth] if truth >= 0 else "",
                kind=questions.kinds[row],
                medium=questions.paths[row],
                question=questions.texts[row],
                options=tuple(options),
                plain=_four(seen.plain[row]) if several else None,
                votes=tuple(seen.votes[row].tolist()) if several else None,
                blank=_four(unseen[row]) if unseen is not None else None,
                generated=text,
                parsed=(answer_parser.letter(text, options) or "") if text is not None else "",
            )
        )
    return found


def proven(path: Path, ids: Sequence[str]) -> list[Answer]:
    """The answers of a file in the order of `ids`, which must be exactly those it holds.

    Raises:
        EngineError: an id has no answer, or an answer no id.
    """
    answers, dropped = predictions.read(path)
    by_id = {answer.id: answer for answer in answers}
    missing, strange = [n for n in ids if n not in by_id], by_id.keys() - set(ids)
    if missing or strange or dropped:
        raise EngineError(
            f"{path}: {len(missing)} of {len(ids)} questions have no answer, {len(strange)} "
            f"answers no question and {dropped} lines are broken; remove the file and resume"
        )
    return [by_id[name] for name in ids]


def _blocks(size: int, block: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    for start in range(0, size, block):
        yield np.arange(start, min(start + block, size))


def _spoken(model: Model, questions: Questions, wanted: frozenset[str]) -> dict[str, str]:
    rows = [row for row, name in enumerate(questions.ids) if name in wanted]
    if not rows:
        return {}
    some = questions.take(np.asarray(rows, np.int64))
    return dict(zip(some.ids, model.written(some), strict=True))


def _finite(logits: Logits) -> Logits:
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        raise EngineError(
            f"the model's logits are not finite on {broken} of {len(logits)} questions; train with "
            "a lower rate, or in bf16 or fp32"
        )
    return logits


def _four(row: np.ndarray[Any, np.dtype[np.float64]]) -> Four:
    a, b, c, d = (float(value) for value in row)
    return a, b, c, d
