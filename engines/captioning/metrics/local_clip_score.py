"""A stand-in for SigLIP where no weights can be had: two linear heads, trained on the train split.

Honest about what it is: pictures are the pooled features of the frozen tower that the captioner
sees too, captions are bags of hashed letter n-grams (any language, no weights), and the heads are
trained by SigLIP's own loss (Zhai et al. 2023). It knows only the words of the train split, and its
numbers compare models on one subset, nothing else. `recall` says how far to trust it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.captioning.metrics import Numbers
from engines.captioning.metrics.tokenizers import normal

BUCKETS: Final = 1024
"""Places of letter n-grams, with signs, so that those which meet cancel out on average (Weinberger
et al. 2009); eight times as many cost eight times the seconds for hardly another number."""
WIDTH: Final = 128
ORDERS: Final = (1, 2, 3)
"""Letters of an n-gram; a Korean syllable is one letter."""
STEPS: Final = 200
BATCH: Final = 256
RATE: Final = 4e-3
DECAY: Final = 0.05

Features = np.ndarray[Any, np.dtype[Any]]


class LocalScorer:
    """Pooled vision features and captions in one space; made by `fit`."""

    def __init__(self, width: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._shown, self._said = _head(width, generator), _head(BUCKETS, generator)
        self._scale = nn.Parameter(torch.tensor(10.0).log())
        self._bias = nn.Parameter(torch.tensor(-10.0))
        self._centre = torch.zeros(width)
        self._spread = torch.ones(width)
        self.captions = 0
        """Captions that it was trained on."""

    @classmethod
    def fit(cls, features: Features, captions: Sequence[str], seed: int = 0) -> LocalScorer:
        """Train both heads: 200 steps, a few seconds. `features`: [n, ..., D], see `pool`."""
        shown = pool(features)
        made = cls(shown.shape[1], seed)
        made.captions = len(captions)
        made._centre, made._spread = shown.mean(0), shown.std(0).clamp_min(1e-6)
        shown, said = made._standard(shown), letters(captions)
        same = _same(captions)
        weights = [made._shown, made._said, made._scale, made._bias]
        optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY)
        generator = torch.Generator().manual_seed(seed)
        for step in range(STEPS):
            rows = torch.randperm(len(said), generator=generator)[:BATCH]
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            logits = made._logits(shown[rows], said[rows])
            wanted = torch.where(same[rows][:, None] == same[rows][None], 1.0, -1.0)
            loss = -functional.logsigmoid(wanted * logits).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return made

    @torch.no_grad()
    def score(self, features: Features, captions: Sequence[str]) -> tuple[Numbers, Numbers]:
        """Cosine [n] and probability [n] of each pair."""
        shown, said = self._vectors(self._standard(pool(features)), letters(captions))
        cosine = (shown * said).sum(-1)
        chance = torch.sigmoid(self._scale.exp() * cosine + self._bias)
        return cosine.double().numpy(), chance.double().numpy()

    @torch.no_grad()
    def recall(self, features: Features, captions: Sequence[str]) -> float:
        """Share of pictures whose own caption is the nearest among all these captions."""
        logits = self._logits(self._standard(pool(features)), letters(captions))
        same = _same(captions)
        return float((same[logits.argmax(1)] == same).double().mean())

    def _standard(self, shown: Tensor) -> Tensor:
        return (shown - self._centre) / self._spread

    def _vectors(self, shown: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        return (
            functional.normalize(shown @ self._shown, dim=-1),
            functional.normalize(said @ self._said, dim=-1),
        )

    def _logits(self, shown: Tensor, said: Tensor) -> Tensor:
        shown, said = self._vectors(shown, said)
        return self._scale.exp() * shown @ said.T + self._bias


def pool(features: Features) -> Tensor:
    """[n, ..., D] -> float32 [n, D]: the mean over patches and frames."""
    middle = tuple(range(1, features.ndim - 1))
    return torch.from_numpy(np.asarray(features, np.float32).mean(middle))


def letters(captions: Sequence[str]) -> Tensor:
    """Unit vectors [n, BUCKETS] of letter n-grams, hashed by CRC-32: equal on every machine."""
    made = np.zeros((len(captions), BUCKETS), np.float32)
    for row, caption in enumerate(captions):
        text = f" {normal(caption)} "
        for order in ORDERS:
            for at in range(len(text) - order + 1):
                key = zlib.crc32(text[at : at + order].encode())
                made[row, key % BUCKETS] += 1 if key & 1 << 31 else -1
    return functional.normalize(torch.from_numpy(made), dim=-1)


def _same(captions: Sequence[str]) -> Tensor:
    """Number of each caption; equal ones have one number, so that none is its own negative."""
    known: dict[str, int] = {}
    return torch.tensor([known.setdefault(normal(one), len(known)) for one in captions])


def _head(width: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(width, WIDTH, generator=generator) * width**-0.5)
