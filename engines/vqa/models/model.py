"""Vision-language model and its batches: loss on the answer, letter logits, generation.

Sequences are padded on the left, so that all answers are at the end: logits are computed for two
positions of a training sequence and for one of a question (with a vocabulary of 151,936, logits
take 0.6 MB per token).
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
from engines.vqa.models.chat_template import IGNORED, EncodedQuestion
from engines.vqa.models.vision_output import Form

PIXELS: Final = "pixel_values"
"""Name of the pixels in the outputs of all transformers processors."""

FEATURES: Final = "features"
"""Name of the features [rows, width] of the vision tower, in the place of PIXELS."""

ANSWER_TOKENS: Final = 2
"""Tokens of an answer: the letter, and the token that ends the turn."""


@dataclass(frozen=True)
class VqaBatch:
    """A micro-batch of questions with their pictures."""

    ids: Tensor
    """Token ids [B, T], padded on the left."""
    mask: Tensor
    """[B, T]: 0 for padding."""
    labels: Tensor
    """[B, T]: token ids on the answers, IGNORED elsewhere."""
    vision: dict[str, Tensor] = field(default_factory=dict)
    """Image inputs by the argument names of the model; empty: text only. PIXELS may be uint8 before
    `to_device`; FEATURES are in the place of PIXELS where features are cached."""
    host: dict[str, Any] = field(default_factory=dict)
    """Further inputs, which the model reads on the host."""
    padded: bool | None = None
    """Whether any token is padding; None: unknown without reading the mask."""
    total: int = 0
    """Questions of the global micro-batch, of which this is the share of one rank; 0: all."""

    def __len__(self) -> int:
        return self.total or len(self.ids)

    def with_vision(self, vision: dict[str, Tensor]) -> VqaBatch:
        """The batch with other image inputs."""
        return replace(self, vision=vision)

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model, without labels.

        Where `padded` is known, the mask is the causal one [B, 1, T, T], or omitted.
        """
        masks = {"attention_mask": self.mask}
        if self.padded is not None:
            masks = {"attention_mask": causal_mask(self.mask)} if self.padded else {}
        return {"input_ids": self.ids, **masks, **self.vision, **self.host}


def causal_mask(mask: Tensor) -> Tensor:
    """Causal attention mask, bool [B, 1, T, T], from a padding mask [B, T]."""
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return earlier & mask.bool()[:, None, None]


def pad_questions(encoded: Sequence[EncodedQuestion], pad: int) -> VqaBatch:
    """Pad encoded questions to a batch without image inputs."""
    shape = (len(encoded), max(len(question.ids) for question in encoded))
    ids, labels = np.full(shape, pad, np.int64), np.full(shape, IGNORED, np.int64)
    mask = np.zeros(shape, np.int64)
    for row, question in enumerate(encoded):
        start = shape[1] - len(question.ids)
        ids[row, start:], labels[row, start:], mask[row, start:] = question.ids, question.labels, 1
    return VqaBatch(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(labels))


def to_device(
    batch: VqaBatch, device: torch.device, values: Callable[[Tensor], Tensor]
) -> VqaBatch:
    """The batch on a device, pixels normalized by `values`. Asynchronous from pinned memory."""
    batch = prefetch.to_device(batch, device)
    if PIXELS not in batch.vision:
        return batch
    return batch.with_vision({**batch.vision, PIXELS: values(batch.vision[PIXELS])})


class Answerer(nn.Module):
    """A vision-language model with the loss and logits of an answer."""

    def __init__(self, model: Any, form: Form | None = None) -> None:
        """`form`: the form of cached features; None: the model takes pixels."""
        super().__init__()
        self.model = model
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._keeps = "logits_to_keep" in inspect.signature(whole.forward).parameters
        self._form = form

    def forward(self, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each question [B]: summed nats of its answer, its tokens, whether the letter is right.

        `labels` [B, T]: IGNORED but on the last ANSWER_TOKENS positions.
        """
        keep = ANSWER_TOKENS + 1  # the last position predicts no label
        logits = self._logits(inputs, keep)[:, :-1]
        targets = labels[:, -ANSWER_TOKENS:]
        nats = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        hit = logits[:, 0].detach().argmax(-1) == targets[:, 0]
        return nats.view_as(targets).sum(1), (targets != IGNORED).sum(1), hit.float()

    def next_logits(self, batch: VqaBatch) -> Tensor:
        """Logits of the token that follows each question, float32 [B, V]."""
        return self._logits(batch.inputs(), 1)[:, -1]

    def _logits(self, inputs: dict[str, Any], last: int) -> Tensor:
        """Logits of the last positions, float32 [B, last, V]."""
        options = {"logits_to_keep": last} if self._keeps else {}
        logits: Tensor = self.model(
            **self.model_arguments(inputs), **options, use_cache=False
        ).logits
        return logits[:, -last:].float()

    def model_arguments(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with features in the form that the model takes."""
        if FEATURES not in inputs or self._form is None:
            return inputs
        rest = {name: value for name, value in inputs.items() if name != FEATURES}
        return {**rest, "mm_encoder_outputs": {"image": self._form.output(inputs[FEATURES])}}

    def generate(
        self, batch: VqaBatch, longest: int, stops: Sequence[int], pad: int
    ) -> list[list[int]]:
        """Greedy answers: the new tokens of each, up to one of `stops`."""
        sequences: Tensor = self.model.generate(
            **self.model_arguments(batch.inputs()), max_new_tokens=longest, do_sample=False,
            num_beams=1, eos_token_id=list(stops), pad_token_id=pad, use_cache=True,
        )  # fmt: skip
        tokens: list[list[int]] = sequences[:, batch.ids.shape[1] :].tolist()
        return tokens
