"""Means over seeds with t intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuner.statistics.means import mean_over_seeds

FLOATS = st.floats(-1e3, 1e3)


@given(st.lists(FLOATS, min_size=2, max_size=12))
def test_interval_is_scipys_t_interval(values: list[float]) -> None:
    """The mean and both ends agree with an independent implementation."""
    mean = mean_over_seeds(values)
    assert mean is not None
    assert mean.low is not None
    assert mean.high is not None
    error = stats.sem(values)
    if error > 0:
        center = sum(values) / len(values)
        low, high = stats.t.interval(0.95, len(values) - 1, loc=center, scale=error)
        assert math.isclose(mean.low, low, rel_tol=1e-9, abs_tol=1e-9)
        assert math.isclose(mean.high, high, rel_tol=1e-9, abs_tol=1e-9)
    assert mean.n == len(values)


def test_one_seed_has_no_interval() -> None:
    """A single seed gives a mean with its n, and no interval."""
    mean = mean_over_seeds([0.75])
    assert mean is not None
    assert (mean.value, mean.n, mean.low, mean.half_width) == (0.75, 1, None, None)


def test_no_seed_has_no_mean() -> None:
    """No value gives no mean, not zero."""
    assert mean_over_seeds([]) is None


@pytest.mark.parametrize("n", [2, 5])
def test_equal_values_have_an_interval_of_no_width(n: int) -> None:
    """Equal values have an interval of width zero."""
    mean = mean_over_seeds([0.5] * n)
    assert mean is not None
    assert (mean.low, mean.high) == (0.5, 0.5)
