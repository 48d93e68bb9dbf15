"""Scores of captions.

Every text scorer is a module with `score(candidates, references, language)`, which returns a
CaptionScore or a list of them. The name of a score states variant and tokenizer: METEOR 0.38 by one
program is 0.45 by another, and Korean split at blanks scores otherwise than split into morphemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from results.statistics import bootstrap_mean, wilson_interval

Numbers = npt.NDArray[np.float64]
RESAMPLES: Final = 1000
LEVEL: Final = 0.95


class CaptionScore(NamedTuple):
    """One score over all captions, with its interval and the scores of single captions."""

    name: str
    per_item: Numbers
    """[n]; its mean is `value` unless `method` states that the corpus is scored as a whole."""
    value: float
    low: float | None
    high: float | None
    method: str
    higher_is_better: bool = True


def mean_score(name: str, per_item: Numbers, remark: str = "") -> CaptionScore:
    """The mean of `per_item` [n] as a score, with a bootstrap interval over captions."""
    interval = bootstrap_mean(per_item, RESAMPLES, of="captions")
    value = float(per_item.mean()) if per_item.size else float("nan")
    method = f"{interval.method}; {remark}" if remark else interval.method
    return CaptionScore(name, per_item, value, interval.low, interval.high, method)


def share_score(name: str, flags: Sequence[bool], remark: str = "") -> CaptionScore:
    """The share of captions with a flag as a score that is better when it is lower.

    Its interval is Wilson's.
    """
    per_item = np.asarray(flags, np.float64)
    interval = wilson_interval(int(per_item.sum()), len(per_item))
    method = f"{interval.method}; {remark}" if remark else interval.method
    return CaptionScore(
        name, per_item, float(per_item.mean()), interval.low, interval.high, method,
        higher_is_better=False,
    )  # fmt: skip


def validate_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Check that captions and references can be scored.

    Raises:
        ValueError: unequal numbers, no captions, or one without a reference.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions and {len(references)} lists of references")
    if not candidates:
        raise ValueError("no captions to score")
    if without_reference := [number for number, texts in enumerate(references) if not texts]:
        raise ValueError(
            f"caption {without_reference[0]} has no reference ({len(without_reference)} have none)"
        )
