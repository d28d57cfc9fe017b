"""Selection bias of the best setting's mean, against simulated studies with a known truth."""

import numpy as np
import pytest

from tuner.statistics.selection import Candidates, selection_bias, selection_bias_of_mean

SETTINGS, SEEDS, IMAGES = 20, 5, 40
BEST_OF_20 = 1.867
"""The expected largest of 20 standard normal values."""


def tried(generator: np.random.Generator, apart: float) -> Candidates:
    """Make a study whose settings differ by `apart`, with a seed variance of 1."""
    settings = np.repeat(np.arange(SETTINGS), SEEDS)
    means = apart * settings + generator.standard_normal(len(settings))
    return Candidates(
        means, settings, np.arange(len(settings)), np.repeat(means[:, None], IMAGES, 1)
    )


def test_it_is_what_the_best_of_equal_settings_is_ahead_by() -> None:
    """With equal settings the bias is the expected maximum of the means (order statistics)."""
    generator = np.random.default_rng(1)
    found = [selection_bias_of_mean(tried(generator, 0.0), larger=True) for _ in range(40)]
    values = [one.value for one in found if one is not None]
    expected = BEST_OF_20 / np.sqrt(SEEDS)
    assert np.mean(values) == pytest.approx(expected, rel=0.15)
    assert found[0] is not None
    assert (found[0].settings, found[0].trials) == (SETTINGS, SETTINGS * SEEDS)


def test_a_mean_over_seeds_is_less_biased_than_a_single_trial() -> None:
    """Ranking settings by several seeds has less bias than ranking single trials."""
    study = tried(np.random.default_rng(2), 0.0)
    setting, trial = selection_bias_of_mean(study, larger=True), selection_bias(study, larger=True)
    assert setting is not None
    assert trial is not None
    assert setting.value < 0.7 * trial.value


def test_a_setting_far_ahead_owes_nothing_to_luck() -> None:
    """If no other setting could have been the best, there is no bias; it is never negative."""
    found = selection_bias_of_mean(tried(np.random.default_rng(3), 100.0), larger=False)
    assert found is not None
    assert found.value == pytest.approx(0.0, abs=1e-9)


def test_a_trial_far_ahead_owes_nothing_to_luck() -> None:
    """The bias of a single trial is never negative either."""
    generator = np.random.default_rng(4)
    places = np.arange(SETTINGS)
    for _ in range(10):
        values = generator.standard_normal((SETTINGS, IMAGES))
        values[0] += 100.0
        found = selection_bias(Candidates(values.mean(axis=1), places, places, values), larger=True)
        assert found is not None
        assert found.value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_setting_that_learned_nothing_does_not_lend_its_scatter(seeds: int) -> None:
    """One of 7 settings is far behind, and scatters far more over images: the bias is of the 6."""
    generator = np.random.default_rng(5)
    places = np.repeat(np.arange(7), seeds)
    trials = np.arange(len(places))
    pick = selection_bias if seeds == 1 else selection_bias_of_mean
    said, true = [], []
    for _ in range(30):
        losses = generator.exponential(0.35, (7, 60))
        losses[6] = 13.0 * (generator.random(60) < 0.5)
        values = losses[places] + 0.02 * generator.standard_normal((len(places), 1))
        means = values.mean(axis=1)
        found = pick(Candidates(means, places, trials, values), larger=False)
        assert found is not None
        assert found.trials == len(places)
        said.append(found.value)
        true.append(0.35 - means.reshape(7, seeds).mean(axis=1).min())
    assert np.mean(said) == pytest.approx(np.mean(true), rel=0.4)


def test_the_picked_trial_is_a_candidate_though_its_setting_is_bad() -> None:
    """A bad setting's lucky seed is picked; it owes more than the settings' means differ by."""
    generator = np.random.default_rng(6)
    places = np.repeat(np.arange(6), 3)
    means = 0.8 + 0.001 * generator.standard_normal(18)
    means[:3] = (0.9, 0.1, 0.1)
    values = np.repeat(means[:, None], IMAGES, 1) + 0.001 * generator.standard_normal((18, IMAGES))
    study = Candidates(values.mean(axis=1), places, np.arange(18), values)
    found = selection_bias(study, larger=True)
    assert found is not None
    assert found.value > 0.1
