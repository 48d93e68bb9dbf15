"""Intervals against scipy, closed forms, and coverage that is known by construction."""

import math
import tracemalloc

import numpy as np
import pytest

from results import statistics

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle of these tests")


def test_bootstrap_mean_agrees_with_scipy():
    values = np.random.default_rng(1).beta(0.6, 1.4, size=400)
    ours = statistics.bootstrap_mean(values, resamples=4000, seed=3)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", random_state=3
    ).confidence_interval
    error = float(values.std() / math.sqrt(400))
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * error)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * error)
    assert ours.method == "bootstrap over queries, 4000, 95%"


def test_bootstrap_mean_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(7)
    hits = 0
    for trial in range(400):
        values = (generator.random(200) < 0.3).astype(float)
        low, high, _ = statistics.bootstrap_mean(values, resamples=300, seed=trial)
        assert low is not None
        assert high is not None
        hits += low <= 0.3 <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_level_widens_the_interval():
    values = np.random.default_rng(2).random(300)
    narrow = statistics.bootstrap_mean(values, level=0.8)
    wide = statistics.bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high
    assert "99%" in wide.method


def test_equal_seeds_give_equal_bits():
    values = np.random.default_rng(2).random(5000)
    assert statistics.bootstrap_mean(values, seed=5) == statistics.bootstrap_mean(values, seed=5)
    assert statistics.bootstrap_mean(values, seed=5) != statistics.bootstrap_mean(values, seed=6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_hit_at_all_is_not_certainty(share):
    low, high, method = statistics.bootstrap_mean([share] * 300)
    oracle = scipy_stats.binomtest(int(share * 300), 300).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert method.startswith("Wilson")
    assert high - low > 0.01


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (5, 300), (150, 300), (5046, 5046)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, n, level):
    low, high, _ = statistics.wilson_interval(successes, n, level)
    oracle = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "no values"),
        ([0.5], "one value has no interval"),
        ([0.5, math.nan, math.inf], "2 of 3 values are not finite"),
    ],
)
def test_no_interval_has_a_reason(values, reason):
    assert statistics.bootstrap_mean(values) == (None, None, reason)
    assert statistics.block_bootstrap_quantile(values, 0.5) == (None, None, reason)


def test_memory_stays_bounded():
    values = np.random.default_rng(0).random(5046)
    tracemalloc.start()
    statistics.bootstrap_mean(values)
    statistics.block_bootstrap_quantile(np.tile(values, 20), 0.5, resamples=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 2**20


def test_paired_difference_is_a_bootstrap_of_the_gaps():
    generator = np.random.default_rng(4)
    a = generator.random(500)
    b = a + generator.normal(0.01, 0.05, 500)
    found = statistics.paired_difference(a, b, seed=9)
    gaps = statistics.bootstrap_mean(b - a, seed=9)
    assert (found.low, found.high) == (gaps.low, gaps.high)
    assert found.delta == pytest.approx((b - a).mean())


def test_pairing_sees_what_two_intervals_cannot():
    generator = np.random.default_rng(4)
    a = generator.random(300)
    b = a + generator.normal(0.02, 0.05, 300)
    alone = [(float(x.mean()), *statistics.bootstrap_mean(x)[:2]) for x in (a, b)]
    assert statistics.paired_difference(a, b).distinguishable
    assert not statistics.unpaired_difference(*alone).distinguishable


def test_paired_difference_refuses_other_lengths():
    with pytest.raises(ValueError, match="3 and 2 scores cannot be paired"):
        statistics.paired_difference([1, 2, 3], [1, 2])


def test_equal_scores_are_not_distinguishable():
    found = statistics.paired_difference([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert (found.delta, found.distinguishable) == (0.0, False)


def test_unpaired_difference_of_symmetric_intervals_is_the_root_of_squares():
    found = statistics.unpaired_difference((0.4, 0.37, 0.43), (0.5, 0.46, 0.54))
    assert found.delta == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.05, 0.15))
    assert found.distinguishable


def test_unpaired_difference_agrees_with_newcombes_published_example():
    """Newcombe 1998, method 10: 56/70 against 48/80 gives 0.2 (0.0524 to 0.3339)."""
    a, b = ((k / n, *statistics.wilson_interval(k, n)[:2]) for k, n in ((48, 80), (56, 70)))
    found = statistics.unpaired_difference(a, b)
    assert found.delta == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_block_of_all_steps_only_turns_them_around():
    """Circular blocks keep neighbours: one block of n steps is always a rotation of the data."""
    steps = np.random.default_rng(8).lognormal(-2, 0.5, 101)
    for q in (0.5, 0.95):
        low, high, _ = statistics.block_bootstrap_quantile(steps, q, block=101, resamples=50)
        assert low == high == pytest.approx(float(np.quantile(steps, q)))


def _correlated(generator, n, rho=0.9):
    noise = generator.normal(size=n)
    steps = np.empty(n)
    steps[0] = noise[0] / math.sqrt(1 - rho**2)
    for i in range(1, n):
        steps[i] = rho * steps[i - 1] + noise[i]
    return steps + 50


def test_blocks_cover_the_median_of_correlated_steps_and_single_steps_do_not():
    generator = np.random.default_rng(11)
    blocks = singles = 0
    for trial in range(120):
        steps = _correlated(generator, 600)
        low, high, _ = statistics.block_bootstrap_quantile(steps, 0.5, None, 200, trial)
        blocks += low <= 50 <= high
        low, high, _ = statistics.block_bootstrap_quantile(steps, 0.5, 1, 200, trial)
        singles += low <= 50 <= high
    assert blocks / 120 >= 0.84
    assert singles / 120 <= 0.55


def test_blocks_of_one_agree_with_scipy_on_independent_steps():
    steps = np.random.default_rng(5).lognormal(-2.4, 0.2, 301)
    ours = statistics.block_bootstrap_quantile(steps, 0.5, 1, 4000)
    theirs = scipy_stats.bootstrap(
        (steps,), np.median, n_resamples=4000, method="percentile", random_state=0
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.004)


def test_block_length_follows_the_correlation():
    generator = np.random.default_rng(3)
    independent = generator.normal(size=1000)
    assert 8 <= statistics.block_length(independent) <= 13
    assert statistics.block_length(_correlated(generator, 1000)) > 40
    assert statistics.block_length(_correlated(generator, 50)) <= 5
    assert statistics.block_length([0.1, 0.2]) == 1
    for equal in (np.full(1000, 0.1), generator.choice([0.1, 0.2], 1000)):  # ties are no order
        assert 8 <= statistics.block_length(equal) <= 13


def test_short_and_equal_step_times():
    assert statistics.block_bootstrap_quantile([0.1, 0.1, 0.1], 0.95)[:2] == (0.1, 0.1)
    low, high, _ = statistics.block_bootstrap_quantile([0.1, 0.3], 0.5)
    assert 0.1 <= low <= high <= 0.3
