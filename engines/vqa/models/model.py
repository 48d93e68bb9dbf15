"""The model with its pictures and words: what a batch is, the loss on the answer, the four letters.

Sequences are padded on the left, so that all answers stand at the end: logits are computed for two
positions of a training sequence and for one of a question, not for the whole of either (a
vocabulary of 151,936 makes that 0.6 MB a token).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.torchkit.data import prefetch
from engines.vqa.models.chat_template import IGNORED, Encoded
from engines.vqa.models.vision_output import Form

PIXELS: Final = "pixel_values"
"""What every processor of transformers calls its pictures."""

FEATURES: Final = "features"
"""Instead of PIXELS: what the vision tower made of the pictures, [rows, width]."""

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
    seen: dict[str, Tensor] = field(default_factory=dict)
    """What the model takes beside the words, by its own names; empty: words alone. PIXELS may still
    be uint8 before `to_device`; FEATURES stand for PIXELS that the tower has seen."""
    host: dict[str, Any] = field(default_factory=dict)
    """More of that, which is read on the host and stays there."""
    padded: bool | None = None
    """Whether any token is padding; None: only the mask says it, and the model has to read it."""
    total: int = 0
    """Questions of the global micro-batch, of which these are one rank's share; 0: these are all.
    """

    def __len__(self) -> int:
        return self.total or len(self.ids)

    def showing(self, seen: dict[str, Tensor]) -> VqaBatch:
        """The same words with other things to see."""
        return replace(self, seen=seen)

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model, by its own names; the labels are not among them.

        Where the host knows the padding, the mask is the whole causal one [B, 1, T, T], or none.
        """
        masks = {"attention_mask": self.mask}
        if self.padded is not None:
            masks = {"attention_mask": causal(self.mask)} if self.padded else {}
        return {"input_ids": self.ids, **masks, **self.seen, **self.host}


def causal(mask: Tensor) -> Tensor:
    """Who sees whom, bool [B, 1, T, T], from a padding mask [B, T]: no padding, nothing later."""
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return earlier & mask.bool()[:, None, None]


def padded(encoded: Sequence[Encoded], pad: int) -> VqaBatch:
    """Questions as one batch of words, without their pictures."""
    shape = (len(encoded), max(len(one.ids) for one in encoded))
    ids, labels = np.full(shape, pad, np.int64), np.full(shape, IGNORED, np.int64)
    mask = np.zeros(shape, np.int64)
    for row, one in enumerate(encoded):
        start = shape[1] - len(one.ids)
        ids[row, start:], labels[row, start:], mask[row, start:] = one.ids, one.labels, 1
    return VqaBatch(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(labels))


def to_device(
    batch: VqaBatch, device: torch.device, values: Callable[[Tensor], Tensor]
) -> VqaBatch:
    """The batch on a device, pixels as numbers. Asynchronous from pinned memory."""
    batch = prefetch.to_device(batch, device)
    if PIXELS not in batch.seen:
        return batch
    return batch.showing({**batch.seen, PIXELS: values(batch.seen[PIXELS])})


class Answerer(nn.Module):
    """A vision-language model that is asked for one letter."""

    def __init__(self, model: Any, form: Form | None = None) -> None:
        """`form`: of the features that come in the place of pixels."""
        super().__init__()
        self.model = model
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._keeps = "logits_to_keep" in inspect.signature(whole.forward).parameters
        self._form = form

    def forward(self, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each question [B]: summed nats of its answer, tokens of it, whether the letter is hit.

        `labels` [B, T]; only the last LEARNT may be others than IGNORED.
        """
        keep = LEARNT + 1  # the last token predicts nothing that is there
        logits = self._logits(inputs, keep)[:, :-1]
        wanted = labels[:, -LEARNT:]
        nats = functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        )
        hit = logits[:, 0].detach().argmax(-1) == wanted[:, 0]
        return nats.view_as(wanted).sum(1), (wanted != IGNORED).sum(1), hit.float()

    def next_logits(self, batch: VqaBatch) -> Tensor:
        """Logits of the token that follows each question, float32 [B, V]."""
        return self._logits(batch.inputs(), 1)[:, -1]

    def _logits(self, inputs: dict[str, Any], last: int) -> Tensor:
        """Of the last positions, float32 [B, last, V]."""
        less = {"logits_to_keep": last} if self._keeps else {}
        found: Tensor = self.model(**self.named(inputs), **less, use_cache=False).logits
        return found[:, -last:].float()

    def named(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The same with features as the model wants to have them."""
        if FEATURES not in inputs or self._form is None:
            return inputs
        rest = {name: one for name, one in inputs.items() if name != FEATURES}
        return {**rest, "mm_encoder_outputs": {"image": self._form.output(inputs[FEATURES])}}

    def generate(
        self, batch: VqaBatch, longest: int, stops: Sequence[int], pad: int
    ) -> list[list[int]]:
        """Greedy answers: the new tokens of each, up to one of `stops`."""
        made: Tensor = self.model.generate(
            **self.named(batch.inputs()), max_new_tokens=longest, do_sample=False, num_beams=1,
            eos_token_id=list(stops), pad_token_id=pad, use_cache=True,
        )  # fmt: skip
        found: list[list[int]] = made[:, batch.ids.shape[1] :].tolist()
        return found
