"""Batches by the processor of a model, for models other than Qwen-VL.

Slower than `qwen_patches`: the processor runs on every picture in every epoch. Its outputs keep
their names; the two tokens of the answer are appended to those that have one entry per token.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from engines.emitter import EngineError, first_line
from engines.vqa.models.chat_template import IGNORED, ChatTemplate, ChoicePrompt
from engines.vqa.models.model import PIXELS, VqaBatch

TEXT_INPUTS: Final = ("input_ids", "attention_mask")
FACTOR: Final = 28
"""Sides of pictures are multiples of it, so that many share one size and one cache file."""


@dataclass(frozen=True)
class HFProcessor:
    """Makes batches by calling the processor of a model."""

    template: ChatTemplate
    processor: Any
    _tokens: dict[tuple[int, int], int] = field(default_factory=dict)
    _local: threading.local = field(default_factory=threading.local)

    @classmethod
    def create(cls, processor: Any, template: ChatTemplate, folder: Path) -> Self:
        """Wrap a processor, after a test on two pictures of different sizes.

        Raises:
            EngineError: it fails on them, or its output has no `pixel_values`.
        """
        wrapper = cls(template, processor)
        try:
            shapes = ((4 * FACTOR, 4 * FACTOR, 3), (2 * FACTOR, 5 * FACTOR, 3))
            trial = wrapper.batch(
                [ChoicePrompt("", (), None)] * 2, [np.zeros(shape, "u1") for shape in shapes]
            )
        except Exception as error:  # code of any processor: any exception
            raise EngineError(
                f"{folder}: its processor cannot read a question with a picture "
                f"({first_line(error)}); install what it lacks, or take another model"
            ) from None
        if not isinstance(trial.vision.get(PIXELS), Tensor):
            raise EngineError(
                f"{folder}: its processor makes no {PIXELS} of a picture; take another model"
            )
        return wrapper

    @property
    def factor(self) -> int:
        """See `FACTOR`."""
        return FACTOR

    @property
    def mean_color(self) -> tuple[int, int, int]:
        """The mean color of the image processor; grey where it states none."""
        mean = getattr(self.processor.image_processor, "image_mean", None) or (0.5, 0.5, 0.5)
        red, green, blue = (round(float(channel) * 255) for channel in mean)
        return red, green, blue

    def count_image_tokens(self, height: int, width: int) -> int:
        """Number of tokens of a picture, with those that the processor adds around it.

        Measured with an empty question: text around a picture may merge with a question's token.
        """
        if (height, width) not in self._tokens:
            blank = np.zeros((height, width, 3), np.uint8)
            prompt = ChoicePrompt("", (), None)
            length = self.batch([prompt], [blank]).ids.shape[1]
            self._tokens[height, width] = length - self.template.count_tokens([prompt])[0] + 1
        return self._tokens[height, width]

    def batch(
        self,
        prompts: Sequence[ChoicePrompt],
        pictures: Sequence[npt.NDArray[np.uint8]],
        **settings: Any,
    ) -> VqaBatch:
        """Prompts with their pictures, padded on the left. `settings`: processor arguments."""
        output = self._thread_processor()(
            text=[self.template.prompt_text(prompt) for prompt in prompts],
            images=[[Image.fromarray(picture)] for picture in pictures],
            padding=True, return_tensors="pt", add_special_tokens=False, **settings,
        )  # fmt: skip
        tensors = {name: value for name, value in output.items() if isinstance(value, Tensor)}
        tensors.pop("labels", None)  # PaliGemma's processor makes labels of its own
        answers = [self.template.answer_tokens(prompt) for prompt in prompts]
        answer_ids = torch.tensor(answers, dtype=torch.long)  # [B, A]
        token_tensors, shape = {}, tensors["input_ids"].shape
        for name, value in tensors.items():
            if name != PIXELS and value.shape[:2] == shape:  # one entry per token
                answer = _extend_for_answer(name, value, answer_ids)
                token_tensors[name] = torch.cat([value, answer], 1)
        labels = torch.full_like(token_tensors["input_ids"], IGNORED)
        if answer_ids.shape[1]:
            labels[:, -answer_ids.shape[1] :] = answer_ids
        vision = {
            n: token_tensors.get(n, value) for n, value in tensors.items() if n not in TEXT_INPUTS
        }
        return VqaBatch(token_tensors["input_ids"], token_tensors["attention_mask"], labels, vision)

    def normalize_pixels(self, pixels: Tensor) -> Tensor:
        """The pixels as the processor made them."""
        return pixels

    def _thread_processor(self) -> Any:
        # A call sets the padding of its tokenizer, which is not safe from several threads.
        if not hasattr(self._local, "processor"):
            self._local.processor = copy.deepcopy(self.processor)
            self._local.processor.tokenizer.padding_side = "left"
        return self._local.processor


def _extend_for_answer(name: str, value: Tensor, answer_ids: Tensor) -> Tensor:
    """The entries [B, A, ...] of the answer's tokens for an output `value` [B, T, ...].

    The mask is 1. Token types are 0 if the prompts have any of 1 (Gemma 3: at image tokens), else
    1: PaliGemma attends in both directions among tokens of type 0, to which no answer may belong.
    """
    if name == "input_ids":
        return answer_ids
    if value.dim() > 2:  # a mask over parts of the picture: that of the last token
        return value[:, -1:].expand(-1, answer_ids.shape[1], *value.shape[2:])
    return torch.full_like(answer_ids, name in TEXT_INPUTS or not value.any()).to(value.dtype)
