"""Pictures and words through a model's own processor, whatever it makes of them.

Slower than patches cut here: the processor works anew on every picture in every epoch. What it
returns is handed on by its own names; only the answer's two tokens are put behind the words.
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

from engines.emitter import EngineError
from engines.vqa.models.chat_template import IGNORED, Said, Wording
from engines.vqa.models.model import PIXELS, VqaBatch

WORDS: Final = ("input_ids", "attention_mask")
FACTOR: Final = 28
"""Sides of cached pictures are multiples of it, so that many share one size and one file."""


@dataclass(frozen=True)
class Processed:
    """A processor that is asked itself."""

    wording: Wording
    processor: Any
    factor: int = FACTOR
    _tokens: dict[tuple[int, int], int] = field(default_factory=dict)
    _own: threading.local = field(default_factory=threading.local)

    @classmethod
    def of(cls, processor: Any, wording: Wording, folder: Path) -> Self:
        """Of a processor, tried on two pictures of different sides.

        Raises:
            EngineError: it fails on it, or it does not show the model any `pixel_values`.
        """
        made = cls(wording, processor)
        try:
            shapes = ((4 * FACTOR, 4 * FACTOR, 3), (2 * FACTOR, 5 * FACTOR, 3))
            tried = made.batch([Said("", (), None)] * 2, [np.zeros(one, "u1") for one in shapes])
        except Exception as error:  # code of any model's processor: it may raise whatever it likes
            reason = (str(error).splitlines() or [""])[0][:200]
            raise EngineError(
                f"{folder}: its processor cannot read a question with a picture ({reason}); "
                "install what it lacks, or take another model"
            ) from None
        if not isinstance(tried.seen.get(PIXELS), Tensor):
            raise EngineError(
                f"{folder}: its processor makes no {PIXELS} of a picture; take another model"
            )
        return made

    @property
    def blank(self) -> tuple[int, int, int]:
        """The mean colour of the image processor; grey where it states none."""
        mean = getattr(self.processor.image_processor, "image_mean", None) or (0.5, 0.5, 0.5)
        red, green, blue = (round(float(one) * 255) for one in mean)
        return red, green, blue

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a picture, with those that the processor puts around it.

        Measured with an empty question: text around a picture may join a question's first token.
        """
        if (height, width) not in self._tokens:
            blank = np.zeros((height, width, 3), np.uint8)
            asked = Said("", (), None)
            whole = self.batch([asked], [blank]).ids.shape[1]
            self._tokens[height, width] = whole - self.wording.lengths([asked])[0] + 1
        return self._tokens[height, width]

    def batch(
        self, said: Sequence[Said], pictures: Sequence[npt.NDArray[np.uint8]], **settings: Any
    ) -> VqaBatch:
        """Questions with their pictures, padded on the left. `settings`: the processor's own."""
        made = self._thread_own()(
            text=[self.wording.text(one) for one in said],
            images=[[Image.fromarray(picture)] for picture in pictures],
            padding=True, return_tensors="pt", add_special_tokens=False, **settings,
        )  # fmt: skip
        found = {name: one for name, one in made.items() if isinstance(one, Tensor)}
        found.pop("labels", None)  # PaliGemma's processor has a training of its own in mind
        answers = [self.wording.answer(one) for one in said]
        learnt = torch.tensor(answers, dtype=torch.long).view(len(said), -1)
        words, shape = {}, found["input_ids"].shape
        for name, value in found.items():
            if name != PIXELS and value.shape[:2] == shape:  # something for each token
                words[name] = torch.cat([value, _more(name, value, learnt)], 1)
        labels = torch.full_like(words["input_ids"], IGNORED)
        if learnt.shape[1]:
            labels[:, -learnt.shape[1] :] = learnt
        seen = {n: words.get(n, value) for n, value in found.items() if n not in WORDS}
        return VqaBatch(words["input_ids"], words["attention_mask"], labels, seen)

    def values(self, pixels: Tensor) -> Tensor:
        """As the processor made them."""
        return pixels

    def _thread_own(self) -> Any:
        # A call sets the padding of its tokenizer, which is not safe from several threads.
        if not hasattr(self._own, "processor"):
            self._own.processor = copy.deepcopy(self.processor)
            self._own.processor.tokenizer.padding_side = "left"
        return self._own.processor


def _more(name: str, value: Tensor, learnt: Tensor) -> Tensor:
    """What an answer's tokens [B, A] have where a prompt's [B, T, ...] have `value`.

    Types of tokens say which are the picture's (1; Gemma 3) or, where no prompt's has any, which
    are learnt: PaliGemma lets those of type 0 see each other both ways, the answer too.
    """
    if name == "input_ids":
        return learnt
    if value.dim() > 2:  # which parts of the picture are seen: what the last one sees
        return value[:, -1:].expand(-1, learnt.shape[1], *value.shape[2:])
    return torch.full_like(learnt, name in WORDS or not value.any()).to(value.dtype)
