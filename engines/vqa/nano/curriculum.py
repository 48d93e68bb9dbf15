"""Curriculum of a VQA model that is trained from scratch, in three stages.

A question with options is two tasks: recognize the picture, and find the letter of a word. A small
model that is trained on both at once stays at chance for thousands of steps. The stages are:

- words: the words of the answer are in the place of the picture;
- vision: only the vision tower is trained, to align its tokens with those words. Trained through
  the language model it learns little for long, and uninformative pictures make the language model
  forget the first stage (both measured);
- pictures: pictures in their place; all questions, all parameters.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from datasets_mm.recipes.record_classes import LETTERS
from engines.vqa.data.batches import ORDERS
from engines.vqa.data.images import Pictures
from engines.vqa.data.option_order import permute_options
from engines.vqa.data.questions import Questions
from engines.vqa.models.chat_template import ChatTemplate, ChoicePrompt, EncodedQuestion
from engines.vqa.models.model import PIXELS, VqaBatch
from engines.vqa.models.qwen_patches import QwenPatchProcessor

Rows = npt.NDArray[np.int64]

Stage = Literal["words", "vision", "pictures"]

WORDS_UNTIL, VISION_UNTIL = 0.4, 0.55
"""Ends of the first two stages, as shares of the steps. The first stage has only questions with
one-word options: those are learned first."""


INVERSE_TEMPERATURE: Final = 10.0
"""Factor of the cosine of an image token and a word before the softmax."""


class Curriculum(NamedTuple):
    """The questions with their pictures and descriptions."""

    processor: QwenPatchProcessor
    pictures: Pictures
    questions: Questions
    descriptions: list[str]
    """Text in the place of the picture of each question: the longest answer about it."""
    easy: Rows
    """Rows of questions with one-word options."""


def build_curriculum(
    processor: QwenPatchProcessor, pictures: Pictures, questions: Questions
) -> Curriculum:
    """The curriculum of these questions; a picture is described by its longest answer."""
    descriptions: dict[str, str] = {}
    easy = []
    for row, (path, options) in enumerate(zip(questions.paths, questions.options, strict=True)):
        answer = options[int(questions.answers[row])]
        descriptions[path] = max(descriptions.get(path, ""), answer, key=len)
        if all(len(option.split()) == 1 for option in options):
            easy.append(row)
    row_descriptions = [descriptions[path] for path in questions.paths]
    rows = np.asarray(easy or range(len(questions)), np.int64)
    return Curriculum(processor, pictures, questions, row_descriptions, rows)


def stage_at(done: float) -> Stage:
    """The stage at the share `done` (0 to 1) of the steps."""
    if done < WORDS_UNTIL:
        return "words"
    return "vision" if done < VISION_UNTIL else "pictures"


def sample_batch(
    curriculum: Curriculum, size: int, stage: Stage, generator: np.random.Generator
) -> tuple[VqaBatch, Rows]:
    """A random batch of a stage, and the rows of its questions."""
    rows = generator.choice(
        curriculum.easy if stage == "words" else np.arange(len(curriculum.questions)), size
    )
    orders = generator.integers(0, len(ORDERS), size)
    encoded, shown = [], []
    for row, order in zip(rows.tolist(), orders.tolist(), strict=True):
        location = curriculum.questions.root, curriculum.questions.paths[row]
        encoded_question = encode_question(
            curriculum, row, order, 1 if stage == "words" else curriculum.pictures.tokens(*location)
        )
        if stage == "words":
            encoded.append(
                replace_image_token(
                    curriculum.processor.template, encoded_question, curriculum.descriptions[row]
                )
            )
            continue
        encoded.append(encoded_question)
        shown.append(curriculum.pictures.pixels(*location))
    return curriculum.processor.collate(encoded, shown), rows


def image_text_alignment_loss(
    curriculum: Curriculum, model: Any, batch: VqaBatch, rows: Rows
) -> Tensor:
    """Alignment loss (0-d): cross entropy of image tokens with the description of the picture."""
    tokens = model.get_image_features(
        batch.vision[PIXELS], batch.vision["image_grid_thw"]
    ).pooler_output
    words = functional.normalize(model.lm_head.weight.detach(), dim=-1)
    losses = []
    for row, vectors in zip(rows.tolist(), tokens, strict=True):
        ids = curriculum.processor.template.tokenizer.encode(
            curriculum.descriptions[row], add_special_tokens=False
        ).ids
        similarity = functional.normalize(vectors, dim=-1) @ words.T * INVERSE_TEMPERATURE
        losses.append(-similarity.log_softmax(-1)[:, ids].mean())
    return torch.stack(losses).mean()


def encode_question(curriculum: Curriculum, row: int, order: int, tokens: int) -> EncodedQuestion:
    """Encode a question with its answer, options in the order `ORDERS[order]`."""
    questions, permutation = curriculum.questions, ORDERS[order]
    letter = LETTERS[permutation.index(int(questions.answers[row]))]
    options = permute_options(questions.options[row], permutation)
    return curriculum.processor.template.encode(
        ChoicePrompt(questions.texts[row], options, letter), tokens
    )


def replace_image_token(
    template: ChatTemplate, question: EncodedQuestion, words: str
) -> EncodedQuestion:
    """The encoded question with `words` in the place of its single image token."""
    position = int(np.flatnonzero(question.ids == template.image)[0])
    word_ids = np.asarray(template.tokenizer.encode(words, add_special_tokens=False).ids, np.int64)

    def put(array: Rows, instead: Rows) -> Rows:
        return np.concatenate([array[:position], instead, array[position + 1 :]])

    nothing = np.full_like(word_ids, question.labels[position])
    types = np.zeros_like(word_ids)
    return EncodedQuestion(
        put(question.ids, word_ids), put(question.labels, nothing), put(question.types, types)
    )
