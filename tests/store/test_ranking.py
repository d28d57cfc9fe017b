"""The best setting: by the mean over seeds, among those with the same number of seeds."""

from dataclasses import replace

import pytest

from tests.store.specs import make_spec
from tuner.spec.study import Replicates, Spec
from tuner.store.ranking import Seed, rank_settings

LUCKY, STEADY, WEAK = 0, 1, 2


def grid(seeds: int) -> Spec:
    """Build a study of three settings."""
    return make_spec(seeds=seeds, metric="val_acc")


def trials(values: dict[int, list[float | str | None]]) -> list[Seed]:
    """Make the trials of settings by seed; a text is a state, None a trial not begun."""
    found = []
    for configuration, of in values.items():
        for seed, value in enumerate(of):
            if value is not None:
                number = 100 * configuration + seed
                complete = value if isinstance(value, float) else None
                found.append(Seed(configuration, seed, number, value != "running", complete))
    return found


def order(spec: Spec, values: dict[int, list[float | str | None]]) -> list[int]:
    """Return the settings, the best first."""
    return [one.configuration for one in rank_settings(spec, trials(values))]


def test_a_lucky_seed_does_not_win() -> None:
    """One high seed beside two low ones ranks behind three good ones."""
    values: dict[int, list[float | str | None]] = {
        LUCKY: [0.93, 0.5, 0.5],
        STEADY: [0.85, 0.86, 0.84],
    }
    found = rank_settings(grid(3), trials(values))
    assert [one.configuration for one in found] == [STEADY, LUCKY]
    assert found[0].mean == pytest.approx(0.85)
    assert found[0].median.value == 0.85


def test_a_metric_that_is_minimised_is_ranked_the_other_way() -> None:
    """The lowest mean loss is first."""
    values: dict[int, list[float | str | None]] = {LUCKY: [0.1, 0.9], STEADY: [0.4, 0.4]}
    assert order(make_spec(seeds=2), values) == [STEADY, LUCKY]


@pytest.mark.parametrize("lost", ["pruned", "diverged", "failed"])
def test_a_setting_that_lost_a_seed_is_behind_those_with_all(lost: str) -> None:
    """However good its other seeds are: the lost one is not missing at random."""
    values: dict[int, list[float | str | None]] = {
        LUCKY: [0.99, lost, 0.99],
        STEADY: [0.85, 0.86, 0.84],
        WEAK: [0.6, 0.6, 0.6],
    }
    assert order(grid(3), values) == [STEADY, WEAK, LUCKY]


def test_a_value_that_is_no_number_is_no_complete_seed() -> None:
    """An infinite loss counts as lost."""
    values: dict[int, list[float | str | None]] = {
        LUCKY: [0.99, float("inf")],
        STEADY: [0.85, 0.86],
        WEAK: [0.6, 0.6],
    }
    assert order(grid(2), values) == [STEADY, WEAK, LUCKY]


def test_where_all_lost_a_seed_the_best_of_those_with_most_leads() -> None:
    """If no setting has all its seeds, the best of those with most seeds leads."""
    values: dict[int, list[float | str | None]] = {
        LUCKY: [0.99, "failed", "failed"],
        STEADY: [0.8, 0.8, "failed"],
        WEAK: ["failed", 0.6, 0.6],
    }
    assert order(grid(3), values) == [STEADY, WEAK, LUCKY]


def test_who_begins_a_seed_first_is_not_ahead_by_that() -> None:
    """A seed that has not ended under every setting does not affect the order."""
    values: dict[int, list[float | str | None]] = {
        WEAK: [0.6, 0.6],
        STEADY: [0.85, "running"],
        LUCKY: [0.7, None],
    }
    assert order(grid(2), values) == [STEADY, LUCKY, WEAK]


def test_in_a_race_seed_0_does_not_count_for_its_contenders() -> None:
    """Seed 0 chose the contenders; settings without further seeds rank behind those with."""
    spec = replace(grid(1), replicates=Replicates(4, "top", 2))
    values: dict[int, list[float | str | None]] = {
        LUCKY: [0.99, 0.7, 0.7],
        STEADY: [0.9, 0.8, 0.8],
        WEAK: [0.95],
    }
    found = rank_settings(spec, trials(values))
    assert [one.configuration for one in found] == [STEADY, LUCKY, WEAK]
    assert [seed.seed for seed in found[0].seeds] == [1, 2]


def test_of_an_even_number_the_worse_of_the_middle_two_stands_for_the_setting() -> None:
    """The saved network is then no better than at least half of the seeds."""
    values: dict[int, list[float | str | None]] = {STEADY: [0.9, 0.6, 0.8, 0.7]}
    found = rank_settings(grid(4), trials(values))
    assert found[0].median.value == 0.7
