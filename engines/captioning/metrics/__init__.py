"""Scores of captions: each module compares candidates with references and names what it did.

Every module has `score(candidates, references, language) -> Scored`, or several of them. A name
says variant and tokenizer, because METEOR 0.38 by one program is 0.45 by another, and Korean split
at blanks is another test than Korean split into morphemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from results.statistics import bootstrap_mean

Numbers = npt.NDArray[np.float64]
RESAMPLES: Final = 1000
LEVEL: Final = 0.95


class Scored(NamedTuple):
    """One score over all captions, with its interval and what each caption got."""

    name: str
    per_item: Numbers
    """[n]; its mean is `value` unless `method` says that the whole is scored at once."""
    value: float
    low: float | None
    high: float | None
    method: str
    higher_is_better: bool = True


def mean_score(name: str, per_item: Numbers, remark: str = "") -> Scored:
    """A score that is the mean over captions, with a bootstrap over them."""
    found = bootstrap_mean(per_item, RESAMPLES, of="captions")
    value = float(per_item.mean()) if per_item.size else float("nan")
    said = f"{found.method}; {remark}" if remark else found.method
    return Scored(name, per_item, value, found.low, found.high, said)


def checked(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse what no score could mean.

    Raises:
        ValueError: unequal numbers, no captions, or one without a reference.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions and {len(references)} lists of references")
    if not candidates:
        raise ValueError("no captions to score")
    if bare := [number for number, many in enumerate(references) if not many]:
        raise ValueError(f"caption {bare[0]} has no reference ({len(bare)} have none)")
