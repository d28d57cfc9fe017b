"""Our own quantiles and probabilities, compared with scipy.stats."""

import warnings
from math import comb

import numpy as np
import pytest
from scipy import stats

from tuner.statistics.distributions import (
    chi_square,
    heads,
    heads_at_most,
    range_tail,
    students,
)
from tuner.statistics.variance import LEVELS_MAX, RANGES

CHANCE = np.random.default_rng(21)


def test_quantiles_are_scipys() -> None:
    """Chi square and Student's t, for few and very many degrees of freedom, whole or not."""
    shares = np.concatenate([CHANCE.random(200), [1e-9, 0.0025, 0.5, 0.9975, 1 - 1e-9]])
    for freedom in [*range(1, 40), *CHANCE.uniform(1, 400, 60).tolist(), 1e4, 1e7]:
        wanted = stats.chi2.ppf(shares, freedom) / freedom
        assert chi_square(shares, freedom) == pytest.approx(wanted, rel=1e-12)
        assert float(chi_square(0.3, freedom)) == pytest.approx(
            stats.chi2.ppf(0.3, freedom) / freedom, rel=1e-12
        )
        found = [students(share, freedom) for share in shares.tolist()]
        assert found == pytest.approx(stats.t.ppf(shares, freedom), rel=1e-9)


def test_the_quantiles_of_intervals_are_exact() -> None:
    """For whole degrees of freedom they are computed here, and agree with SciPy's to rounding."""
    shares = np.array([0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999])
    for freedom in range(1, 202):
        found = [students(share, freedom) for share in shares.tolist()]
        assert found == pytest.approx(stats.t.ppf(shares, freedom), rel=1e-12, abs=1e-15)


def test_where_the_variance_is_known_the_quantile_is_normal() -> None:
    """0 degrees of freedom stand for a known variance."""
    for share in CHANCE.random(100).tolist():
        assert students(share, 0.0) == pytest.approx(stats.norm.ppf(share), rel=1e-12)


def test_heads_at_most_are_binomial() -> None:
    """The cumulative probability is binomial from no throw to millions, and beyond both ends."""
    for throws in [*range(30), 101, 999, 12_345, 3_000_000]:
        most = np.unique(CHANCE.integers(0, throws + 1, 40)).tolist()
        for shown in [-3, -1, *most, throws, throws + 1]:
            wanted = stats.binom.cdf(shown, throws, 0.5)
            assert heads_at_most(shown, throws) == pytest.approx(wanted, rel=1e-12, abs=0)


def test_heads_are_counted() -> None:
    """Probabilities equal those from whole numbers, to rounding."""
    for throws in [*range(20), 63, 64, 65, 500, 1001]:
        exact = [comb(throws, shown) / 2**throws for shown in range(throws + 1)]
        assert heads(throws) == pytest.approx(exact, rel=1e-13, abs=1e-300)


def test_many_throws_do_not_overflow() -> None:
    """Large numbers give scipy's shares without overflow, warning or a share above 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for throws in (1030, 5001, 40_000):
            found = heads(throws)
            assert len(found) == throws + 1
            assert found.sum() == pytest.approx(1, abs=1e-14)
            wanted = stats.binom.pmf(np.arange(throws + 1), throws, 0.5)
            assert found == pytest.approx(wanted, rel=1e-10, abs=1e-290)


def test_range_of_two_is_that_of_a_difference() -> None:
    """The range of two values is a difference with twice the variance, also far out."""
    apart = np.concatenate([RANGES, CHANCE.uniform(0, 30, 300)])
    wanted = 2 * stats.norm.sf(apart / np.sqrt(2))
    assert range_tail(apart, 2) == pytest.approx(wanted, rel=1e-11, abs=1e-40)


@pytest.mark.parametrize(
    "count", [*range(3, 11), 15, 20, 30, LEVELS_MAX, 100, 300, 1000, 3000, 10_000]
)
def test_range_is_scipys(count: int) -> None:
    """The range's tail is scipy's within 1e-9."""
    apart = np.concatenate([RANGES[1::20], CHANCE.uniform(1e-3, 14, 60)])
    found = range_tail(apart, count)
    assert np.abs(found - stats.studentized_range.sf(apart, count, np.inf)).max() < 1e-9
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("count", [2, 3, LEVELS_MAX, 10_000])
def test_every_range_is_wider_than_nothing(count: int) -> None:
    """The tail is 1 at 0 and 0 at infinity."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none, endless = range_tail(np.array([0.0, np.inf]), count)
    assert none == pytest.approx(1, abs=1e-10)
    assert endless == 0
