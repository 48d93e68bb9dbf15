"""Answers every question of a subset; resumes after a kill and verifies completeness.

Questions are answered in blocks, in the order of the data. A block that is only partly in the file
is computed again as a whole and only missing answers are added, so that batches, and therefore all
numbers, are bitwise those of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from datasets_mm.recipes.record_classes import LETTERS
from engines.emitter import EngineError
from engines.torchkit.data.data_loader import choose_others
from engines.vqa.data.questions import Questions
from engines.vqa.evaluation import answer_parser, predictions, tta
from engines.vqa.evaluation.calibration import Numbers, softmax
from engines.vqa.evaluation.predictions import Answer, Four
from engines.vqa.evaluation.tta import Logits, View

BLOCK_BATCHES: Final = 4
"""Batches between two appends: the most that a kill loses."""


class QuestionModel(Protocol):
    """A model that answers questions."""

    def letter_logits(self, questions: Questions, view: View, *, blank: bool = False) -> Logits:
        """Logits of the four letters at the first position of the answer, [n, 4], by option."""

    def generate_answers(self, questions: Questions) -> list[str]:
        """Greedily generated answers [n]."""


@dataclass(frozen=True)
class InferenceOptions:
    """How the questions of a subset are answered."""

    views: Sequence[View]
    block: int
    """Questions between two appends."""
    blank: bool = False
    """Also answer with blank pictures."""
    other_media: Mapping[str, str] = field(default_factory=dict)
    """By id the picture with which a question is also answered; empty: no question is."""
    written: frozenset[str] = frozenset()
    """Ids of the questions for which an answer is also generated."""
    key: Mapping[str, Any] = field(default_factory=dict)
    """What answers depend on besides these options: weights, data."""
    rank_and_size: tuple[int, int] = (0, 1)
    """Rank of the process and number of ranks, which take the blocks in turn."""
    wait: Callable[[], None] = lambda: None
    """Waits until all ranks have answered."""

    @property
    def whole_key(self) -> dict[str, Any]:
        """Key of stored answers: those of an earlier attempt count if it is equal."""
        views = [[view.scale, *view.permutation] for view in self.views]
        return {
            **self.key, "views": views, "block": self.block, "blank": self.blank,
            "written": sorted(self.written),
            **({"shuffled": True} if self.other_media else {}),
        }  # fmt: skip


def pair_media(questions: Questions) -> dict[str, str]:
    """Path of the picture of another question, by id."""
    others = choose_others(len(questions.ids))
    return {name: questions.paths[other] for name, other in zip(questions.ids, others, strict=True)}


def answer_all(
    model: QuestionModel,
    questions: Questions,
    options: InferenceOptions,
    path: Path,
    report_progress: Callable[[int, int, str], None],
) -> list[Answer]:
    """Answer every question and append each answer to `path`; returns them in the data's order.

    Of several ranks each writes a file of its own (`rank_path`); rank 0 then adds the others'
    answers to `path`, and the others return none. Blocks are those of one process, so answers are
    bitwise the same for any number of ranks.

    Raises:
        EngineError: an id occurs twice, logits are not finite, or the file does not hold exactly
            the ids of the questions in the end.
    """
    if len(set(questions.ids)) < len(questions.ids):
        twice = next(name for name in questions.ids if questions.ids.count(name) > 1)
        raise EngineError(f"id '{twice}' occurs more than once; answers are kept by id")
    rank, size = options.rank_and_size
    file = rank_path(path, rank)
    done = {answer.id for answer in predictions.resume_answers(file, options.whole_key)}
    for number, rows in enumerate(_blocks(len(questions.ids), options.block)):
        block = questions.select(rows)
        if number % size == rank and not done.issuperset(block.ids):
            fresh = answer_questions(model, block, options)
            predictions.append_answers(file, [answer for answer in fresh if answer.id not in done])
        report_progress(int(rows[-1]) + 1, len(questions.ids), "questions")
    options.wait()
    if rank:
        return []
    _add_other_ranks(path, size)
    return read_complete(path, questions.ids)


def rank_path(path: Path, rank: int) -> Path:
    """The file of a rank's answers; rank 0 has `path` itself."""
    return path.with_name(f".{path.stem}.rank{rank}.jsonl") if rank else path


def _add_other_ranks(path: Path, size: int) -> None:
    """Append the answers of the other ranks that `path` lacks."""
    for rank in range(1, size):
        done = {answer.id for answer in predictions.read_answers(path)[0]}
        answers, _ = predictions.read_answers(rank_path(path, rank))
        predictions.append_answers(path, [answer for answer in answers if answer.id not in done])


def answer_questions(
    model: QuestionModel, questions: Questions, options: InferenceOptions
) -> list[Answer]:
    """Answer a block of questions, through all views."""
    scores = tta.score_views(
        lambda view: _check_finite(model.letter_logits(questions, view)), options.views
    )
    several = len(options.views) > 1
    blank_probabilities = None
    if options.blank:
        blank_probabilities = softmax(
            _check_finite(model.letter_logits(questions, View(), blank=True))
        )
    shuffled_probabilities = None
    if options.other_media:
        others = questions.with_media([options.other_media[name] for name in questions.ids])
        shuffled_probabilities = softmax(_check_finite(model.letter_logits(others, View())))
    generated = _generate_answers(model, questions, options.written)
    answers = []
    for row, name in enumerate(questions.ids):
        truth = int(questions.answers[row])
        text = generated.get(name)
        choices = questions.options[row]
        answers.append(
            Answer(
                id=name,
                letter=predictions.best_letter(scores.mean[row]),
                probabilities=_to_four(scores.mean[row]),
                truth=LETTERS[truth] if truth >= 0 else "",
                kind=questions.kinds[row],
                medium=questions.paths[row],
                question=questions.texts[row],
                options=tuple(choices),
                plain=_to_four(scores.plain[row]) if several else None,
                votes=tuple(scores.votes[row].tolist()) if several else None,
                blank=_row(blank_probabilities, row),
                shuffled=_row(shuffled_probabilities, row),
                generated=text,
                parsed=(answer_parser.parse_letter(text, choices) or "")
                if text is not None
                else "",
            )
        )
    return answers


def read_complete(path: Path, ids: Sequence[str]) -> list[Answer]:
    """The answers of a file in the order of `ids`; it must hold exactly these.

    Raises:
        EngineError: an id has no answer, or an answer no id.
    """
    answers, dropped = predictions.read_answers(path)
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


def _generate_answers(
    model: QuestionModel, questions: Questions, ids: frozenset[str]
) -> dict[str, str]:
    rows = [row for row, name in enumerate(questions.ids) if name in ids]
    if not rows:
        return {}
    sample = questions.select(np.asarray(rows, np.int64))
    return dict(zip(sample.ids, model.generate_answers(sample), strict=True))


def _check_finite(logits: Logits) -> Logits:
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        raise EngineError(
            f"the model's logits are not finite on {broken} of {len(logits)} questions; train with "
            "a lower rate, or in bf16 or fp32"
        )
    return logits


def _row(probabilities: Numbers | None, row: int) -> Four | None:
    return None if probabilities is None else _to_four(probabilities[row])


def _to_four(row: np.ndarray[Any, np.dtype[np.float64]]) -> Four:
    a, b, c, d = (float(value) for value in row)
    return a, b, c, d
