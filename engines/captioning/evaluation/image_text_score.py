"""Image-text score of captions: by a CLIP or SigLIP model, or by the local scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from engines.captioning.context import Context
from engines.captioning.data.dataset import Split
from engines.captioning.data.media import Frames, Rows
from engines.captioning.metrics import (
    CaptionScore,
    Numbers,
    clip_score,
    mean_score,
    share_score,
)
from engines.captioning.metrics.local_clip_score import LocalScorer
from engines.captioning.prepare import PreparedCaptioner
from engines.torchkit.data.data_loader import split_rows

MEDIA_PER_BATCH: Final = 256
LOCAL_NAME: Final = "cosine (local stand-in)"
MIN_TRAINING_MEDIA: Final = 32
"""Fewest training media on which the local scorer is trained."""


class ImageTextScorer:
    """Scores captions by their media; loads or trains its scorer on the first use."""

    def __init__(
        self, context: Context, pixels: Frames, train: Split, ready: PreparedCaptioner
    ) -> None:
        self._context = context
        self._pixels = pixels
        self.train = train
        """The split on which the local scorer is trained."""
        self._ready = ready
        self._scorer: clip_score.ClipScorer | None = None
        self._local: LocalScorer | None = None

    def score(self, split: Split, candidates: Sequence[str]) -> list[CaptionScore]:
        """Mean cosine and, with SigLIP, probability; empty, with a notice, without a scorer."""
        if self._context.params.siglip:
            return self._score_by_model(split, candidates)
        if self._context.spec.task != "train" or len(self.train) < MIN_TRAINING_MEDIA:
            self._context.emit.notice(
                "not-scored",
                "siglip: no judge is set, and the local one needs a training run on at least "
                f"{MIN_TRAINING_MEDIA} media; set siglip = hub:org/name",
            )
            return []
        local = self._train_local_scorer()
        features = self._pool_features(split.rows)
        cosine, _ = local.score(features, candidates)
        first = [references[0] for references in split.captions.references]
        remark = (
            f"no SigLIP: two linear heads trained on {local.captions} training captions; recall@1 "
            f"of the true captions among themselves {local.recall(features, first):.2f}"
        )
        return [mean_score(LOCAL_NAME, cosine, remark)]

    def move_to_host(self) -> None:
        """Move the scorer to host memory, so that it adds nothing to the peak of training."""
        if self._scorer is not None:
            self._scorer.to("cpu")

    def _score_by_model(self, split: Split, candidates: Sequence[str]) -> list[CaptionScore]:
        params = self._context.params
        if self._scorer is None:
            self._scorer = clip_score.ClipScorer(params.siglip, str(self._context.device))
        scorer = self._scorer
        scorer.to(str(self._context.device))
        cosines: list[Numbers] = []
        probabilities: list[Numbers] = []
        truncated: list[bool] = []
        for start in range(0, len(split), MEDIA_PER_BATCH):
            rows = split.rows[start : start + MEDIA_PER_BATCH]
            images = self._pixels.gather(rows).numpy()
            scores = scorer.score(images, candidates[start : start + MEDIA_PER_BATCH])
            cosines.append(scores[0])
            probabilities.append(scores[1])
            truncated += scorer.truncated
            self._context.report_progress(start + len(rows), len(split), "captions judged")
        if count := sum(truncated):
            text = f"{split.name}: {count} captions were longer than the judge's text tower"
            self._context.emit.notice("texts-truncated", text, count)
        arrays = np.concatenate(cosines), np.concatenate(probabilities)
        name, remark = (
            f"cut by the judge at {scorer.context} tokens",
            f"{scorer.name} reads no more",
        )
        cut = share_score(name, truncated, remark)
        return [cut, *clip_score.build_scores(scorer.name, *arrays, frames=self._pixels.frames)]

    def _train_local_scorer(self) -> LocalScorer:
        if self._local is None:
            self._context.emit.phase("cache", "local scorer")
            first = [references[0] for references in self.train.captions.references]
            with torch.random.fork_rng(), torch.enable_grad():
                self._local = LocalScorer.fit(self._pool_features(self.train.rows), first)
        return self._local

    def _pool_features(self, rows: Rows) -> Numbers:
        """Mean vision feature of each medium, [n, D]."""
        batches = self._context.pipeline.batches(
            split_rows(rows, MEDIA_PER_BATCH), self._ready.items.gather
        )
        pooled = [self._ready.encode_features(media).float().mean((1, 2)) for _, media in batches]
        return torch.cat(pooled).cpu().numpy()
