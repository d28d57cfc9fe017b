"""The area under the ROC curve, compared with scikit-learn and with counted pairs."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tuner.statistics.auc import (
    delong,
    delong_difference,
    placements,
    shares_of_area,
)

CHANCE = np.random.default_rng(3)
TRUTH = CHANCE.random(300) < 0.4
SCORES = np.round(CHANCE.standard_normal(300) + TRUTH, 1)
OTHER = SCORES + 0.8 * CHANCE.standard_normal(300)


def counted(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return for each positive and negative whether they are ordered, ties counting half."""
    apart = scores[truth][:, None] - scores[~truth][None, :]
    return np.asarray((apart > 0) + 0.5 * (apart == 0))


def test_area_is_that_of_scikit_learn() -> None:
    """The area is scikit-learn's, with ties."""
    found = delong(SCORES, TRUTH)
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(TRUTH, SCORES))
    assert 0 < found.low < found.value < found.high < 1


def test_placements_are_the_rows_of_all_pairs() -> None:
    """Ranks give the same placements as counting every pair."""
    found = placements(SCORES, TRUTH)
    pairs = counted(SCORES, TRUTH)
    assert found is not None
    assert found.positives == pytest.approx(pairs.mean(axis=1))
    assert found.negatives == pytest.approx(pairs.mean(axis=0))


def test_difference_has_delongs_variance() -> None:
    """The variance of a difference is that of the placements' differences."""
    answer = delong_difference(SCORES, OTHER, TRUTH)
    assert answer is not None
    found, chance = answer
    apart = counted(SCORES, TRUTH) - counted(OTHER, TRUTH)
    rows, columns = apart.mean(axis=1), apart.mean(axis=0)
    variance = rows.var(ddof=1) / len(rows) + columns.var(ddof=1) / len(columns)
    assert found.value == pytest.approx(apart.mean())
    assert found.half_width == pytest.approx(1.959964 * variance**0.5)
    assert 0 < chance < 1


def test_intervals_hold_what_they_promise() -> None:
    """95% of intervals cover the true area of normal scores one standard deviation apart."""
    chance, hits = np.random.default_rng(8), 0
    for _ in range(400):
        truth = np.arange(80) < 30
        found = delong(chance.standard_normal(80) + truth, truth)
        assert found is not None
        hits += found.low <= 0.76025 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_shares_add_up_to_the_area() -> None:
    """The images' shares average to the area, and their variance is DeLong's."""
    shares = shares_of_area(SCORES, TRUTH)
    placed = placements(SCORES, TRUTH)
    assert shares is not None
    assert placed is not None
    assert shares.mean() == pytest.approx(roc_auc_score(TRUTH, SCORES))
    variance = placed.positives.var() / TRUTH.sum() + placed.negatives.var() / (~TRUTH).sum()
    assert shares.var() / len(shares) == pytest.approx(variance)


def test_one_class_alone_has_no_area() -> None:
    """With one class alone there is no area."""
    assert delong(SCORES, np.ones(300, bool)) is None
    assert shares_of_area(SCORES, np.zeros(300, bool)) is None


def test_perfect_order_is_not_certainty() -> None:
    """With an area of 1 the interval still reflects the number of images."""
    found = delong(np.arange(10.0), np.arange(10) > 4)
    assert found is not None
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.8


def test_one_image_of_a_class_is_no_certainty() -> None:
    """A single positive gives no estimate of the area's variance."""
    truth = np.arange(100) == 7
    assert delong(SCORES[:100], truth) is None
    assert delong_difference(SCORES[:100], OTHER[:100], truth) is None
