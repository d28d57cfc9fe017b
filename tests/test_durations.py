"""The list of long tests: reading a report's durations, and that all listed tests exist."""

from pathlib import Path

from tests.harness.durations import long_tests, measured

REPORT = """
============================= slowest durations ==============================
1.20s call     tests/a/test_one.py::test_first[some words in brackets]
0.10s call     tests/a/test_one.py::test_first[2]
0.20s setup    tests/a/test_one.py::test_second
0.20s call     tests/a/test_one.py::test_second
0.25s call     tests/a/test_one.py::test_third
"""


def test_a_test_is_as_long_as_its_longest_parameters_with_their_setup() -> None:
    """Setup and call are added up; short tests are not on the list."""
    long = ["tests/a/test_one.py::test_first", "tests/a/test_one.py::test_second"]
    assert measured(REPORT.splitlines()) == long


def test_what_is_listed_is_there() -> None:
    """The list has no test that was renamed or removed."""
    root = Path(__file__).resolve().parents[1]
    listed = long_tests()
    assert len(listed) > 100
    for test in listed:
        place, _, name = test.partition("::")
        assert f"def {name}(" in (root / place).read_text(encoding="utf-8"), test
