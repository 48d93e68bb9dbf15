"""What a model from scratch is taught, from the easy to the hard: naming, finding, choosing.

A question with options is two tasks in one, and a small model that is given nothing else sits at
chance for thousands of steps: it must see what the picture shows, and find the letter beside a
word. Alone, each is learnt in hundreds. So the first lessons are about one of them:

- naming: the question without options, answered in words;
- finding: no picture, the answer is told, its letter is asked for;
- choosing: the question as it will be asked.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.vqa.augment import permuted
from engines.vqa.batches import ORDERS
from engines.vqa.model import VqaBatch, collate
from engines.vqa.pixels import Pictures
from engines.vqa.questions import Questions
from engines.vqa.wording import IGNORED, IMAGE, LETTERS, Encoded, Wording

Lesson = Literal["naming", "finding", "choosing"]
Rows = npt.NDArray[np.int64]

FIRST: Final = (0.4, 0.4, 0.2)
"""Shares of the three lessons at the beginning."""
CHOOSING_ONLY: Final = 0.6
"""Share of the steps after which only whole questions are asked."""


class School(NamedTuple):
    """The questions, and how they are shown."""

    wording: Wording
    pictures: Pictures
    questions: Questions


def shares(done: float) -> tuple[float, float, float]:
    """Shares of the three lessons when `done` of the training is over (0 to 1)."""
    left = max(0.0, 1 - done / CHOOSING_ONLY)
    naming, finding, _ = (left * share for share in FIRST)
    return naming, finding, 1 - naming - finding


def batch(school: School, size: int, done: float, generator: np.random.Generator) -> VqaBatch:
    """Lessons for one step, drawn by their shares."""
    naming, finding, _ = (round(size * share) for share in shares(done))
    kinds: list[Lesson] = ["choosing"] * (size - naming - finding)
    kinds += ["naming"] * naming + ["finding"] * finding
    rows = generator.integers(0, len(school.questions), size)
    orders = generator.integers(0, len(ORDERS), size)
    encoded, patches, grids = [], [], []
    for row, kind, order in zip(rows.tolist(), kinds, orders.tolist(), strict=True):
        path = school.questions.paths[row]
        grid = school.pictures.grid(school.questions.root, path)
        tokens = school.pictures.patching.tokens(grid)
        encoded.append(lesson(school, row, kind, (order, tokens)))
        if kind != "finding":
            patches.append(school.pictures.patches(school.questions.root, path))
            grids.append(grid)
    return collate(encoded, patches, grids, school.wording.pad)


def lesson(school: School, row: int, kind: Lesson, how: tuple[int, int]) -> Encoded:
    """One question as that lesson; `how`: number of the options' order, tokens of the picture."""
    wording, asked = school.wording, school.questions
    order, tokens = ORDERS[how[0]], how[1]
    right = int(asked.answers[row])
    said, letter = asked.options[row][right], LETTERS[order.index(right)]
    shown = permuted(asked.options[row], order)
    if kind == "choosing":
        return wording.encode(asked.texts[row], shown, letter, tokens)
    if kind == "finding":
        return without_picture(wording.encode(said, shown, letter, 1), wording.image)
    return named(wording, asked.texts[row], said, tokens)


def named(wording: Wording, text: str, answer: str, tokens: int) -> Encoded:
    """A question without options, its answer in words."""
    ids, _, _ = wording.encode(text, (), None, tokens)
    words = wording.tokenizer.encode(answer, add_special_tokens=False).ids
    said = np.asarray([*words, wording.end], np.int64)
    whole = np.concatenate([ids, said])
    labels = np.concatenate([np.full_like(ids, IGNORED), said])
    return Encoded(whole, labels, np.where(whole == wording.image, IMAGE, 0))


def without_picture(encoded: Encoded, image: int) -> Encoded:
    """The same without the token of the picture."""
    kept = encoded.ids != image
    return Encoded(encoded.ids[kept], encoded.labels[kept], encoded.types[kept])
