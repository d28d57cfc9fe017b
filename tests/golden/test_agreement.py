"""What counts as equal output."""

import pytest

from tests.golden.agreement import difference, json_difference


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("0.2398 nats", "0.2399 nats"),
        ("gap −0.100", "gap −0.101"),
        ("p = 0.12345678901", "p = 0.12345678902"),
    ],
)
def test_last_digits_may_differ(expected: str, found: str) -> None:
    """Another CPU's last digit is not a difference."""
    assert difference(expected, found, rounded=True) is None


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("0.2398 nats", "0.2400 nats"),
        ("0.2400 nats", "0.24 nats"),
        ("gap −0.100", "gap 0.100"),
        ("45 trials", "46 trials"),
        ("the p is 0.9", "the p is 0.8"),
        ("two words", "two  words"),
        ("trial 5 is best", "trial 5 is the best"),
        ("a line\n", "a line\n\n"),
    ],
)
def test_all_else_is_a_difference(expected: str, found: str) -> None:
    """Words, spaces, counts and how many digits are printed count."""
    assert difference(expected, found, rounded=True)


def test_exported_numbers_are_compared_with_all_their_digits() -> None:
    """In a file for programs 0.917 and 0.918 are different."""
    assert difference("0.917", "0.918", rounded=False)
    assert difference("0.3000000000000001", "0.3", rounded=False) is None


def test_only_lines_that_differ_are_shown() -> None:
    """A line that differs only in its last digit is shown as expected."""
    shown = difference("a 0.123\nb 1\nc\n", "a 0.124\nb 2\nc\n", rounded=True)
    assert shown is not None
    assert "-b 1" in shown
    assert "+b 2" in shown
    assert "0.124" not in shown


@pytest.mark.parametrize(
    ("expected", "found", "place"),
    [
        ('{"a": [1, 2]}', '{"a": [1, 3]}', "$.a[1]"),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', "$: keys"),
        ('{"a": 0.917}', '{"a": 0.918}', "$.a"),
        ('{"a": 1}', '{"a": 1.0}', "$.a"),
        ('{"a": true}', '{"a": 1}', "$.a"),
        ('{"a": null}', '{"a": NaN}', "$.a"),
        ('{"a": "is best"}', '{"a": "is the best"}', "$.a"),
        ('{"a": 1}\n{"a": 2}', '{"a": 1}\n{"a": 3}', "$[1].a"),
    ],
)
def test_json_is_compared_place_by_place(expected: str, found: str, place: str) -> None:
    """A JSON difference is reported with its path; order and types count."""
    assert (json_difference(expected, found) or "").startswith(place)


def test_json_allows_last_bits() -> None:
    """Floats that differ by rounding are equal, and NaN equals NaN."""
    assert json_difference('{"a": 0.1, "b": NaN}', '{"a": 0.10000000000000002, "b": NaN}') is None
