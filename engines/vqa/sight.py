"""How pictures and the words around them become what a model takes.

Qwen2-VL and its successors read patches, which are cut here from cached pixels; every other
processor of transformers is asked itself. Which of the two it is, is decided by trying: the patches
cut here must equal those of the model's own image processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engines.vqa.model import VqaBatch
from engines.vqa.patching import Patching
from engines.vqa.processed import Processed
from engines.vqa.wording import Said, Wording

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
    return Patching.of(processor, wording) or Processed.of(processor, wording, folder)
