"""Names of metrics: a variant may stand in brackets, as in `recall@1[text only]`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

CHANCE: Final = "chance"
"""Variant: what guessing would reach."""
SHOWN_CUTOFFS: Final = (1, 5, 10, 100)
"""The K of a metric that a table shows where there are more; the record has all."""

_VARIANT: Final = re.compile(r"^(?P<base>.+?)\s*\[(?P<variant>[^\]]+)\]$")


class MetricName(NamedTuple):
    """A metric's name in its two parts; `variant` is empty for the full model."""

    base: str
    variant: str


def split_name(name: str) -> MetricName:
    """`recall@1[image only]` -> (`recall@1`, `image only`)."""
    match = _VARIANT.match(name)
    return MetricName(match["base"], match["variant"]) if match else MetricName(name, "")


def is_shown(name: str) -> bool:
    """Whether a short table shows the metric: of the full model, at one of `SHOWN_CUTOFFS`."""
    base, variant = split_name(name)
    cut = base.rpartition("@")[2]
    return not variant and (not cut.isdigit() or int(cut) in SHOWN_CUTOFFS)
