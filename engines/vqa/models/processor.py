"""How pictures and the words around them become what a model takes.

Qwen2-VL and its successors read patches, which are cut here from cached pixels; every other
processor of transformers is asked itself. Which of the two it is, is decided by trying: a batch
made here must have the same tensors as one of the model's own processor, by name and by number.
Others cut the same patches and say more of them, or put more words around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.vqa.models.chat_template import Said, Wording
from engines.vqa.models.hf_processor import Processed
from engines.vqa.models.model import PIXELS, VqaBatch
from engines.vqa.models.qwen_patches import Patching

Pixels = npt.NDArray[np.uint8]


class Sight(Protocol):
    """What makes a model's batches."""

    @property
    def factor(self) -> int:
        """Sides of pictures are multiples of so many pixels."""

    @property
    def blank(self) -> tuple[int, int, int]:
        """The mean colour (RGB, 0 to 255), which is next to nothing in numbers. Not nothing:
        Idefics3 takes a picture of zeros for no picture.
        """

    def tokens(self, height: int, width: int) -> int:
        """Tokens that a picture with sides of so many pixels becomes."""

    def batch(self, said: Sequence[Said], pictures: Sequence[Pixels]) -> VqaBatch:
        """Questions with their pictures [h, w, 3]; all are to be learnt, or none."""

    def values(self, pixels: Tensor) -> Tensor:
        """`pixel_values` of a batch as numbers for the model, on the device they are on."""


def of(processor: Any, wording: Wording, folder: Path) -> Sight:
    """The sight of a model's processor.

    Raises:
        EngineError: the processor cannot read a picture with words.
    """
    cut = Patching.of(processor, wording)
    if cut is not None and agree(cut, Processed(wording, processor)):
        return cut
    return Processed.of(processor, wording, folder)


def agree(cut: Patching, asked: Processed) -> bool:
    """Whether both make the same of a question with a picture of two tokens by three."""
    sides = (2 * cut.factor, 3 * cut.factor, 3)
    pictures = [np.random.default_rng(0).integers(0, 256, sides, np.uint8)]
    said = [Said("what?", (), "a")]
    try:
        theirs = asked.batch(said, pictures, do_resize=False)
    except Exception:  # code of any model's processor: it may raise whatever it likes
        return False
    batch = cut.batch(said, pictures)
    own = batch.showing({**batch.seen, PIXELS: cut.values(batch.seen[PIXELS])})
    pairs = [(own.inputs().get(name), value) for name, value in theirs.inputs().items()]
    alike = all(one is not None and _equal(one, other) for one, other in pairs)
    return alike and own.seen.keys() == theirs.seen.keys()


def _equal(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.allclose(one, other, atol=1e-4)
