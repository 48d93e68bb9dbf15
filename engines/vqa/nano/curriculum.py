"""What a model from scratch is taught: to find an answer that it is told, then one that it sees.

A question with options is two tasks in one: see what the picture shows, and find the letter beside
a word. A small model that is given both at once stays at chance for thousands of steps. So there
are three stages:

- told: the answer's words stand where the picture will stand;
- looking: the vision tower learns alone that its tokens shall be like those words. Through the
  language model it learns nothing for long, and pictures that say nothing yet make the language
  model forget how to find (both measured);
- asked: the picture stands in its place; all questions, all parameters.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from engines.vqa.data.batches import ORDERS
from engines.vqa.data.images import Pictures
from engines.vqa.data.option_order import permuted
from engines.vqa.data.questions import Questions
from engines.vqa.models.chat_template import LETTERS, Encoded, Said, Wording
from engines.vqa.models.model import PIXELS, VqaBatch
from engines.vqa.models.qwen_patches import Patching

Rows = npt.NDArray[np.int64]

Stage = Literal["told", "looking", "asked"]

TOLD_UNTIL, LOOKING_UNTIL = 0.4, 0.55
"""Shares of the steps. At first only questions with one-word options are asked: the finding of
single words sets in first."""


SHARPNESS: Final = 10.0
"""What the cosine of a picture's token and a word is multiplied with before the softmax."""


class School(NamedTuple):
    """The questions, and how they are shown."""

    sight: Patching
    pictures: Pictures
    questions: Questions
    told: list[str]
    """What stands in the place of each question's picture: all that is known of it."""
    easy: Rows
    """Questions with one-word options."""


def school(sight: Patching, pictures: Pictures, questions: Questions) -> School:
    """Of these questions; what is known of a picture is the longest answer about it."""
    known: dict[str, str] = {}
    easy = []
    for row, (path, options) in enumerate(zip(questions.paths, questions.options, strict=True)):
        said = options[int(questions.answers[row])]
        known[path] = max(known.get(path, ""), said, key=len)
        if all(len(option.split()) == 1 for option in options):
            easy.append(row)
    told = [known[path] for path in questions.paths]
    rows = np.asarray(easy or range(len(questions)), np.int64)
    return School(sight, pictures, questions, told, rows)


def stage(done: float) -> Stage:
    """The stage when `done` of the training is over (0 to 1)."""
    if done < TOLD_UNTIL:
        return "told"
    return "looking" if done < LOOKING_UNTIL else "asked"


def batch(
    own: School, size: int, now: Stage, generator: np.random.Generator
) -> tuple[VqaBatch, Rows]:
    """Questions for one step, and which they are."""
    rows = generator.choice(own.easy if now == "told" else np.arange(len(own.questions)), size)
    orders = generator.integers(0, len(ORDERS), size)
    encoded, shown = [], []
    for row, order in zip(rows.tolist(), orders.tolist(), strict=True):
        place = own.questions.root, own.questions.paths[row]
        asked = question(own, row, order, 1 if now == "told" else own.pictures.tokens(*place))
        if now == "told":
            encoded.append(with_words(own.sight.wording, asked, own.told[row]))
            continue
        encoded.append(asked)
        shown.append(own.pictures.pixels(*place))
    return own.sight.collate(encoded, shown), rows


def likeness(own: School, model: Any, seen: VqaBatch, rows: Rows) -> Tensor:
    """Cross entropy (0-d) of every token of a picture against the words that are known of it."""
    tokens = model.get_image_features(seen.seen[PIXELS], seen.seen["image_grid_thw"]).pooler_output
    words = functional.normalize(model.lm_head.weight.detach(), dim=-1)
    losses = []
    for row, vectors in zip(rows.tolist(), tokens, strict=True):
        ids = own.sight.wording.tokenizer.encode(own.told[row], add_special_tokens=False).ids
        alike = functional.normalize(vectors, dim=-1) @ words.T * SHARPNESS
        losses.append(-alike.log_softmax(-1)[:, ids].mean())
    return torch.stack(losses).mean()


def question(own: School, row: int, order: int, tokens: int) -> Encoded:
    """One question with its answer, options in that order."""
    asked, shown = own.questions, ORDERS[order]
    letter = LETTERS[shown.index(int(asked.answers[row]))]
    options = permuted(asked.options[row], shown)
    return own.sight.wording.encode(Said(asked.texts[row], options, letter), tokens)


def with_words(wording: Wording, asked: Encoded, words: str) -> Encoded:
    """The same with words where the one token of the picture stands."""
    place = int(np.flatnonzero(asked.ids == wording.image)[0])
    said = np.asarray(wording.tokenizer.encode(words, add_special_tokens=False).ids, np.int64)

    def put(array: Rows, instead: Rows) -> Rows:
        return np.concatenate([array[:place], instead, array[place + 1 :]])

    nothing = np.full_like(said, asked.labels[place])
    types = np.zeros_like(said)
    return Encoded(put(asked.ids, said), put(asked.labels, nothing), put(asked.types, types))
