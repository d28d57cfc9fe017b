"""Calibration, losses and rank correlations, compared with scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import brier_score_loss

from tuner.statistics.bootstrap import mean_difference
from tuner.statistics.calibration import reliability
from tuner.statistics.correlation import rank_correlation
from tuner.statistics.multiple_comparisons import holm

CHANCE = np.random.default_rng(5)


def test_brier_is_twice_that_of_two_classes_in_scikit_learn() -> None:
    """Our Brier score sums over both classes, so it is twice the binary one."""
    second = CHANCE.random(500)
    labels = (CHANCE.random(500) < second).astype(np.int64)
    found = reliability(np.column_stack([1 - second, second]), labels)
    assert found.brier == pytest.approx(2 * brier_score_loss(labels, second))


def test_honest_probabilities_have_little_error_and_boasting_ones_much() -> None:
    """The calibration error of true probabilities is near 0; of 0.99 that is half right, 0.49."""
    second = CHANCE.random(20_000)
    labels = (CHANCE.random(20_000) < second).astype(np.int64)
    honest = reliability(np.column_stack([1 - second, second]), labels)
    assert honest.error < 0.02
    assert sum(one.images for one in honest.bins) == 20_000
    boasting = np.tile([0.01, 0.99], (1000, 1))
    found = reliability(boasting, np.arange(1000) % 2)
    assert found.error == pytest.approx(0.49)
    assert [one.images for one in found.bins] == [1000]


def test_losses_are_resampled_in_pairs() -> None:
    """The interval is close to scipy's bias-corrected bootstrap, and reproducible."""
    one, other = CHANCE.exponential(1.0, 400), CHANCE.exponential(0.8, 400)
    found = mean_difference(one, other)
    assert found == mean_difference(one, other)
    scipy = bootstrap((one - other,), np.mean, method="BCa", rng=np.random.default_rng(1))
    assert found.low == pytest.approx(scipy.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(scipy.confidence_interval.high, abs=0.02)
    same = mean_difference(one, one)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_rank_correlation_is_that_of_scipy() -> None:
    """The interval covers the truth; with three pairs or a constant there is no correlation."""
    # A separate generator, independent of other tests: one interval in twenty misses the truth.
    chance = np.random.default_rng(5)
    one = chance.standard_normal(200)
    other = one + chance.standard_normal(200)
    found = rank_correlation(one, other)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(one, other).statistic)
    assert found.low < 0.69 < found.high
    assert rank_correlation(one[:3], other[:3]) is None
    assert rank_correlation(np.ones(9), other[:9]) is None
    equal = rank_correlation(one[:9], one[:9])
    assert equal is not None
    assert (equal.value, equal.high) == (1.0, 1.0)
    assert 0.8 < equal.low < 0.99
    four = rank_correlation(one[:4], one[:4])
    assert four is not None
    assert four.low < 0, "four pairs are in one order by chance once in 24"


def test_rank_correlation_is_scipys_with_ties_too() -> None:
    """With few and many ties the correlation is scipy's; NaN gives NaN."""
    for count in (4, 5, 12, 300):
        for values in (2, 4, 1000):
            one, other = CHANCE.integers(0, values, (2, count)).astype(float)
            found = rank_correlation(one, other)
            if np.ptp(one) == 0 or np.ptp(other) == 0:
                assert found is None
                continue
            assert found is not None
            assert found.value == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)
    unknown = rank_correlation(np.array([1.0, np.nan, 2.0, 3.0, 4.0]), np.arange(5.0))
    assert unknown is not None
    assert np.isnan(unknown.value)


def test_holm_is_that_of_statsmodels() -> None:
    """Adjusted p values stay in the given order, are never above 1 and never decrease."""
    from statsmodels.stats.multitest import multipletests

    chances = [0.04, 0.001, 0.5, 0.02, 0.02]
    assert holm(chances) == pytest.approx(list(multipletests(chances, method="holm")[1]))
    assert holm([]) == []
