"""The model with its pictures and words: what a batch is, the loss on the answer, the four letters.

Sequences are padded on the left, so that all answers stand at the end: logits are computed for two
positions of a training sequence and for one of a question, not for the whole of either (a
vocabulary of 151,936 makes that 0.6 MB a token).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.vqa.pixels import Grid, Patches
from engines.vqa.wording import IGNORED, Encoded

LEARNT: Final = 2
"""Positions of an answer: the letter, and the token that ends the turn."""


@dataclass(frozen=True)
class VqaBatch:
    """A micro-batch of questions with their pictures."""

    ids: Tensor
    """[B, T], padded on the left."""
    mask: Tensor
    """[B, T]: 0 for padding."""
    labels: Tensor
    """[B, T]: IGNORED but on the answers, and everywhere in questions without one."""
    mm_token_type_ids: Tensor
    """[B, T]: 1 for tokens of a picture."""
    pixel_values: Tensor
    """Patches of all pictures: uint8 [P, 3, p, p], on the device float [P, 3 x frames x p x p]."""
    image_grid_thw: Tensor
    """[B, 3]: frames, rows and columns of patches of each picture."""

    total: int = 0
    """Questions of the global micro-batch, of which these are one rank's share; 0: these are all.
    """

    def __len__(self) -> int:
        return self.total or len(self.ids)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> VqaBatch:
        """With the function applied to every tensor."""
        changed: dict[str, Any] = {
            n: function(t) for n, t in vars(self).items() if isinstance(t, Tensor)
        }
        return replace(self, **changed)

    def inputs(self) -> dict[str, Tensor]:
        """Arguments of the model, by its own names; the labels are not among them."""
        words = {"input_ids": self.ids, "attention_mask": self.mask}
        if not len(self.image_grid_thw):  # words alone
            return words
        return {
            **words,
            "mm_token_type_ids": self.mm_token_type_ids,
            "pixel_values": self.pixel_values,
            "image_grid_thw": self.image_grid_thw,
        }


def collate(
    encoded: Sequence[Encoded], patches: Sequence[Patches], grids: Sequence[Grid], pad: int
) -> VqaBatch:
    """Questions and their pictures as one batch."""
    longest = max(len(one.ids) for one in encoded)
    shape = (len(encoded), longest)
    ids, labels = np.full(shape, pad, np.int64), np.full(shape, IGNORED, np.int64)
    mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(encoded):
        start = longest - len(one.ids)
        ids[row, start:], labels[row, start:] = one.ids, one.labels
        mask[row, start:], types[row, start:] = 1, one.types
    seen = np.concatenate(list(patches)) if patches else np.empty((0, 3, 1, 1), np.uint8)
    ids_, mask_, labels_, types_ = (torch.from_numpy(one) for one in (ids, mask, labels, types))
    thw = torch.tensor([[1, *grid] for grid in grids]).view(-1, 3)
    return VqaBatch(ids_, mask_, labels_, types_, torch.from_numpy(seen), thw)


def to_device(
    batch: VqaBatch,
    device: torch.device,
    values: Callable[[Tensor], Tensor],
    *,
    blank: bool = False,
) -> VqaBatch:
    """The batch on a device, patches as numbers; `blank`: pictures of nothing but the mean colour.

    Asynchronous from pinned memory.
    """
    if device.type != "cpu":
        batch = batch.mapped(lambda tensor: tensor.to(device, non_blocking=True))
    seen = values(batch.pixel_values)
    return replace(batch, pixel_values=torch.zeros_like(seen) if blank else seen)


class Answerer(nn.Module):
    """A vision-language model that is asked for one letter."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each question [B]: summed nats of its answer, tokens of it, whether the letter is hit.

        `labels` [B, T]; only the last LEARNT may be others than IGNORED.
        """
        keep = LEARNT + 1  # the last token predicts nothing that is there
        logits = self.model(**inputs, logits_to_keep=keep, use_cache=False).logits[:, :-1].float()
        wanted = labels[:, -LEARNT:]
        nats = functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        )
        hit = logits[:, 0].detach().argmax(-1) == wanted[:, 0]
        return nats.view_as(wanted).sum(1), (wanted != IGNORED).sum(1), hit.float()

    def next_logits(self, batch: VqaBatch) -> Tensor:
        """Logits of the token that follows each question, float32 [B, V]."""
        found: Tensor = self.model(**batch.inputs(), logits_to_keep=1, use_cache=False).logits
        return found[:, -1].float()

    def generate(self, batch: VqaBatch, longest: int, end: int, pad: int) -> list[list[int]]:
        """Greedy answers: the new tokens of each."""
        made: Tensor = self.model.generate(
            **batch.inputs(), max_new_tokens=longest, do_sample=False, num_beams=1,
            eos_token_id=end, pad_token_id=pad, use_cache=True,
        )  # fmt: skip
        found: list[list[int]] = made[:, batch.ids.shape[1] :].tolist()
        return found
