"""Power analysis from a study's variance components."""

import warnings

import pytest

from tuner.statistics.anova import VarianceComponents
from tuner.statistics.power import Observed, plan, power


def seen(by_seed: float, by_image: float, rest: float) -> Observed:
    """Return the variance components of a study with 4 seeds on 100 images."""
    return Observed(VarianceComponents(by_seed, 9, by_image, rest), seeds=4, images=100, levels=3)


@pytest.mark.parametrize("by_image", [-2e-4, -9e-4, -5e-3])
def test_a_negative_part_of_the_images_leaves_a_spread(by_image: float) -> None:
    """A negative variance component, which a difference may be, leaves a power below 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = power(seen(3e-4, by_image, 2e-4), 0.05)
        assert plan(seen(3e-4, by_image, 2e-4), 0.05).seeds is not None
    assert power(seen(3e-4, -1e-4, 2e-4), 0.05) < found < 1
