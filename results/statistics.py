"""Confidence intervals, shared by engines, tables and comparisons.

The only module of `results` that loads numpy. Every function is deterministic for its seed, bounded
in memory, and returns instead of raising when there is no interval: then `low` and `high` are None
and `method` gives the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

MAX_CELLS: Final = 1 << 20
"""Numbers held at once while resampling: 8 MiB of floats and 4 MiB of indices."""


class Interval(NamedTuple):
    """A confidence interval and its method; None, None and the reason when there is none."""

    low: float | None
    high: float | None
    method: str


class Difference(NamedTuple):
    """b - a, with the interval of that difference."""

    delta: float
    low: float | None
    high: float | None
    method: str

    @property
    def distinguishable(self) -> bool:
        """The interval exists and zero lies outside of it."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


def bootstrap_mean(
    values: Sequence[float] | Numbers,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    of: str = "queries",
) -> Interval:
    """Interval of the mean of independent values (one per query), by percentile bootstrap.

    `of`: what the values belong to, for `method`.

    When all values are 0, or all are 1, resampling would claim certainty ([0, 0]); the Wilson
    score interval is exact enough there and takes its place. `method` says so.
    """
    data = np.asarray(values, dtype=np.float64)
    if problem := _find_problem(data):
        return Interval(None, None, problem)
    if data.min() == data.max():
        return _interval_of_equal_values(data, level)
    means = resample(data.size, resamples, seed, lambda indices: data[indices].mean(axis=1))
    low, high = percentiles(means, level)
    return Interval(low, high, f"bootstrap over {of}, {resamples}, {level:.0%}")


def bootstrap_means(
    values: Numbers, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """`bootstrap_mean` of each row of [M, n], equal to it for equal seeds, at the cost of one.

    All rows are scores of the same queries, so they share the draws; how often each query was drawn
    makes the mean of a resample a product of matrices: 14 metrics of 5,046 queries in 0.1 s.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or data.shape[1] < 2:
        return [bootstrap_mean(row, resamples, seed, level) for row in data]
    n = data.shape[1]
    means = np.empty((len(data), resamples))
    rows = max(1, MAX_CELLS // n)
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        indices = generator.integers(0, n, size=(size, n), dtype=np.int32)
        indices += np.arange(size, dtype=np.int32)[:, None] * n
        counts = np.bincount(indices.ravel(), minlength=size * n).astype(np.float64)
        means[:, start : start + size] = data @ counts.reshape(size, n).T / n
    method = f"bootstrap over queries, {resamples}, {level:.0%}"
    intervals = []
    for row, drawn_means in zip(data, means, strict=True):
        if _find_problem(row) or row.min() == row.max():
            intervals.append(bootstrap_mean(row, resamples, seed, level))
        else:
            intervals.append(Interval(*percentiles(drawn_means, level), method))
    return intervals


def paired_difference(
    a: Sequence[float] | Numbers,
    b: Sequence[float] | Numbers,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    of: str = "items",
) -> Difference:
    """Mean of b - a over the same items, with a paired bootstrap: items are drawn, not scores.

    `of`: what the items are, for the name of the method.

    Raises:
        ValueError: a and b have different lengths, so they cannot be pairs.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} scores cannot be paired")
    gaps = second - first
    if problem := _find_problem(gaps):
        return Difference(float(gaps.mean()) if gaps.size else math.nan, None, None, problem)
    method = f"paired bootstrap over {gaps.size} {of}, {resamples}, {level:.0%}"
    if gaps.min() == gaps.max():
        gap = float(gaps[0])
        return Difference(gap, gap, gap, f"all {gaps.size} pairs differ equally")
    means = resample(gaps.size, resamples, seed, lambda indices: gaps[indices].mean(axis=1))
    return Difference(float(gaps.mean()), *percentiles(means, level), method)


def mcnemar(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float:
    """Two-sided p that two ways to answer the same questions are right equally often.

    Exact (McNemar 1947, by the binomial): of the questions where only one of them is right, each
    was as likely to be right. `first` and `second`: [n], 1 where right, else 0.
    """
    a, b = np.asarray(first, dtype=np.float64) > 0, np.asarray(second, dtype=np.float64) > 0
    only = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    n, fewer = sum(only), min(only)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(Fraction(2 * tail, 1 << n)))


def unpaired_difference(a: tuple[float, float, float], b: tuple[float, float, float]) -> Difference:
    """b - a from two (value, low, high) of independent samples.

    MOVER (Zou and Donner 2008): the squared distances to the nearer limits add up. Wider than a
    paired interval, because it cannot know that the same queries are hard for both.
    """
    (va, la, ha), (vb, lb, hb) = a, b
    delta = vb - va
    low = delta - math.hypot(vb - lb, ha - va)
    high = delta + math.hypot(hb - vb, va - la)
    return Difference(delta, low, high, "unpaired, from both intervals (MOVER)")


def block_bootstrap_quantile(
    step_seconds: Sequence[float] | Numbers,
    q: float,
    block: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of the q-quantile of step times, by circular block bootstrap.

    Step times follow each other (a slow disk lasts for many steps), so blocks of neighbours are
    drawn, not single steps (Politis and Romano 1992). `block`: steps; None takes n^(1/3), or more
    where the steps are correlated (see `block_length`).
    """
    data = np.asarray(step_seconds, dtype=np.float64)
    if problem := _find_problem(data):
        return Interval(None, None, problem)
    length = min(data.size, block or block_length(data))
    offsets = np.arange(length, dtype=np.int32)
    blocks = -(-data.size // length)

    def quantiles(starts: npt.NDArray[np.int32]) -> Numbers:
        indices = (starts[:, :, None] + offsets) % data.size
        resampled = data[indices.reshape(len(starts), -1)[:, : data.size]]
        return np.asarray(np.quantile(resampled, q, axis=1, overwrite_input=True))

    quantiles_of_resamples = resample(data.size, resamples, seed, quantiles, draws=blocks)
    low, high = percentiles(quantiles_of_resamples, level)
    method = f"block bootstrap over steps, blocks of {length}, {resamples}, {level:.0%}"
    return Interval(low, high, method)


def block_length(step_seconds: Sequence[float] | Numbers) -> int:
    """Steps per block: n^(1/3), stretched by the correlation time of the steps' ranks.

    The correlation time is 1 + 2 Σ ρ(k) over the leading lags with ρ(k) > 2/√n; ranks, because one
    step of ten seconds would hide every other correlation. Never more than a tenth of the steps.
    """
    data = np.asarray(step_seconds, dtype=np.float64)
    n = data.size
    if n < 20:
        return 1
    _, places, counts = np.unique(data, return_inverse=True, return_counts=True)
    if counts.size == 1:
        return min(n // 10, round(math.cbrt(n)))
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[places] - (n - 1) / 2  # ties share their mean
    spectrum = np.abs(np.fft.rfft(ranks, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[1 : n // 4]
    correlation /= float(ranks @ ranks)
    below = np.flatnonzero(correlation <= 2 / math.sqrt(n))
    leading = correlation[: below[0]] if below.size else correlation
    stretch = 1 + 2 * float(leading.sum())
    return max(1, min(n // 10, round(math.cbrt(n) * stretch)))


def wilson_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval (1927) of a share; never outside [0, 1], never empty."""
    if n <= 0:
        return Interval(None, None, "no values")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if successes == 0 else max(0.0, centre - reach)
    high = 1.0 if successes == n else min(1.0, centre + reach)
    return Interval(low, high, f"Wilson, {level:.0%}")


def _find_problem(data: Numbers) -> str:
    """Reason why there is no interval; empty when there is one."""
    if data.ndim != 1 or data.size == 0:
        return "no values"
    if data.size == 1:
        return "one value has no interval"
    count = int(np.count_nonzero(~np.isfinite(data)))
    return f"{count} of {data.size} values are not finite" if count else ""


def _interval_of_equal_values(data: Numbers, level: float) -> Interval:
    value = float(data[0])
    if value in (0.0, 1.0):
        interval = wilson_interval(value * data.size, data.size, level)
        return interval._replace(method=f"{interval.method} (all {data.size} values are {value:g})")
    return Interval(value, value, f"all {data.size} values are equal")


def resample(
    n: int,
    resamples: int,
    seed: int,
    statistic: Callable[[npt.NDArray[np.int32]], Numbers],
    draws: int | None = None,
) -> Numbers:
    """`statistic` of each of `resamples` draws of `draws` (default n) indices below n.

    At most `MAX_CELLS` numbers are held at a time.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, MAX_CELLS // n)
    values = np.empty(resamples)
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), draws or n)
        indices = generator.integers(0, n, size=size, dtype=np.int32)
        values[start : start + size[0]] = statistic(indices)
    return values


def percentiles(values: Numbers, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
