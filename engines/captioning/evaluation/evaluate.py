"""What a captioner says, and what it is worth: loss with its own pictures and with others', scores.

A caption model can learn its captions and ignore the pictures. So each caption's loss is computed a
second time with another medium's picture; the gap must be above zero, with its interval.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from engines import protocol
from engines.captioning.context import Context
from engines.captioning.data.dataset import Split
from engines.captioning.data.media import CaptionBatch, Rows, padded
from engines.captioning.evaluation.image_text_score import Judge
from engines.captioning.metrics import Scored, diversity
from engines.captioning.metrics.diversity import Diversity
from engines.captioning.prepare import Prepared
from engines.emitter import EngineError, artifact
from engines.torchkit.data.data_loader import split_rows
from engines.torchkit.training.early_stopping import eval_mode
from results.statistics import Interval, bootstrap_mean

Numbers = npt.NDArray[np.float64]

RESAMPLES: Final = 1000
UNSEEN: Final = 0.1
"""Occurrences that are granted to each token where some were never seen in training."""
SCORERS: Final = "engines.captioning.metrics"


@dataclass(frozen=True)
class Losses:
    """Of each medium's first caption: summed nats with its own and with another's picture."""

    own: Numbers
    other: Numbers
    tokens: Numbers

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(self.own.sum() / self.tokens.sum())


class Evaluator:
    """Looks at a model through the media of a run."""

    def __init__(self, context: Context, ready: Prepared, judge: Judge) -> None:
        self._judge = judge
        self._train = judge.train if context.spec.task == "train" else None
        self._context = context
        self._ready = ready
        self._batch = context.params.evaluate_batch

    def losses(self, split: Split, *, shuffled: bool = True) -> Losses:
        """Of every caption given first; `other` is NaN unless `shuffled`."""
        tokens = self._tokens(split)
        own = self._summed(split.rows, tokens)
        other = np.full(len(split), math.nan)
        if shuffled and len(split) > 1:
            other = self._summed(split.rows[strangers(len(split))], tokens)
        return Losses(own, other, np.asarray([len(one) for one in tokens], np.float64))

    def _summed(self, rows: Rows, tokens: Sequence[npt.NDArray[np.int64]]) -> Numbers:
        def gather(part: Rows) -> CaptionBatch:
            ids, labels = padded([tokens[place] for place in part])
            return CaptionBatch(self._ready.items.gather(rows[part]), ids, labels)

        found = []
        parts = split_rows(np.arange(len(rows)), self._batch)
        with eval_mode(self._ready.model):
            for _, batch in self._context.pipeline.batches(parts, gather):
                self._context.emit.check_stop()
                features = self._ready.features(batch.media)
                with self._context.precision.autocast():
                    summed, _ = self._ready.model(features, batch.ids, batch.labels)
                found.append(summed.double())
        return torch.cat(found).cpu().numpy()

    def captions(self, split: Split) -> list[str]:
        """Greedy captions of all media."""
        found: list[str] = []
        longest = self._context.params.max_new_tokens
        with eval_mode(self._ready.model):
            parts = split_rows(split.rows, self._batch)
            for _, seen in self._context.pipeline.batches(parts, self._ready.items.gather):
                features = self._ready.features(seen)
                with self._context.precision.autocast():
                    made = self._ready.model.generate(features, longest)
                found += [self._ready.wording.decode(ids) for ids in made]
                self._context.report_progress(len(found), len(split), "captions")
        return found

    def look(self, split: Split, when: str) -> tuple[list[str], float]:
        """Captions of all media and the unique share of them; warns where they are all alike."""
        candidates = self.captions(split)
        variety = diversity.measure(candidates, split.captions.language)
        self._warn(variety, f"{split.name}, {when}", len(candidates))
        return candidates, variety.unique

    def value(self, metric: str, split: Split, candidates: Sequence[str]) -> float:
        """One score of these captions, for the validation between epochs.

        Raises:
            EngineError: it cannot be computed here: no judge, or a library is missing.
        """
        if metric == "siglip":
            scored = self._judge.score(split, candidates)
            self._judge.park()
        else:
            scored = self._words(metric, split, candidates)
        if not scored:
            raise EngineError(
                f"monitor = {metric} cannot be computed here (see the notices); set another "
                "monitor, or turn early_stopping and load_best off"
            )
        return scored[-1].value  # of a judge with a probability that comes last

    def _warn(self, found: Diversity, where: str, n: int) -> None:
        if found.collapsed:
            self._context.emit.notice(
                "mode-collapse",
                f"{where}: {found.unique:.2f} of {n} captions are unique, "
                f"{found.most_frequent:.0%} are '{found.caption[:80]}': the model says the same "
                "of different pictures, and other scores mean little",
            )

    def run(self, split: Split, name: str) -> None:
        """Loss, captions and all scores of a split: metrics, and a file with every caption."""
        emit = self._context.emit
        emit.phase("eval", name)
        losses = self.losses(split)
        emit.phase("generate", name)
        candidates = self.captions(split)
        emit.phase("eval", f"scores of {name}")
        language = split.captions.language
        self._warn(diversity.measure(candidates, language), name, len(candidates))
        columns: dict[str, Numbers] = {"loss": losses.own / losses.tokens}
        if not np.isnan(losses.other).any():
            columns["loss_other_picture"] = losses.other / losses.tokens
            columns["picture gap"] = columns["loss_other_picture"] - columns["loss"]
        file = f"predictions/{name}.jsonl"
        metrics = [*loss_metrics(losses), self._unigrams(split)]
        for scored in (
            *diversity.all_scores(candidates, language),
            *self._scores(split, candidates),
        ):
            metrics.append(_metric(scored))
            if len(scored.per_item) == len(split):
                columns[scored.name] = np.asarray(scored.per_item, np.float64)
        _write(self._context.run_dir / file, split, candidates, columns)
        for metric in metrics:
            kept = file if metric.name in columns else None
            update = {"split": name, "n": len(split), "scores_file": kept}
            emit.send(metric.model_copy(update=update))

    def caption(self, split: Split, listed: int) -> None:
        """Captions of a split, whose media need none: a file with each, and what it tells alone.

        `listed`: media of the subset, of which those that cannot be read have no caption.
        """
        emit, name = self._context.emit, split.name
        emit.phase("generate", name)
        candidates = self.captions(split)
        emit.phase("eval", f"scores of {name}")
        language = split.captions.language
        self._warn(diversity.measure(candidates, language), name, len(candidates))
        scored = diversity.all_scores(candidates, language)
        if self._context.params.siglip and "siglip" in self._context.params.scorers:
            scored += self._judge.score(split, candidates)
        file = f"predictions/{name}.jsonl"
        columns = {
            one.name: np.asarray(one.per_item, np.float64)
            for one in scored if len(one.per_item) == len(split)
        }  # fmt: skip
        _write(self._context.run_dir / file, split, candidates, columns)
        emit.send(artifact(self._context.run_dir / file, self._context.run_dir))
        for one in scored:
            kept = file if one.name in columns else None
            update = {"split": name, "n": len(split), "scores_file": kept}
            emit.send(_metric(one).model_copy(update=update))
        emit.send(
            protocol.Metric(
                name="coverage", value=len(split) / listed, split=name, n=listed,
                method="media of the subset that have a caption now; others could not be read",
            )
        )  # fmt: skip

    def _unigrams(self, split: Split) -> protocol.Metric:
        """What a model reaches that knows how frequent tokens are, and nothing else."""
        known = self._train if self._train is not None else split
        size = self._ready.wording.tokenizer.get_vocab_size()
        counts, asked = (
            np.bincount(np.concatenate(self._tokens(one)), minlength=size) for one in (known, split)
        )
        unseen = UNSEEN * bool((counts[asked > 0] == 0).any())
        shares = (counts + unseen) / (counts + unseen).sum()
        with np.errstate(divide="ignore"):
            nats = np.where(asked > 0, -np.log(shares), 0.0)
        said = f", {unseen} added to each for those never seen" if unseen else ""
        return protocol.Metric(
            name="unigram loss", value=float((asked * nats).sum() / asked.sum()), split="", n=0,
            method=f"nats per token, by the token frequencies of {known.name}{said}; on all of "
            "the training captions it is their entropy", higher_is_better=False,
        )  # fmt: skip

    def _tokens(self, split: Split) -> list[npt.NDArray[np.int64]]:
        """Ids of every caption given first, end token included."""
        wording, longest = self._ready.wording, self._context.params.max_tokens
        return [
            np.asarray(wording.encode(said[0], longest)[0], np.int64)
            for said in split.captions.references
        ]

    def _scores(self, split: Split, candidates: Sequence[str]) -> Iterator[Scored]:
        for name in self._context.params.scorers:
            if name == "siglip":
                yield from self._judge.score(split, candidates)
            else:
                yield from self._words(name, split, candidates)

    def _words(self, name: str, split: Split, candidates: Sequence[str]) -> list[Scored]:
        """The scores of one module that compares words; none, and a notice, without its library."""
        captions = split.captions
        try:
            module = importlib.import_module(f"{SCORERS}.{name}")
            scores = module.score(candidates, captions.references, captions.language)
        except ModuleNotFoundError as error:
            self._context.emit.notice(
                "not-scored", f"{name}: {error}; install the `captions` extra"
            )
            return []
        return scores if isinstance(scores, list) else [scores]


def _write(
    path: Path, split: Split, candidates: Sequence[str], columns: dict[str, Numbers]
) -> None:
    """One JSON line a medium: what was said, what might have been, and every score."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    said = split.captions
    with path.open("w", encoding="utf-8") as file:
        for row, candidate in enumerate(candidates):
            line = {
                "id": said.ids[row],
                "medium": said.paths[row],
                "caption": candidate,
                "references": said.references[row],
                **{name: float(values[row]) for name, values in columns.items()},
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def strangers(size: int) -> Rows:
    """For each of `size` media another one, drawn once and for all; nobody gets their own."""
    order = np.random.default_rng(0).permutation(size)
    partners = np.empty(size, np.int64)
    partners[order] = np.roll(order, 1)
    return partners


def loss_metrics(losses: Losses) -> list[protocol.Metric]:
    """Loss with the true pictures, with others', and the gap, each with its interval."""
    own = _of_loss("loss", losses.own, losses.tokens)
    if np.isnan(losses.other).any():
        return [own]
    gaps = (losses.other - losses.own) / losses.tokens
    gap = bootstrap_mean(gaps, RESAMPLES, of="captions")
    return [
        own,
        _of_loss("loss_other_picture", losses.other, losses.tokens),
        protocol.Metric(
            name="picture gap", value=float(gaps.mean()), split="", n=0, low=gap.low,
            high=gap.high, method="loss with another image less loss, nats per token of a caption; "
            + gap.method,
        ),
    ]  # fmt: skip


def _of_loss(name: str, summed: Numbers, tokens: Numbers) -> protocol.Metric:
    found = ratio_interval(summed, tokens)
    return protocol.Metric(
        name=name, value=float(summed.sum() / tokens.sum()), split="", n=0, low=found.low,
        high=found.high, method=f"nats per token; {found.method}", higher_is_better=False,
    )  # fmt: skip


def ratio_interval(above: Numbers, below: Numbers) -> Interval:
    """Interval of Σ above / Σ below over items, by percentile bootstrap of the items."""
    if len(above) < 2:
        return Interval(None, None, "one value has no interval")
    generator = np.random.default_rng(0)
    found = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(0, len(above), len(above))
        found[number] = above[drawn].sum() / below[drawn].sum()
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(low), float(high), f"bootstrap over captions, {RESAMPLES}, 95%")


def _metric(scored: Scored) -> protocol.Metric:
    return protocol.Metric(
        name=scored.name, value=float(scored.value), split="", n=0, low=scored.low,
        high=scored.high, method=scored.method, higher_is_better=scored.higher_is_better,
    )  # fmt: skip
