"""Rows as CSV and JSON: exact, and safe to open in a spreadsheet."""

import csv
import io
import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.answers.sheets.export import as_csv, as_json


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_csv_keeps_every_bit_of_a_number(value: float) -> None:
    """A float read back from the CSV equals the float that was written, bit for bit."""
    text = as_csv(["x"], [[value]])
    assert float(text.splitlines()[1]) == value


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@sum", "\tx", "\rx"])
def test_csv_disarms_formulas(text: str) -> None:
    """A text that a spreadsheet would execute is prefixed with an apostrophe."""
    rows = list(csv.reader(io.StringIO(as_csv(["reason"], [[text]]))))
    assert rows[1] == [f"'{text}".replace("\r", "\n")]


def test_csv_leaves_negative_numbers_alone() -> None:
    """A negative number is not taken for a formula."""
    assert as_csv(["gap"], [[-0.25]]).splitlines()[1] == "-0.25"


def test_csv_writes_unknown_as_empty_and_times_in_utc() -> None:
    """None is an empty cell; times carry their zone; booleans are words."""
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    text = as_csv(["a", "b", "c"], [[None, when, True]])
    assert text.splitlines()[1] == ",2026-01-02T03:04:05+00:00,true"


def test_json_has_null_where_a_figure_is_not_finite() -> None:
    """NaN and infinity, which JSON lacks, become null."""
    rows = json.loads(as_json(["x", "y"], [[math.nan, math.inf], [1.5, "ü"]]))
    assert rows == [{"x": None, "y": None}, {"x": 1.5, "y": "ü"}]
