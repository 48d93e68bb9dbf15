"""Makes batches of prompts and pictures for a model.

For Qwen2-VL and its successors patches are cut here from cached pixels; for other models their own
processor is called. A test decides: a batch made here must have the same tensors, by name and by
value, as one of the model's processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.vqa.models.chat_template import ChatTemplate, ChoicePrompt
from engines.vqa.models.hf_processor import HFProcessor
from engines.vqa.models.model import PIXELS, VqaBatch
from engines.vqa.models.qwen_patches import QwenPatchProcessor

Pixels = npt.NDArray[np.uint8]


class ImageTextProcessor(Protocol):
    """Makes the batches of a model."""

    @property
    def factor(self) -> int:
        """Sides of pictures are multiples of it, in pixels."""

    @property
    def mean_color(self) -> tuple[int, int, int]:
        """The mean color (RGB, 0 to 255), close to 0 when normalized.

        Not exactly 0: Idefics3 treats a picture of zeros as padding.
        """

    def count_image_tokens(self, height: int, width: int) -> int:
        """Number of tokens of a picture of `height` x `width` pixels."""

    def batch(self, prompts: Sequence[ChoicePrompt], pictures: Sequence[Pixels]) -> VqaBatch:
        """Prompts with their pictures [h, w, 3]; all prompts have answers, or none."""

    def normalize_pixels(self, pixels: Tensor) -> Tensor:
        """`pixel_values` of a batch, normalized for the model, on their device."""


def create_processor(processor: Any, template: ChatTemplate, folder: Path) -> ImageTextProcessor:
    """The image-text processor for a processor of transformers.

    Raises:
        EngineError: the processor fails on a prompt with a picture.
    """
    qwen = QwenPatchProcessor.from_hf_processor(processor, template)
    if qwen is not None and processors_agree(qwen, HFProcessor(template, processor)):
        return qwen
    return HFProcessor.create(processor, template, folder)


def processors_agree(qwen: QwenPatchProcessor, hf: HFProcessor) -> bool:
    """Whether both make equal batches of a prompt with a picture of two tokens by three."""
    sides = (2 * qwen.factor, 3 * qwen.factor, 3)
    pictures = [np.random.default_rng(0).integers(0, 256, sides, np.uint8)]
    prompts = [ChoicePrompt("what?", (), "a")]
    try:
        expected = hf.batch(prompts, pictures, do_resize=False)
    except Exception:  # code of any processor: any exception
        return False
    batch = qwen.batch(prompts, pictures)
    actual = batch.with_vision(
        {**batch.vision, PIXELS: qwen.normalize_pixels(batch.vision[PIXELS])}
    )
    pairs = [(actual.inputs().get(name), value) for name, value in expected.inputs().items()]
    equal = all(
        value is not None and _equal(value, expected_value) for value, expected_value in pairs
    )
    return equal and actual.vision.keys() == expected.vision.keys()


def _equal(first: Tensor, second: Tensor) -> bool:
    comparable = first.shape == second.shape and first.dtype == second.dtype
    return comparable and torch.allclose(first, second, atol=1e-4)
