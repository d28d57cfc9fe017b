"""Ranks, compared with scipy's."""

import numpy as np
import pytest
from scipy.stats import rankdata

from tuner.statistics.ranks import average_ranks

CHANCE = np.random.default_rng(23)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 17, 200, 5000])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("values", [1, 2, 30, 10**9])
def test_ranks_are_scipys(size: int, kind: type[np.generic], values: int) -> None:
    """Ranks are scipy's exactly: with all, many and hardly any ties."""
    drawn = (CHANCE.integers(0, values, size) - values // 2).astype(kind)
    found = average_ranks(drawn)
    assert found.dtype == np.float64
    assert np.array_equal(found, rankdata(drawn))


def test_infinities_and_both_zeros_have_ranks() -> None:
    """Zeros are equal whatever their sign."""
    drawn = np.array([np.inf, 0.0, -0.0, -np.inf, np.inf, 5.0])
    assert np.array_equal(average_ranks(drawn), rankdata(drawn))


def test_with_what_is_no_number_nothing_has_a_rank() -> None:
    """As in scipy, NaN among the values makes all ranks NaN."""
    assert np.isnan(average_ranks(np.array([1.0, np.nan, 2.0]))).all()
