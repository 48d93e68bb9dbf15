"""Tests of differences against scipy, closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from results import significance


def test_p_of_sign_flips_is_scipys_permutation_test():
    generator = np.random.default_rng(1)
    a, b = generator.random(12), generator.random(12) + 0.15
    oracle = stats.permutation_test(
        (b - a,), lambda x: x.mean(), permutation_type="samples", n_resamples=np.inf
    )
    assert significance.compare_pairs(a, b).p == pytest.approx(oracle.pvalue, abs=1e-12)
    for n in (60, 300):
        a, b = generator.random(n), generator.random(n) + 0.05
        oracle = stats.permutation_test(
            (b - a,), lambda x, axis: x.mean(axis=axis), permutation_type="samples",
            vectorized=True, n_resamples=9_999, random_state=1,
        )  # fmt: skip
        assert significance.compare_pairs(a, b).p == pytest.approx(oracle.pvalue, abs=0.02)


def test_welch_is_scipys_and_its_power_is_that_of_simulation():
    a, b = [0.40, 0.42, 0.41], [0.45, 0.44, 0.47, 0.46]
    test = significance.compare_seeds(a, b)
    oracle = stats.ttest_ind(b, a, equal_var=False)
    assert test.p == pytest.approx(oracle.pvalue)
    assert (test.difference.low, test.difference.high) == pytest.approx(
        tuple(oracle.confidence_interval(0.95))
    )
    generator = np.random.default_rng(0)
    normal = generator.normal(size=(2000, 2, 8))
    reach = significance.compare_seeds(*normal[0]).detectable
    spread = float(np.sqrt(normal[0].var(axis=1, ddof=1).sum() / 8))
    shift = reach / spread * np.sqrt(2 / 8)  # the true spread of a mean of 8, of both sides
    p = stats.ttest_ind(normal[:, 0] + shift, normal[:, 1], axis=1, equal_var=False).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.04)


def test_one_seed_is_refused():
    with pytest.raises(ValueError, match="one seed"):
        significance.compare_seeds([0.4], [0.5, 0.6])


@pytest.mark.parametrize("n", [20, 60])
def test_newcombe_covers_the_truth_where_a_bootstrap_does_not(n):
    """Paired shares of 0.9 and 0.95: b is right wherever a is, and half of the rest."""
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(500):
        u = generator.random(n)
        a, b = (u < 0.9).astype(float), (u < 0.95).astype(float)
        low, high = significance.newcombe_interval(a, b)
        hits += low <= 0.05 <= high
    assert hits >= 462


def test_clusters_widen_the_interval_as_much_as_they_must():
    """50 pictures with ten questions each, answered alike: 50 values, not 500."""
    generator = np.random.default_rng(2)
    misses = {True: 0, False: 0}
    for seed in range(60):
        per_picture = generator.normal(size=50)
        gaps = np.repeat(per_picture, 10)
        pictures = np.repeat(np.arange(50), 10)
        for clustered in misses:
            test = significance.compare_pairs(
                np.zeros(500), gaps, pictures if clustered else None, seed=seed
            )
            misses[clustered] += not test.difference.low <= 0 <= test.difference.high
    assert misses[True] <= 8  # 5 %, and chance
    assert misses[False] >= 24  # the fault that clusters mend


def test_no_difference_alarms_in_one_of_twenty():
    generator = np.random.default_rng(3)
    ps = []
    for seed in range(150):
        scores = (generator.random((2, 150)) < 0.6).astype(float)
        ps.append(significance.compare_pairs(*scores, seed=seed).p)
    assert np.mean(np.asarray(ps) < 0.05) <= 0.09


def test_holm_is_that_of_the_book():
    assert significance.adjust_by_holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, None, 0.06, 0.02]
    )


def test_how_many_more_would_tell():
    assert significance.needed_count(100, 0.2, 0.1) == 400
    assert significance.needed_count(100, 0.1, -0.2) is None
    assert significance.needed_count(100, 0.1, 0.0) is None


@pytest.mark.parametrize("paired", [True, False], ids=["pairs", "two groups"])
def test_ratios_are_scipys_t_of_logs(paired):
    a, b = [1.0, 1.1, 0.9, 1.05, 1.2], [1.1, 1.2, 1.0, 1.1, 1.3]
    test = significance.compare_ratios(a, b, paired=paired)
    oracle = (stats.ttest_rel if paired else lambda *s: stats.ttest_ind(*s, equal_var=False))(
        np.log(b), np.log(a)
    )
    assert test.p == pytest.approx(oracle.pvalue)
    assert (test.difference.low, test.difference.high) == pytest.approx(
        tuple(np.expm1(oracle.confidence_interval(0.95)))
    )
    assert test.difference.delta == pytest.approx(
        np.exp(np.mean(np.log(b)) - np.mean(np.log(a))) - 1
    )


def test_drift_widens_groups_and_not_pairs():
    """A machine that gets slower by 3 % a process, measured in turns; b is 5 % slower than a."""
    generator = np.random.default_rng(3)
    drift = 1.03 ** np.arange(10) * np.exp(generator.normal(0, 0.002, 10))
    order = [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]
    a = [time for time, side in zip(drift, order, strict=True) if side == 0]
    b = [1.05 * time for time, side in zip(drift, order, strict=True) if side == 1]
    pairs = significance.compare_ratios(a, b, paired=True).difference
    groups = significance.compare_ratios(a, b, paired=False).difference
    assert pairs.low > 0.0 > groups.low
    assert pairs.low < 0.05 < pairs.high


@pytest.mark.parametrize("sides", [([1.0], [2.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_ratios_need_two_processes_and_costs_above_0(sides):
    with pytest.raises(ValueError, match="noise|ratio"):
        significance.compare_ratios(*sides, paired=True)


def test_one_cluster_has_no_test_and_costs_no_other_metric_certainty():
    test = significance.compare_pairs([0.0, 0.0, 0.2], [1.0, 1.0, 0.9], ["picture"] * 3)
    assert (test.p, test.difference.low, test.clusters) == (None, None, 1)
    assert significance.adjust_by_holm([test.p, 0.03]) == [None, 0.03]
