"""The captioner: projector and language model, the tokens of the media inserted into the prompt.

Sequence: before · media · after · caption. The loss is on the caption and its end token only. The
vision tower is no part of it: it is frozen, and its features may come from the cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.captioning.models import llm as language
from engines.captioning.models.generation import decode_greedily
from engines.captioning.models.llm import PromptTemplate
from engines.captioning.models.projectors import Projector

IGNORED: Final = -100
"""Label of a position that the loss leaves out."""
MEDIA_AT_ONCE: Final = 8
"""Media per pass of the calibration."""
WORDS_AT_ONCE: Final = 8192
"""Rows of the embeddings per pass of the calibration: Qwen3-8B's are 2.3 GiB in fp32."""


class Captioner(nn.Module):
    """Projector and language model.

    Two fixed scales, computed from the data and saved with the weights, normalize both ends of the
    projector: its input has standard deviation 1, its output that of the word embeddings. Without
    them a small model spends its first hundred steps on learning the scales.
    """

    def __init__(self, projector: Projector, llm: Any, template: PromptTemplate) -> None:
        super().__init__()
        self.projector = projector
        self.llm = llm
        # On the device, but not in the state dict: copying them in every step would synchronize.
        for name, ids in (("_before", template.before), ("_after", template.after)):
            self.register_buffer(name, torch.tensor(ids, dtype=torch.long), persistent=False)
        self._end = template.end
        self.prompt_tokens = 0
        """Tokens before the caption, in the last forward pass."""
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("token_scale", torch.ones(()))
        self.feature_scale: Tensor
        self.token_scale: Tensor
        self._before: Tensor
        self._after: Tensor

    def parameter_names(self, parts: Collection[str]) -> frozenset[str]:
        """Names of the parameters of some parts: `projector`, `lora`."""
        return frozenset(name for name, _ in self.named_parameters() if _part_of(name) in parts)

    def train_parts(self, parts: Collection[str], *, adapters: bool = True) -> None:
        """Train these parts and freeze all others. `adapters`: whether LoRA is computed at all.

        LoRA that was never trained adds 0; leaving it out saves its time.
        """
        tuner: Any = getattr(self.llm, "base_model", None)  # peft's, where the model has adapters
        if hasattr(tuner, "enable_adapter_layers"):
            (tuner.enable_adapter_layers if adapters else tuner.disable_adapter_layers)()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_part_of(name) in parts)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set both scales from features [B, F, N, D] and the word embeddings.

        The output of a fresh projector is measured: for inputs of standard deviation 1 it has 0.57
        (linear) down to 0.16 (C-Abstractor).
        """
        pieces = torch.split(features, MEDIA_AT_ONCE)
        self.feature_scale.copy_(1 / pooled_deviation(pieces).clamp_min(1e-6))
        weight = cast("Tensor", language.input_embeddings(self.llm).weight)
        output = pooled_deviation(
            self.projector(piece.float() * self.feature_scale) for piece in pieces
        )
        self.token_scale.copy_(
            pooled_deviation(torch.split(weight, WORDS_AT_ONCE)) / output.clamp_min(1e-6)
        )

    def embed_prompt(self, features: Tensor) -> Tensor:
        """Features [B, F, N, D] -> embeddings of all that precedes the caption, [B, P, W]."""
        embeddings = language.input_embeddings(self.llm)
        media = self.projector(features.float() * self.feature_scale) * self.token_scale
        before, after = (
            embeddings(ids).expand(len(features), -1, -1) for ids in (self._before, self._after)
        )
        return torch.cat([before.to(media.dtype), media, after.to(media.dtype)], 1)

    def forward(self, features: Tensor, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Summed negative log likelihood of each caption [B], and its tokens [B].

        `ids`, `labels` [B, T], padded on the right, so that the causal mask also hides the padding.
        Logits are computed for the caption only.
        """
        prompt = self.embed_prompt(features)
        self.prompt_tokens = prompt.shape[1]
        caption = language.input_embeddings(self.llm)(ids).to(prompt.dtype)
        inputs = torch.cat([prompt, caption[:, :-1]], 1)
        logits = self.llm(inputs_embeds=inputs, logits_to_keep=ids.shape[1], use_cache=False).logits
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return losses.view_as(labels).sum(1), (labels != IGNORED).sum(1)

    def generate(
        self, features: Tensor, longest: int, repetition_penalty: float = 1.0
    ) -> list[list[int]]:
        """Ids of a caption for each of features [B, F, N, D]; see `generation.decode_greedily`."""
        with torch.no_grad():
            prompt = self.embed_prompt(features)
        embeddings = language.input_embeddings(self.llm)
        return decode_greedily(
            prompt, self.next_logits, embeddings, self._end, longest, repetition_penalty
        )

    def next_token(self, inputs: Tensor, cache: Any) -> Tensor:
        """Most probable next token [B] after inputs [B, T, W] and the contents of the cache."""
        return self.next_logits(inputs, cache).argmax(-1)

    def next_logits(self, inputs: Tensor, cache: Any) -> Tensor:
        """Logits [B, V] of the next token after inputs [B, T, W] and the contents of the cache."""
        out = self.llm(
            inputs_embeds=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return cast("Tensor", out.logits[:, -1])


def pooled_deviation(pieces: Iterable[Tensor]) -> Tensor:
    """Standard deviation (0-d, float64) of all numbers in the pieces, each computed in fp32.

    Chan et al. 1983, "Algorithms for computing the sample variance", equation 2.1.
    """
    count, mean, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for piece in pieces:
        added = piece.numel()
        variance, piece_mean = (
            number.double().cpu() for number in torch.var_mean(piece.float(), correction=0)
        )
        difference, total = piece_mean - mean, count + added
        squares = squares + variance * added + difference**2 * (count * added / total)
        mean, count = mean + difference * (added / total), total
    return (squares / (count - 1)).sqrt()


def mean_loss(losses: Tensor, tokens: Tensor) -> Tensor:
    """Mean nats per token over a batch (0-d), from sums [B] and token counts [B]."""
    return losses.sum() / tokens.sum()


def _part_of(name: str) -> str:
    """The part that a parameter belongs to: `projector`, `lora`, or "" of the language model."""
    if name.startswith("projector."):
        return "projector"
    return "lora" if ".lora_" in name else ""
