"""Names of metrics: a variant may stand in brackets, as in `recall@1[text only]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

CHANCE: Final = "chance"
"""Variant: what guessing would reach."""
LAST_EPOCH: Final = "last epoch"
"""Variant: by the weights of the last epoch, where the best ones replaced them."""
SHOWN_CUTOFFS: Final = (1, 5, 10, 100)
"""The K of a metric that a table shows where there are more; the record has all."""

TRAIN_SPLIT: Final = "train"
"""Split of what was trained on."""
HEADLINES: Final = {
    "wit": "recall@10", "iglue": "recall@1", "llava": "recall@1", "kvqa": "recall@5",
    "msmarco": "recall@5", "oven": "recall@5", "evqa": "pseudo_recall@5",
    "okvqa": "pseudo_recall@5", "infoseek": "pseudo_recall@5",
}  # fmt: skip
"""The metric by which each set of M2KR is compared (LinWeizheDragon/FLMR: docs/MODEL_ZOO.md)."""
USUAL_HEADLINES: Final = ("recall@1", "accuracy")
RANKED_BY: Final = (
    "SigLIP probability", "SigLIP cosine", "cosine (local", "METEOR", "CIDEr", "chrF",
)  # fmt: skip
"""How the names of metrics begin by which captions are ranked, best first."""

_VARIANT: Final = re.compile(r"^(?P<base>.+?)\s*\[(?P<variant>[^\]]+)\]$")


class MetricName(NamedTuple):
    """A metric's name in its two parts; `variant` is empty for the full model."""

    base: str
    variant: str


def split_name(name: str) -> MetricName:
    """`recall@1[image only]` -> (`recall@1`, `image only`)."""
    match = _VARIANT.match(name)
    return MetricName(match["base"], match["variant"]) if match else MetricName(name, "")


def with_variant(name: str, variant: str) -> str:
    """`recall@1`, `image only` -> `recall@1[image only]`; without a variant the name itself."""
    return f"{name}[{variant}]" if variant else name


def is_shown(name: str) -> bool:
    """Whether a short table shows the metric: of the full model, at one of `SHOWN_CUTOFFS`."""
    base, variant = split_name(name)
    cut = base.rpartition("@")[2]
    return not variant and (not cut.isdigit() or int(cut) in SHOWN_CUTOFFS)


class NamedMetric(Protocol):
    """A metric of a record, of its summary or of a message."""

    @property
    def name(self) -> str:
        """`recall@1`."""

    @property
    def split(self) -> str:
        """The subset it was measured on."""


AnyMetric = TypeVar("AnyMetric", bound=NamedMetric)


def headline_of(split: str) -> str:
    """Metric by which the split's data set is compared; empty where none is defined."""
    return next((name for prefix, name in HEADLINES.items() if split.startswith(prefix)), "")


def headline_metric(metrics: Sequence[AnyMetric]) -> AnyMetric | None:
    """The metric that stands for a run, everywhere: the first held-out split's own metric.

    That of the split's data set, else recall@1 or accuracy, else by `choose_headline`; of training
    data only where nothing else was measured. None: there is no metric.
    """
    held_out = [m for m in metrics if m.split != TRAIN_SPLIT and not split_name(m.name).variant]
    split = held_out[0].split if held_out else ""
    own_metrics = [m for m in held_out if m.split == split]
    preferred = [m for m in own_metrics if m.name == headline_of(split)]
    preferred += [m for m in held_out if m.name.lower() in USUAL_HEADLINES]
    usual = choose_headline(split, [m.name for m in own_metrics])
    preferred += [m for m in own_metrics if m.name == usual]
    return next(iter(preferred or own_metrics or metrics), None)


def choose_headline(split: str, names: Sequence[str]) -> str:
    """The metric by which runs of a split are ranked: its data set's, else recall@1 or
    accuracy, else one of `RANKED_BY`, else the first; empty where every name has a variant.
    """
    whole = [name for name in names if not split_name(name).variant]
    preferred = [name for usual in USUAL_HEADLINES for name in whole if name.lower() == usual]
    preferred += [name for beginning in RANKED_BY for name in whole if name.startswith(beginning)]
    headline = headline_of(split)
    return headline if headline in whole else next(iter((*preferred, *whole)), "")
