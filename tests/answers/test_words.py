"""Numbers in words: the same figure in a table and in a sentence, one sign for minus."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.answers import words
from tuner.results import MEASURES
from tuner.statistics.variance import Interval

COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS)
def test_table_and_sentence_have_the_same_digits(one: int, other: int) -> None:
    """A difference of shares is rounded alike as a fraction and in points, halves too."""
    value = one / 400 - other / 400
    fraction = words.with_ends(Interval(value, value - 0.05, value + 0.05), sign=True).split()[0]
    points = words.difference(
        MEASURES["test_acc"], Interval(value, value - 0.05, value + 0.05)
    ).split()[0]
    assert fraction.strip("+−") == f"{float(points.strip('+−')) / 100:.3f}"
    assert fraction.startswith(("+", "−")) == points.startswith(("+", "−"))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.8 - 0.8575, 3, "−0.058"),
        ((0.8 - 0.8575) * 100, 1, "−5.8"),
        (-0.0004, 3, "0.000"),
        (0.25, 1, "0.3"),
        (float("nan"), 2, "nan"),
        (float("-inf"), 2, "−inf"),
        (1e300, 1, f"{1e300:.1f}"),
        (12345.0, 0, "12345"),
        (np.float64(0.125), 2, "0.13"),
    ],
)
def test_numbers_are_rounded_as_decimals(value: float, digits: int, text: str) -> None:
    """Halves go away from zero, nothing is a negative zero, and no number is too large."""
    assert words.fixed(value, digits) == text


def test_a_sign_is_a_sign() -> None:
    """A plus or a minus, no hyphen, and none for what rounds to zero."""
    assert words.signed(0.1, 1) == "+0.1"
    assert words.signed(-0.1, 1) == "−0.1"
    assert words.signed(0.04, 1) == "0.0"
    assert words.signed(-0.04, 1) == "0.0"
