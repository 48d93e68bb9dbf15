"""Is a difference between two runs more than chance: tests of paired scores, and of seeds.

Scores are paired by item (query, question, medium). Items that share a picture, passage or video
are not independent, so whole clusters are drawn and flipped (Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from results import statistics
from results.statistics import Difference, Numbers

RESAMPLES: Final = 1000
FLIPS: Final = 10_000
EXACT_CLUSTERS: Final = 14
"""Up to this many clusters all sign flips are tried: 16,384."""
SMALL: Final = 100
"""Below this many items the limits for large numbers do not hold (Bowyer 2025, arXiv 2503.01747).
"""
POWER: Final = 0.8
ALPHA: Final = 0.05


class Significance(NamedTuple):
    """A difference b - a, its two-sided p, and what these data could have detected."""

    difference: Difference
    p: float | None
    """None: there is nothing to test, as of one value."""
    detectable: float | None
    """Smallest true difference that would be found with a power of 80 %, at 5 %."""
    n: int
    """Pairs, or runs of both sides."""
    clusters: int = 0
    """Groups of pairs that are not independent; 0: each pair stands alone."""


def compare_pairs(
    a: Sequence[float] | Numbers,
    b: Sequence[float] | Numbers,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Significance:
    """Mean of b - a over the same items.

    p by sign flips; for scores of 0 and 1 without clusters by
    McNemar's exact test. The interval is a bootstrap over clusters; of fewer than 100 pairs of 0
    and 1 that of Newcombe (1998, method 10).

    Args:
        a: Scores, [n].
        b: Scores of the same items, [n].
        clusters: Cluster of each item, [n]; None: items are independent.
        seed: Of the resampling.

    Raises:
        ValueError: a and b have different lengths.
    """
    first, second = (np.asarray(side, dtype=np.float64) for side in (a, b))
    gaps = second - first
    codes = _encode_clusters(clusters, gaps.size)
    if len(np.unique(codes)) == gaps.size or not np.isfinite(gaps).all():
        return _compare_independent(first, second, seed)
    sums = np.asarray(np.bincount(codes, weights=gaps), np.float64)
    difference = _cluster_bootstrap(sums, np.bincount(codes), seed)
    centred = np.bincount(codes, weights=gaps - gaps.mean()) * len(sums) / gaps.size
    p = _flip_p(sums, seed) if len(sums) > 1 else None
    return Significance(difference, p, _detectable(centred), gaps.size, len(sums))


def compare_seeds(a: Sequence[float], b: Sequence[float]) -> Significance:
    """Mean of b less mean of a, over runs that differ by their seed: Welch's t.

    Raises:
        ValueError: a side has fewer than two runs.
    """
    from scipy import stats

    if min(len(a), len(b)) < 2:
        raise ValueError("one seed says nothing about the noise of training")
    delta = float(np.mean(b) - np.mean(a))
    squares = [float(np.var(side, ddof=1)) / len(side) for side in (a, b)]
    error = math.sqrt(sum(squares))
    count = len(a) + len(b)
    if error <= 1e-12 * max(map(abs, (*a, *b))):
        same = Difference(delta, delta, delta, f"all seeds agree ({len(a)} and {len(b)} runs)")
        return Significance(same, 1.0 if delta == 0 else 0.0, 0.0, count)
    freedom = sum(squares) ** 2 / sum(
        square**2 / (len(side) - 1) for square, side in zip(squares, (a, b), strict=True)
    )
    reach, power = (float(stats.t.ppf(share, freedom)) for share in (1 - ALPHA / 2, POWER))
    p = 2 * float(stats.t.sf(abs(delta) / error, freedom))
    method = f"Welch's t over {len(a)} and {len(b)} seeds, 95%"
    difference = Difference(delta, delta - reach * error, delta + reach * error, method)
    return Significance(difference, p, (reach + power) * error, count)


def compare_ratios(a: Sequence[float], b: Sequence[float], *, paired: bool) -> Significance:
    """Relative change b / a - 1 of positive costs, one value a process: Student's t of their logs.

    Args:
        a: Seconds or bytes of the reference, [n].
        b: The same of what is compared with it, [m]; m = n where paired.
        paired: a[i] and b[i] were measured one after the other, so that what slows the machine for
            minutes slows both; else Welch's t.

    Raises:
        ValueError: fewer than two values a side, one is not above 0, or pairs lack one.
    """
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} costs cannot be paired")
    if min(*a, *b, 1.0) <= 0:
        raise ValueError("a cost of 0 has no ratio")
    logs = [np.log(np.asarray(side, dtype=np.float64)) for side in (a, b)]
    if not paired:
        test = compare_seeds(*(side.tolist() for side in logs))
        method = f"Welch's t of logs over {len(a)} and {len(b)} processes, 95%"
    else:
        from scipy import stats

        gaps = logs[1] - logs[0]
        if gaps.size < 2:
            raise ValueError("one pair says nothing about noise")
        delta, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(gaps.size)
        reach, power = (float(stats.t.ppf(q, gaps.size - 1)) for q in (1 - ALPHA / 2, POWER))
        p = 2 * float(stats.t.sf(abs(delta) / error, gaps.size - 1)) if error else float(delta == 0)
        limits = Difference(delta, delta - reach * error, delta + reach * error, "")
        test = Significance(limits, p, (reach + power) * error, gaps.size)
        method = f"Student's t of logs over {gaps.size} pairs of processes, 95%"
    delta, low, high = (math.expm1(value or 0.0) for value in test.difference[:3])
    change = Difference(delta, low, high, method)
    return test._replace(difference=change, detectable=math.expm1(test.detectable or 0.0))


def adjust_by_holm(ps: Sequence[float | None]) -> list[float | None]:
    """p of each of several tests, so that one false alarm among all has at most 5 % (Holm 1979)."""
    order = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[at] = highest
    return adjusted


def needed_count(count: int, detectable: float | None, delta: float) -> int | None:
    """How many items or runs would make `delta` detectable; None: it is, or it never will."""
    if detectable is None or not delta or detectable <= abs(delta):
        return None
    return math.ceil(count * (detectable / delta) ** 2)


def _encode_clusters(clusters: Sequence[Hashable] | None, n: int) -> npt.NDArray[np.int64]:
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters for {n} scores")
    code_of_cluster: dict[Hashable, int] = {}
    codes = [code_of_cluster.setdefault(cluster, len(code_of_cluster)) for cluster in clusters]
    return np.asarray(codes, np.int64)


def _compare_independent(first: Numbers, second: Numbers, seed: int) -> Significance:
    difference = statistics.paired_difference(first, second, resamples=RESAMPLES, seed=seed)
    gaps = second - first
    if difference.low is None:
        return Significance(difference, None, None, gaps.size)
    if not (_is_binary(first) and _is_binary(second)):
        return Significance(difference, _flip_p(gaps, seed), _detectable(gaps), gaps.size)
    if gaps.size < SMALL:
        low, high = newcombe_interval(first, second)
        method = f"Newcombe over {gaps.size} pairs, 95%"
        difference = Difference(difference.delta, low, high, method)
    p = statistics.mcnemar(first, second)
    return Significance(difference, p, _detectable(gaps), gaps.size)


def _is_binary(values: Numbers) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def newcombe_interval(first: Numbers, second: Numbers) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares, b - a (Newcombe 1998, method 10)."""
    n = first.size
    both, only_a, only_b, neither = (
        float(np.sum((first == x) & (second == y))) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))
    )
    pa, pb = float(first.mean()), float(second.mean())
    wilson_a, wilson_b = (statistics.wilson_interval(p * n, n) for p in (pa, pb))
    product = (both + only_a) * (both + only_b) * (only_a + neither) * (only_b + neither)
    phi = 0.0
    if product:
        numerator = both * neither - only_a * only_b
        phi = max(numerator - n / 2, 0.0) if numerator > 0 else numerator
        phi /= math.sqrt(product)
    la, ha, lb, hb = (float(x or 0.0) for x in (*wilson_a[:2], *wilson_b[:2]))

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    delta = pb - pa
    return max(-1.0, delta - reach(pb - lb, ha - pa)), min(1.0, delta + reach(hb - pb, pa - la))


def _flip_p(sums: Numbers, seed: int) -> float:
    """Two-sided p that sums of independent clusters are as likely negative as positive.

    All flips up to 14 sums, 10,000 drawn ones below 100, from there on their normal limit.
    """
    sums = sums[sums != 0]
    if not sums.size:
        return 1.0
    observed = abs(float(sums.sum()))
    if sums.size >= SMALL:
        return math.erfc(observed / math.sqrt(2 * float(sums @ sums)))
    least = observed - 1e-12 * float(np.abs(sums).sum())
    if sums.size <= EXACT_CLUSTERS:
        signs = np.asarray(list(itertools.product((-1.0, 1.0), repeat=sums.size)))
        return float((np.abs(signs @ sums) >= least).mean())
    signs = np.random.default_rng(seed).integers(0, 2, size=(FLIPS, sums.size)) * 2.0 - 1
    return (int((np.abs(signs @ sums) >= least).sum()) + 1) / (FLIPS + 1)


def _cluster_bootstrap(sums: Numbers, sizes: npt.NDArray[np.int64], seed: int) -> Difference:
    """Mean over all items, of resamples that draw whole clusters."""
    delta = float(sums.sum() / sizes.sum())
    count = len(sums)
    if count < 2:
        return Difference(delta, None, None, "one cluster has no interval")
    means = statistics.resample(
        count, RESAMPLES, seed, lambda drawn: sums[drawn].sum(1) / sizes[drawn].sum(1)
    )
    low, high = statistics.percentiles(means, 1 - ALPHA)
    method = f"paired bootstrap over {count} clusters of {sizes.sum()} items, {RESAMPLES}, 95%"
    return Difference(delta, low, high, method)


def _detectable(values: Numbers) -> float | None:
    if values.size < 2:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER)
    return reach * float(values.std(ddof=1)) / math.sqrt(values.size)
