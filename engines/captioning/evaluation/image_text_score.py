"""Whether a caption fits its picture: by a CLIP or SigLIP, or by the local stand-in.

Apart from the evaluation because it needs what no other score does: pixels, or the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from engines.captioning.context import Context
from engines.captioning.data.dataset import Split
from engines.captioning.data.media import Frames, Rows
from engines.captioning.metrics import Numbers, Scored, clip_score, mean_score
from engines.captioning.metrics.local_clip_score import LocalScorer
from engines.captioning.prepare import Prepared
from engines.torchkit.data.data_loader import split_rows

AT_ONCE: Final = 256
LOCAL: Final = "cosine (local stand-in)"
FEWEST: Final = 32
"""Training media without which the local scorer would know nothing."""


class Judge:
    """Loads or trains the scorer with the first caption that it is asked about."""

    def __init__(self, context: Context, pixels: Frames, train: Split, ready: Prepared) -> None:
        self._context = context
        self._pixels = pixels
        self.train = train
        """What the local scorer learns from."""
        self._ready = ready
        self._scorer: clip_score.Scorer | None = None
        self._local: LocalScorer | None = None

    def score(self, split: Split, candidates: Sequence[str]) -> list[Scored]:
        """Mean cosine and, where there is one, probability."""
        if self._context.params.siglip:
            return self._by_model(split, candidates)
        if self._context.spec.task != "train" or len(self.train) < FEWEST:
            self._context.emit.notice(
                "not-scored",
                "siglip: no judge is set, and the local one needs a training run on at least "
                f"{FEWEST} media; set siglip = hub:org/name",
            )
            return []
        local = self._trained()
        features = self._pooled(split.rows)
        cosine, _ = local.score(features, candidates)
        first = [said[0] for said in split.captions.references]
        remark = (
            f"no SigLIP: two linear heads trained on {local.captions} training captions; recall@1 "
            f"of the true captions among themselves {local.recall(features, first):.2f}"
        )
        return [mean_score(LOCAL, cosine, remark)]

    def park(self) -> None:
        """Move the judge to host memory: it is no part of a training step's peak."""
        if self._scorer is not None:
            self._scorer.to("cpu")

    def _by_model(self, split: Split, candidates: Sequence[str]) -> list[Scored]:
        params = self._context.params
        if self._scorer is None:
            self._scorer = clip_score.Scorer(params.siglip, str(self._context.device))
        scorer = self._scorer
        scorer.to(str(self._context.device))
        cosine: list[Numbers] = []
        chance: list[Numbers] = []
        cut = 0
        for start in range(0, len(split), AT_ONCE):
            rows = split.rows[start : start + AT_ONCE]
            images = self._pixels.gather(rows).numpy()
            found = scorer.score(images, candidates[start : start + AT_ONCE])
            cosine.append(found[0])
            chance.append(found[1])
            cut += scorer.truncated
            self._context.report_progress(start + len(rows), len(split), "captions judged")
        if cut:
            text = f"{split.name}: {cut} captions were longer than the judge's text tower"
            self._context.emit.notice("texts-truncated", text, cut)
        whole = np.concatenate(cosine), np.concatenate(chance)
        return clip_score.scored(scorer.name, *whole, frames=self._pixels.frames)

    def _trained(self) -> LocalScorer:
        if self._local is None:
            self._context.emit.phase("cache", "local scorer")
            first = [said[0] for said in self.train.captions.references]
            with torch.random.fork_rng(), torch.enable_grad():
                self._local = LocalScorer.fit(self._pooled(self.train.rows), first)
        return self._local

    def _pooled(self, rows: Rows) -> Numbers:
        """The mean feature of each medium, [n, D]."""
        batches = self._context.pipeline.batches(
            split_rows(rows, AT_ONCE), self._ready.items.gather
        )
        pooled = [self._ready.features(seen).float().mean((1, 2)) for _, seen in batches]
        return torch.cat(pooled).cpu().numpy()
