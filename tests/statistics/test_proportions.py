"""Shares of images, compared with statsmodels, scipy and published figures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from tuner.statistics.proportions import (
    Right,
    mcnemar,
    newcombe,
    newcombe_paired,
    wilson,
)


def table(both: int, only_one: int, only_other: int, neither: int) -> tuple[Right, Right]:
    """Return two classifiers' hits with these counts."""
    one = [True] * (both + only_one) + [False] * (only_other + neither)
    other = [True] * both + [False] * only_one + [True] * only_other + [False] * neither
    return np.array(one), np.array(other)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_is_that_of_statsmodels(images: int, share: float) -> None:
    """Wilson's interval is statsmodels', for all counts including the ends of the range."""
    right = round(share * images)
    found = wilson(right, images)
    low, high = proportion_confint(right, images, method="wilson")
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("right", "images", "other", "others"), [(190, 200, 150, 200), (0, 50, 3, 70), (80, 80, 60, 60)]
)
def test_newcombe_is_that_of_statsmodels(right: int, images: int, other: int, others: int) -> None:
    """The difference of two shares of different images, including the ends of the range."""
    found = newcombe(right, images, other, others)
    low, high = confint_proportions_2indep(
        right, images, other, others, method="newcomb", compare="diff"
    )
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("counts", [(36, 12, 2, 0), (1, 1, 0, 0), (300, 30, 55, 15), (9, 0, 0, 4)])
def test_mcnemar_is_exact(counts: tuple[int, int, int, int]) -> None:
    """The p value is the binomial one, also for few and for no discordant pairs."""
    found = mcnemar(*table(*counts))
    both, only_one, only_other, neither = counts
    wanted = reference_mcnemar([[both, only_one], [only_other, neither]], exact=True).pvalue
    assert found.p_value == pytest.approx(min(1.0, wanted))
    assert (found.only_one, found.only_other) == (only_one, only_other)
    if found.discordant:
        assert found.p_value == pytest.approx(binomtest(only_one, found.discordant).pvalue)


def test_paired_difference_is_as_published() -> None:
    """Newcombe (Statistics in Medicine 1998, 17, 2635), method 10, of 36, 12, 2 and 0 pairs."""
    found = newcombe_paired(*table(36, 12, 2, 0))
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


def test_paired_difference_covers_what_it_promises() -> None:
    """95% of intervals cover the true difference of two classifiers that are often both right."""
    chance, covered = np.random.default_rng(14), 0
    for _ in range(2000):
        counts = chance.multinomial(200, (0.8, 0.08, 0.03, 0.09))
        found = newcombe_paired(*table(*counts))
        covered += found.low <= 0.05 <= found.high
    assert 0.94 <= covered / 2000 <= 0.97


def test_paired_difference_turns_with_the_order() -> None:
    """Exchanging the two changes only the sign."""
    one, other = table(300, 30, 55, 15)
    there, back = newcombe_paired(one, other), newcombe_paired(other, one)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )


def test_interval_says_what_the_test_says() -> None:
    """0 is in the interval exactly if the exact test sees no difference."""
    for only_one in range(12):
        for only_other in range(12):
            found = mcnemar(*table(6, only_one, only_other, 3))
            holds_zero = found.difference.low <= 0 <= found.difference.high
            differs = found.p_value < 0.05
            assert holds_zero != differs or 0.0 in (found.difference.low, found.difference.high)
