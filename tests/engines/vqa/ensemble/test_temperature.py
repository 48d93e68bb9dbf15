"""Temperature scaling against scipy, and what it says about held-out rows."""

import numpy as np
import pytest
from scipy import optimize
from scipy.special import log_softmax

from engines.vqa.ensemble import temperature
from engines.vqa.evaluation import calibration


def logits_of(degree: float, rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, 4] whose answers are drawn at `degree`: calibrated after division by it."""
    random = np.random.default_rng(3)
    logits = random.normal(size=(rows, 4)) * 3
    shares = calibration.softmax(logits / degree)
    truth = (shares.cumsum(1) > random.random((rows, 1))).argmax(1)
    return logits, truth.astype(np.int64)


@pytest.mark.parametrize("degree", [0.5, 1.0, 2.5])
def test_the_temperature_is_scipys(degree):
    logits, truth = logits_of(degree)

    def cross_entropy(t: float) -> float:
        return -log_softmax(logits / t, axis=1)[np.arange(len(truth)), truth].mean()

    expected = optimize.minimize_scalar(cross_entropy, bounds=(0.1, 10), method="bounded").x
    found = temperature.fit(calibration.softmax(logits), truth)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found == pytest.approx(degree, rel=0.15)


def test_scaling_stored_probabilities_is_scaling_logits():
    logits, _ = logits_of(2.0)
    scaled = temperature.scale(calibration.softmax(logits), 2.0)
    np.testing.assert_allclose(scaled, calibration.softmax(logits / 2.0), atol=1e-9)


def test_answers_that_are_all_right_have_the_lowest_temperature():
    logits, _ = logits_of(1.0)
    found = temperature.fit(calibration.softmax(logits), logits.argmax(1))
    assert found == pytest.approx(temperature.LOW)


def test_an_unknown_answer_counts_for_nothing():
    logits, truth = logits_of(2.0)
    some = np.where(np.arange(len(truth)) % 2, truth, -1)
    shares = calibration.softmax(logits)
    assert temperature.fit(shares, some) == temperature.fit(shares[1::2], truth[1::2])
    assert temperature.fit(shares, np.full_like(truth, -1)) == 1.0


def test_a_folds_rows_are_scaled_by_the_other_folds():
    logits, truth = logits_of(2.5)
    shares, fold = calibration.softmax(logits), np.arange(len(truth)) % 3
    scaled = temperature.scale_cross_fitted(shares, truth, fold)
    other = temperature.fit(shares[fold != 1], truth[fold != 1])
    np.testing.assert_array_equal(scaled[fold == 1], temperature.scale(shares[fold == 1], other))


@pytest.mark.parametrize(("degree", "sure"), [(2.5, True), (1.0, False)])
def test_a_gain_is_sure_only_where_there_is_one(degree, sure):
    logits, truth = logits_of(degree)
    shares, fold = calibration.softmax(logits), np.arange(len(truth)) % 3
    gain = temperature.compare(shares, temperature.scale_cross_fitted(shares, truth, fold), truth)
    assert (gain.low > 0) is sure
    assert gain.low < gain.before - gain.after < gain.high
