"""Which workers are replaced, and when replacing stops."""

import pytest

from tuner.errors import EXIT_DONE, EXIT_FAILURES, EXIT_MACHINE, EXIT_UNEXPECTED, EXIT_USER
from tuner.fleet.replacements import HOPELESS, Replacements, WorkerEnd

OLD = 3600.0


@pytest.mark.parametrize("code", [EXIT_DONE, EXIT_FAILURES, EXIT_USER, EXIT_MACHINE])
def test_who_ended_on_purpose_is_not_replaced(code: int) -> None:
    """A worker that ended with the study, or with its own error, is not replaced."""
    replacements = Replacements()
    assert not replacements.replaces(WorkerEnd(code, OLD))
    assert not replacements.given_up


@pytest.mark.parametrize("code", [-9, -11, None, 143])
def test_who_was_killed_after_a_while_is_replaced_for_ever(code: int | None) -> None:
    """A worker killed every hour is replaced every hour."""
    replacements = Replacements()
    assert all(replacements.replaces(WorkerEnd(code, OLD)) for _ in range(50))


def test_early_deaths_in_a_row_end_it_and_are_told() -> None:
    """After early deaths in a row the last is not replaced, and the reason names its signal."""
    replacements = Replacements()
    replaced = [replacements.replaces(WorkerEnd(-11, 1.0)) for _ in range(HOPELESS)]
    assert replaced == [True] * (HOPELESS - 1) + [False]
    assert "5 workers in a row" in replacements.reason
    assert "by signal 11 after 1 s" in replacements.reason


def test_a_worker_that_grew_old_forgives_those_before_it() -> None:
    """Only early deaths in a row count: a worker that grew old resets the count."""
    replacements = Replacements()
    for _ in range(10):
        for _ in range(HOPELESS - 1):
            assert replacements.replaces(WorkerEnd(-9, 1.0))
        assert replacements.replaces(WorkerEnd(-9, OLD))


def test_unexpected_errors_count_at_any_age() -> None:
    """Unexpected errors count at any age: ours may hit every worker after an hour."""
    replacements = Replacements()
    for _ in range(HOPELESS):
        replacements.replaces(WorkerEnd(EXIT_UNEXPECTED, OLD))
    assert replacements.given_up


def test_places_that_were_taken_away_count_for_nothing() -> None:
    """Preempted a hundred times at once a worker is still replaced, and the count is unchanged.

    In a crew whose others were given up, a preempted worker still comes back.
    """
    replacements = Replacements()
    for _ in range(HOPELESS - 1):
        replacements.replaces(WorkerEnd(-9, 1.0))
    assert all(replacements.replaces(WorkerEnd(143, 1.0, taken=True)) for _ in range(100))
    assert not replacements.replaces(WorkerEnd(-9, 1.0))
    assert replacements.replaces(WorkerEnd(143, 1.0, taken=True))
    assert replacements.given_up
