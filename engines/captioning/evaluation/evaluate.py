"""Evaluation of a captioner: generated captions, their scores, losses with true and shuffled media.

A model can learn its captions and ignore the pictures. The loss of each caption is therefore
computed with its own medium and with another one; the interval of the gap should lie above zero.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engines import messages
from engines.captioning.context import Context
from engines.captioning.data.dataset import Split
from engines.captioning.data.media import CaptionBatch, Rows, pad_captions
from engines.captioning.evaluation.image_text_score import ImageTextScorer
from engines.captioning.metrics import CaptionScore, bert_score, diversity, share_score
from engines.captioning.metrics.bert_score import BertScorer
from engines.captioning.metrics.diversity import Diversity
from engines.captioning.prepare import PreparedCaptioner
from engines.emitter import EngineError, describe_artifact
from engines.torchkit.data.data_loader import choose_others, split_rows
from engines.torchkit.modeling.eval_mode import eval_mode
from results.statistics import Interval, bootstrap_mean
from results.text.metric_names import with_variant

Numbers = npt.NDArray[np.float64]

RESAMPLES: Final = 1000
UNSEEN: Final = 0.1
"""Added to the count of every token where some tokens do not occur in training (smoothing)."""
TEXT_SCORERS: Final = {"meteor": "meteor", "overlap": "bleu_chrf", "cider": "cider"}
"""Modules of `engines.captioning.metrics` that compare texts, by the setting `scorers`."""


@dataclass(frozen=True)
class CaptionLosses:
    """Losses of the first caption of each medium; all [n]."""

    matched: Numbers
    """Nats, summed over tokens, with its own medium."""
    mismatched: Numbers
    """The same with the medium of another caption; NaN: not computed."""
    tokens: Numbers
    """Tokens of the caption, the end token included."""

    @property
    def mean(self) -> float:
        """Mean nats per token with their own media."""
        return float(self.matched.sum() / self.tokens.sum())


class GeneratedCaptions(NamedTuple):
    """Captions of some media, in their order."""

    texts: list[str]
    cut: list[bool]
    """Whether each ended by `max_new_tokens`, without its end token."""


class Evaluator:
    """Evaluates the model of a run on its splits."""

    def __init__(self, context: Context, ready: PreparedCaptioner, judge: ImageTextScorer) -> None:
        self._judge = judge
        self._train = judge.train if context.spec.task == "train" else None
        self._context = context
        self._ready = ready
        self._batch = context.params.eval_batch_size

    def compute_losses(self, split: Split, *, shuffled: bool = True) -> CaptionLosses:
        """Losses of the first captions; `mismatched` is NaN unless `shuffled`."""
        tokens = self._encode_captions(split)
        matched = self._sum_losses(split.rows, tokens)
        mismatched = np.full(len(split), math.nan)
        if shuffled and len(split) > 1:
            mismatched = self._sum_losses(split.rows[choose_others(len(split))], tokens)
        return CaptionLosses(
            matched, mismatched, np.asarray([len(ids) for ids in tokens], np.float64)
        )

    def _sum_losses(self, rows: Rows, tokens: Sequence[npt.NDArray[np.int64]]) -> Numbers:
        def gather(part: Rows) -> CaptionBatch:
            ids, labels = pad_captions([tokens[position] for position in part])
            return CaptionBatch(self._ready.items.gather(rows[part]), ids, labels)

        losses = []
        parts = split_rows(np.arange(len(rows)), self._batch)
        with eval_mode(self._ready.model):
            for _, batch in self._context.pipeline.batches(parts, gather):
                self._context.emit.check_stop()
                features = self._ready.encode_features(batch.media)
                with self._context.precision.autocast():
                    summed, _ = self._ready.model(features, batch.ids, batch.labels)
                losses.append(summed.double())
        return torch.cat(losses).cpu().numpy()

    def generate_captions(self, split: Split) -> GeneratedCaptions:
        """Generate a caption for every medium, greedily, in batches of similar length."""
        tokens: list[list[int]] = []
        params, order = self._context.params, generation_order(split)
        longest, penalty = params.max_new_tokens, params.repetition_penalty
        with eval_mode(self._ready.model):
            parts = split_rows(split.rows[order], self._batch)
            for _, media in self._context.pipeline.batches(parts, self._ready.items.gather):
                features = self._ready.encode_features(media)
                with self._context.precision.autocast():
                    tokens += self._ready.model.generate(features, longest, penalty)
                self._context.report_progress(len(tokens), len(split), "captions")
        in_order = [tokens[position] for position in np.argsort(order)]
        return GeneratedCaptions(
            [self._ready.template.decode(ids) for ids in in_order],
            [len(ids) == longest for ids in in_order],
        )

    def check_diversity(self, split: Split, when: str) -> tuple[list[str], float]:
        """Generate captions; returns them and the share of unique ones. Warns of mode collapse."""
        candidates = self.generate_captions(split).texts
        variety = diversity.measure_diversity(candidates, split.captions.language)
        self._warn_of_collapse(variety, f"{split.name}, {when}", len(candidates))
        return candidates, variety.unique

    def compute_metric(self, metric: str, split: Split, candidates: Sequence[str]) -> float:
        """One score of these captions, for the validation between epochs.

        Raises:
            EngineError: it cannot be computed: no image-text scorer, or a library is missing.
        """
        if metric == "siglip":
            scored = self._judge.score(split, candidates)
            self._judge.move_to_host()
        else:
            scored = self._score_texts(metric, split, candidates)
        if not scored:
            raise EngineError(
                f"monitor = {metric} cannot be computed here (see the notices); set another "
                "monitor, or turn early_stopping and load_best off"
            )
        # An image-text scorer gives its probability last, where it has one; METEOR the best rule
        # of the language first.
        return scored[-1 if metric == "siglip" else 0].value

    def _warn_of_collapse(self, variety: Diversity, sample: str, n: int) -> None:
        if variety.collapsed:
            self._context.emit.notice(
                "mode-collapse",
                f"{sample}: {variety.unique:.2f} of {n} captions are unique, "
                f"{variety.most_frequent:.0%} are '{variety.caption[:80]}': the model says the "
                "same of different pictures, and other scores mean little",
            )

    def evaluate_split(self, split: Split, name: str, variant: str = "") -> None:
        """Compute losses, captions and scores; send the metrics and write a file of captions.

        `variant`: of the names of the metrics; see `metric_names`.
        """
        emit, title = self._context.emit, f"{name}, {variant}" if variant else name
        emit.phase("eval", title)
        losses = self.compute_losses(split)
        emit.phase("generate", title)
        candidates, cut = self.generate_captions(split)
        emit.phase("eval", f"scores of {title}")
        language = split.captions.language
        self._warn_of_collapse(
            diversity.measure_diversity(candidates, language), title, len(candidates)
        )
        columns: dict[str, Numbers] = {"loss": losses.matched / losses.tokens}
        if not np.isnan(losses.mismatched).any():
            columns["loss_other_picture"] = losses.mismatched / losses.tokens
            columns["picture gap"] = columns["loss_other_picture"] - columns["loss"]
        file = "/".join(filter(None, ("predictions", variant.replace(" ", "-"), f"{name}.jsonl")))
        metrics = [*loss_metrics(losses), self._unigram_loss(split)]
        for scored in (
            *diversity.all_scores(candidates, language),
            self._cut_share(cut),
            *self._compute_scores(split, candidates),
        ):
            metrics.append(_to_metric(scored))
            if len(scored.per_item) == len(split):
                columns[scored.name] = np.asarray(scored.per_item, np.float64)
        named = {with_variant(column, variant): values for column, values in columns.items()}
        _write_predictions(self._context.run_dir / file, split, candidates, named)
        for metric in metrics:
            scores_file = file if metric.name in columns else None
            update = {
                "name": with_variant(metric.name, variant), "split": name, "n": len(split),
                "scores_file": scores_file,
            }  # fmt: skip
            emit.send(metric.model_copy(update=update))

    def caption_split(self, split: Split, listed: int) -> None:
        """Captions of media that need no references: the file of captions, and their diversity.

        `listed`: media of the subset, of which those that cannot be read have no caption.
        """
        emit, name = self._context.emit, split.name
        emit.phase("generate", name)
        candidates, cut = self.generate_captions(split)
        emit.phase("eval", f"scores of {name}")
        language = split.captions.language
        self._warn_of_collapse(
            diversity.measure_diversity(candidates, language), name, len(candidates)
        )
        scored = [*diversity.all_scores(candidates, language), self._cut_share(cut)]
        if self._context.params.siglip and "siglip" in self._context.params.scorers:
            scored += self._judge.score(split, candidates)
        file = f"predictions/{name}.jsonl"
        columns = {
            score.name: np.asarray(score.per_item, np.float64)
            for score in scored if len(score.per_item) == len(split)
        }  # fmt: skip
        _write_predictions(self._context.run_dir / file, split, candidates, columns)
        emit.send(describe_artifact(self._context.run_dir / file, self._context.run_dir))
        for score in scored:
            scores_file = file if score.name in columns else None
            update = {"split": name, "n": len(split), "scores_file": scores_file}
            emit.send(_to_metric(score).model_copy(update=update))
        emit.send(
            messages.Metric(
                name="coverage", value=len(split) / listed, split=name, n=listed,
                method="media of the subset that have a caption now; others could not be read",
            )
        )  # fmt: skip

    def _unigram_loss(self, split: Split) -> messages.Metric:
        """Cross entropy of the captions under the token frequencies of the training split."""
        reference = self._train if self._train is not None else split
        size = self._ready.template.tokenizer.get_vocab_size()
        counts, occurrences = (
            np.bincount(np.concatenate(self._encode_captions(part)), minlength=size)
            for part in (reference, split)
        )
        added = UNSEEN * bool((counts[occurrences > 0] == 0).any())
        shares = (counts + added) / (counts + added).sum()
        with np.errstate(divide="ignore"):
            nats = np.where(occurrences > 0, -np.log(shares), 0.0)
        smoothing = f", {added} added to each for those never seen" if added else ""
        return messages.Metric(
            name="unigram loss", value=float((occurrences * nats).sum() / occurrences.sum()),
            split="", n=0, higher_is_better=False,
            method=f"nats per token, by the token frequencies of {reference.name}{smoothing}; on "
            "all of the training captions it is their entropy",
        )  # fmt: skip

    def _encode_captions(self, split: Split) -> list[npt.NDArray[np.int64]]:
        """Token ids of the first caption of every medium, end token included."""
        template, longest = self._ready.template, self._context.params.max_length
        return [
            np.asarray(template.encode(references[0], longest)[0], np.int64)
            for references in split.captions.references
        ]

    def _compute_scores(self, split: Split, candidates: Sequence[str]) -> Iterator[CaptionScore]:
        for name in self._context.params.scorers:
            if name == "siglip":
                yield from self._judge.score(split, candidates)
            else:
                yield from self._score_texts(name, split, candidates)

    def _cut_share(self, cut: Sequence[bool]) -> CaptionScore:
        limit = self._context.params.max_new_tokens
        return share_score("cut at max_new_tokens", cut, f"no end token among {limit}")

    def _score_texts(
        self, name: str, split: Split, candidates: Sequence[str]
    ) -> list[CaptionScore]:
        """Scores of one text scorer; empty, with a notice, where its library is missing."""
        captions = split.captions
        if name == "bertscore":
            return self._score_by_bert(split, candidates)
        try:
            module = importlib.import_module(f"engines.captioning.metrics.{TEXT_SCORERS[name]}")
            scores = module.score(candidates, captions.references, captions.language)
        except ModuleNotFoundError as error:
            self._context.emit.notice(
                "not-scored", f"{name}: {error}; install the `captioning` extra"
            )
            return []
        return scores if isinstance(scores, list) else [scores]

    def _score_by_bert(self, split: Split, candidates: Sequence[str]) -> list[CaptionScore]:
        """BERTScore; empty where no encoder is set, and, with a notice, where it is not there."""
        params = self._context.params
        if not params.bert_score:
            return []
        try:
            scorer = BertScorer(
                params.bert_score, params.bert_score_layer, str(self._context.device)
            )
        except EngineError as error:
            self._context.emit.notice("not-scored", f"bertscore: {error}")
            return []
        return [bert_score.build_score(scorer, candidates, split.captions.references)]


def generation_order(split: Split) -> Rows:
    """Positions [n] of the media as they are captioned: those with long captions first.

    Captions of a batch then end at about the same step, and the batch that needs most memory comes
    first. Without captions: as they are.
    """
    lengths = [len(references[0]) if references else 0 for references in split.captions.references]
    return np.argsort([-length for length in lengths], kind="stable")


def _write_predictions(
    path: Path, split: Split, candidates: Sequence[str], columns: dict[str, Numbers]
) -> None:
    """Write one JSON line per medium: generated caption, references, scores."""
    path.parent.mkdir(exist_ok=True, parents=True, mode=0o700)
    captions = split.captions
    with path.open("w", encoding="utf-8") as file:
        for row, candidate in enumerate(candidates):
            line = {
                "id": captions.ids[row],
                "medium": captions.paths[row],
                "caption": candidate,
                "references": captions.references[row],
                **{name: float(values[row]) for name, values in columns.items()},
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def loss_metrics(losses: CaptionLosses) -> list[messages.Metric]:
    """Loss with own media, loss with other media, and their gap, each with its interval."""
    loss = _loss_metric("loss", losses.matched, losses.tokens)
    if np.isnan(losses.mismatched).any():
        return [loss]
    gaps = (losses.mismatched - losses.matched) / losses.tokens
    gap = bootstrap_mean(gaps, RESAMPLES, of="captions")
    return [
        loss,
        _loss_metric("loss_other_picture", losses.mismatched, losses.tokens),
        messages.Metric(
            name="picture gap", value=float(gaps.mean()), split="", n=0, low=gap.low,
            high=gap.high, method="loss with another image less loss, nats per token of a caption; "
            + gap.method,
        ),
    ]  # fmt: skip


def _loss_metric(name: str, summed: Numbers, tokens: Numbers) -> messages.Metric:
    interval = ratio_interval(summed, tokens)
    return messages.Metric(
        name=name, value=float(summed.sum() / tokens.sum()), split="", n=0, low=interval.low,
        high=interval.high, method=f"nats per token; {interval.method}", higher_is_better=False,
    )  # fmt: skip


def ratio_interval(above: Numbers, below: Numbers) -> Interval:
    """Interval of Σ above / Σ below, by percentile bootstrap over items."""
    if len(above) < 2:
        return Interval(None, None, "one value has no interval")
    generator = np.random.default_rng(0)
    ratios = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(0, len(above), len(above))
        ratios[number] = above[drawn].sum() / below[drawn].sum()
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(low), float(high), f"bootstrap over captions, {RESAMPLES}, 95%")


def _to_metric(scored: CaptionScore) -> messages.Metric:
    return messages.Metric(
        name=scored.name, value=float(scored.value), split="", n=0, low=scored.low,
        high=scored.high, method=scored.method, higher_is_better=scored.higher_is_better,
    )  # fmt: skip
