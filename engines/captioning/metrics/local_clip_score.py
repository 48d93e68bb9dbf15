"""Local image-text scorer, where no CLIP or SigLIP is set: two linear heads on the training split.

Pictures are pooled features of the captioner's frozen tower, captions bags of hashed letter n-grams
(any language, no pretrained weights); the heads are trained by SigLIP's loss (Zhai et al. 2023). It
knows only the words of the training split, so its scores compare models on one subset only;
`recall` measures how far it can be trusted.
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
from engines.captioning.metrics.tokenizers import normalize_text

BUCKETS: Final = 1024
"""Buckets of the signed hashing of letter n-grams (Weinberger et al. 2009): collisions cancel on
average. Eight times as many take eight times the time and change the scores little."""
WIDTH: Final = 128
ORDERS: Final = (1, 2, 3)
"""Lengths of n-grams in letters; a Korean syllable is one letter."""
STEPS: Final = 200
BATCH: Final = 256
RATE: Final = 4e-3
DECAY: Final = 0.05

Features = np.ndarray[Any, np.dtype[Any]]


class LocalScorer:
    """Linear heads from pooled vision features and captions to one space; built by `fit`."""

    def __init__(self, width: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._image_head, self._text_head = (
            _init_head(width, generator),
            _init_head(BUCKETS, generator),
        )
        self._scale = nn.Parameter(torch.tensor(10.0).log())
        self._bias = nn.Parameter(torch.tensor(-10.0))
        self._mean = torch.zeros(width)
        self._std = torch.ones(width)
        self.captions = 0
        """Number of captions that it was trained on."""

    @classmethod
    def fit(cls, features: Features, captions: Sequence[str], seed: int = 0) -> LocalScorer:
        """Train both heads in 200 steps, a few seconds. `features`: see `pool_features`."""
        images = pool_features(features)
        scorer = cls(images.shape[1], seed)
        scorer.captions = len(captions)
        scorer._mean, scorer._std = images.mean(0), images.std(0).clamp_min(1e-6)
        images, texts = scorer._standardize(images), hash_letter_ngrams(captions)
        numbers = _caption_numbers(captions)
        weights = [scorer._image_head, scorer._text_head, scorer._scale, scorer._bias]
        optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY)
        generator = torch.Generator().manual_seed(seed)
        for step in range(STEPS):
            rows = torch.randperm(len(texts), generator=generator)[:BATCH]
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            logits = scorer._logits(images[rows], texts[rows])
            targets = torch.where(numbers[rows][:, None] == numbers[rows][None], 1.0, -1.0)
            loss = -functional.logsigmoid(targets * logits).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return scorer

    @torch.no_grad()
    def score(self, features: Features, captions: Sequence[str]) -> tuple[Numbers, Numbers]:
        """Cosine [n] and probability [n] of each pair."""
        images, texts = self._vectors(
            self._standardize(pool_features(features)), hash_letter_ngrams(captions)
        )
        cosine = (images * texts).sum(-1)
        probability = torch.sigmoid(self._scale.exp() * cosine + self._bias)
        return cosine.double().numpy(), probability.double().numpy()

    @torch.no_grad()
    def recall(self, features: Features, captions: Sequence[str]) -> float:
        """Share of pictures whose own caption is the nearest among all these captions."""
        logits = self._logits(
            self._standardize(pool_features(features)), hash_letter_ngrams(captions)
        )
        numbers = _caption_numbers(captions)
        return float((numbers[logits.argmax(1)] == numbers).double().mean())

    def _standardize(self, images: Tensor) -> Tensor:
        return (images - self._mean) / self._std

    def _vectors(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return (
            functional.normalize(images @ self._image_head, dim=-1),
            functional.normalize(texts @ self._text_head, dim=-1),
        )

    def _logits(self, images: Tensor, texts: Tensor) -> Tensor:
        images, texts = self._vectors(images, texts)
        return self._scale.exp() * images @ texts.T + self._bias


def pool_features(features: Features) -> Tensor:
    """[n, ..., D] -> float32 [n, D]: the mean over patches and frames."""
    inner_axes = tuple(range(1, features.ndim - 1))
    return torch.from_numpy(np.asarray(features, np.float32).mean(inner_axes))


def hash_letter_ngrams(captions: Sequence[str]) -> Tensor:
    """Unit vectors [n, BUCKETS] of letter n-grams, hashed by CRC-32, equal on every machine."""
    counts = np.zeros((len(captions), BUCKETS), np.float32)
    for row, caption in enumerate(captions):
        text = f" {normalize_text(caption)} "
        for order in ORDERS:
            for start in range(len(text) - order + 1):
                key = zlib.crc32(text[start : start + order].encode())
                counts[row, key % BUCKETS] += 1 if key & 1 << 31 else -1
    return functional.normalize(torch.from_numpy(counts), dim=-1)


def _caption_numbers(captions: Sequence[str]) -> Tensor:
    """A number for each caption [n]; equal captions share one, so that none is its own negative."""
    numbers: dict[str, int] = {}
    return torch.tensor(
        [numbers.setdefault(normalize_text(caption), len(numbers)) for caption in captions]
    )


def _init_head(width: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(width, WIDTH, generator=generator) * width**-0.5)
