"""Numbers in words: the same figure in tables and sentences, one minus sign."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.answers import words
from tuner.answers.columns import unit_of
from tuner.records import NATS, NUMBER, SHARE, Metric
from tuner.statistics.variance import Interval

COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS)
def test_table_and_sentence_have_the_same_digits(one: int, other: int) -> None:
    """A difference of shares is rounded alike in a table and in a sentence, halves too."""
    value = one / 400 - other / 400
    interval = Interval(value, value - 0.05, value + 0.05)
    table = words.with_ends(SHARE.difference, interval).split()[0]
    sentence = words.difference(SHARE, interval).split()[0]
    assert table == sentence


def test_a_figure_is_read_in_its_unit() -> None:
    """Shares are in per cent, losses have four digits, areas are fractions."""
    assert words.figure(unit_of("val_acc") or NUMBER, 0.8724) == "87.2%"
    assert words.figure(unit_of("last_test_sensitivity") or NUMBER, 1.0) == "100.0%"
    assert words.figure(unit_of("gap") or NUMBER, -0.0244) == "−2.4"
    assert words.figure(unit_of("test_auc") or NUMBER, 0.98765) == "0.988"
    assert words.figure(unit_of("val_loss") or NUMBER, 0.12345) == "0.1235"
    assert words.figure(unit_of("val_brier") or NUMBER, 12.3456) == "12.35"
    assert words.figure(unit_of("late_val_slope") or NUMBER, -0.00123) == "−1.2e−03"
    assert words.figure(SHARE, None) == "–"
    assert unit_of("device") is None


def test_an_own_metric_is_read_as_it_was_declared() -> None:
    """A declared metric that is a share is in per cent, its gap in points; a number stays one."""
    own = (Metric("dice", "higher", "Overlap."), Metric("mm", "lower", "Distance.", "number"))
    assert words.figure(unit_of("val_dice", own) or NUMBER, 0.5) == "50.0%"
    assert words.figure(unit_of("gap_dice", own) or NUMBER, 0.05) == "+5.0"
    assert words.figure(unit_of("test_mm", own) or SHARE, 7.25) == "7.25"


def test_limits_stay_within_what_there_is() -> None:
    """An interval of an accuracy is cut at 100%, and one of a loss at 0."""
    assert words.with_ends(SHARE, Interval(0.95, 0.88, 1.02)) == "95.0% (88.0 to 100.0)"
    assert words.ends(NATS, Interval(0.2, -0.1, 0.5)) == "0.0000 to 0.5000"
    assert words.with_half(SHARE, 0.95, 0.07) == "95.0 ± 7.0%"
    assert words.with_half(SHARE.difference, 0.05, 0.07) == "+5.0 ± 7.0"


def test_a_figure_without_variation_has_no_limits() -> None:
    """If all images agree, a bootstrap has no limits, and none are given."""
    assert words.with_any_ends(SHARE, Interval(1.0, 1.0, 1.0)) == "100.0%"
    assert words.with_any_ends(SHARE, Interval(0.9, 0.8, 0.95)) == "90.0% (80.0 to 95.0)"
    assert words.with_any_ends(SHARE, None) == "–"


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
    """Halves are rounded away from zero, zero has no sign, and no number is too large."""
    assert words.fixed(value, digits) == text


def test_a_sign_is_a_sign() -> None:
    """A number has a plus or a minus sign, not a hyphen; one that rounds to zero has none."""
    assert words.signed(0.1, 1) == "+0.1"
    assert words.signed(-0.1, 1) == "−0.1"
    assert words.signed(0.04, 1) == "0.0"
    assert words.signed(-0.04, 1) == "0.0"
