"""The captioner: projector and language model, pictures spliced into the prompt.

Positions: before · picture · after · caption. The loss is on the caption and its end token only.
Apart from the vision tower, which is frozen and may have been run days ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.captioning.models import llm as language
from engines.captioning.models.llm import Wording
from engines.captioning.models.projectors import Projector

IGNORED: Final = -100
"""Label of a position that the loss leaves out."""
MEDIA_AT_ONCE: Final = 8
WORDS_AT_ONCE: Final = 8192
"""In calibrating: Qwen3-8B's embeddings are 2.3 GiB in fp32, and a clip's tokens may be more."""


class Captioner(nn.Module):
    """What is trained, and the language model that it speaks through.

    Two fixed scales, of the run's data and kept with its weights, put both ends of the projector
    where its fresh weights expect them: features come in with standard deviation 1, and tokens go
    out with that of the word embeddings. Without them a small model spends its first hundred steps
    on it.
    """

    def __init__(self, projector: Projector, llm: Any, wording: Wording) -> None:
        super().__init__()
        self.projector = projector
        self.llm = llm
        # Not kept with the weights, but on their device: copying them there would wait for it.
        for name, ids in (("_before", wording.before), ("_after", wording.after)):
            self.register_buffer(name, torch.tensor(ids, dtype=torch.long), persistent=False)
        self._end = wording.end
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("token_scale", torch.ones(()))
        self.feature_scale: Tensor
        self.token_scale: Tensor
        self._before: Tensor
        self._after: Tensor

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set both scales, from some features [B, F, N, D] and the word embeddings.

        What a fresh projector makes of standard deviation 1 is 0.57 (linear) down to 0.16
        (C-Abstractor), so its own output is measured.
        """
        some = torch.split(features, MEDIA_AT_ONCE)
        self.feature_scale.copy_(1 / deviation(some).clamp_min(1e-6))
        weight = cast("Tensor", language.embeddings(self.llm).weight)
        made = deviation(self.projector(one.float() * self.feature_scale) for one in some)
        self.token_scale.copy_(deviation(torch.split(weight, WORDS_AT_ONCE)) / made.clamp_min(1e-6))

    def prompt(self, features: Tensor) -> Tensor:
        """Features [B, F, N, D] -> the vectors before the caption, [B, P, W]."""
        words = language.embeddings(self.llm)
        seen = self.projector(features.float() * self.feature_scale) * self.token_scale
        before, after = (
            words(ids).expand(len(features), -1, -1) for ids in (self._before, self._after)
        )
        return torch.cat([before.to(seen.dtype), seen, after.to(seen.dtype)], 1)

    def forward(self, features: Tensor, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Summed negative log likelihood of each caption [B], and its tokens [B].

        `ids`, `labels` [B, T]. Padding stands on the right, where no token before it can see it,
        so the causal mask is all the mask there is. Logits are computed for the caption alone.
        """
        prompt = self.prompt(features)
        spoken = language.embeddings(self.llm)(ids).to(prompt.dtype)
        whole = torch.cat([prompt, spoken[:, :-1]], 1)
        logits = self.llm(inputs_embeds=whole, logits_to_keep=ids.shape[1], use_cache=False).logits
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return losses.view_as(labels).sum(1), (labels != IGNORED).sum(1)

    @torch.no_grad()
    def generate(self, features: Tensor, longest: int) -> list[list[int]]:
        """Greedy captions with a key-value cache: ids of each, the end token left out."""
        from transformers import DynamicCache

        inputs, cache = self.prompt(features), DynamicCache()
        going = torch.ones(len(features), dtype=torch.bool, device=features.device)
        made: list[Tensor] = []
        for _ in range(longest):
            token = self.following(inputs, cache)
            token = torch.where(going, token, self._end)
            made.append(token)
            going = going & (token != self._end)
            if not going.any():
                break
            inputs = language.embeddings(self.llm)(token)[:, None].to(inputs.dtype)
        return [_until(row, self._end) for row in torch.stack(made, 1).tolist()]

    def following(self, inputs: Tensor, cache: Any) -> Tensor:
        """The likeliest token [B] after inputs [B, T, W] and what the cache holds."""
        out = self.llm(
            inputs_embeds=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return cast("Tensor", out.logits[:, -1].argmax(-1))


def deviation(pieces: Iterable[Tensor]) -> Tensor:
    """Standard deviation (0-d, float64) of all numbers in the pieces, each taken in fp32.

    Chan et al. 1983, "Algorithms for computing the sample variance", equation 2.1.
    """
    count, mean, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for piece in pieces:
        more = piece.numel()
        spread, at = (one.double().cpu() for one in torch.var_mean(piece.float(), correction=0))
        away, whole = at - mean, count + more
        squares = squares + spread * more + away**2 * (count * more / whole)
        mean, count = mean + away * (more / whole), whole
    return (squares / (count - 1)).sqrt()


def mean_loss(losses: Tensor, tokens: Tensor) -> Tensor:
    """Nats a token over a batch (0-d)."""
    return losses.sum() / tokens.sum()


def _until(ids: Sequence[int], end: int) -> list[int]:
    said = list(ids)
    return said[: said.index(end)] if end in said else said
