"""Group-sequential testing of one contender against the best so far.

The panel and the spread are those of a comparison of settings. The test is
one-sided, at the level that the race's alpha spending assigns to this look.
"""

from dataclasses import dataclass

from tuner.statistics.anova import Panel, VarianceComponents
from tuner.statistics.distributions import students
from tuner.statistics.special import stdtrit
from tuner.statistics.variance import Interval, around

OPEN = 0.975
"""The quantile for how far more seeds could still move a difference."""


@dataclass(frozen=True)
class ContenderTest:
    """One contender compared with the best so far."""

    difference: Interval
    """Its difference from the best; the interval excludes 0 exactly if it is separated."""
    p_value: float
    """The one-sided p value of being worse than the best."""
    separated: bool
    beyond_seeds: bool
    """Whether no number of seeds is likely to separate it on these images."""


def compare_with_best(
    panel: Panel, contender: int, best: int, level: float, *, larger: bool
) -> ContenderTest:
    """Test a contender against the best at a one-sided level."""
    apart = panel.difference(contender, best)
    behind = apart.value < 0 if larger else apart.value > 0
    p_value = apart.p_value() / 2 if behind else 1 - apart.p_value() / 2
    separated = p_value < level
    limits = around(apart.value, apart.spread, confidence=1 - 2 * level)
    beyond = not separated and _beyond_seeds(panel, contender, best, level)
    return ContenderTest(limits, p_value, separated, beyond)


def _beyond_seeds(panel: Panel, contender: int, best: int, level: float) -> bool:
    """Return whether the images alone prevent two contenders from being separated.

    The difference itself moves with further seeds, so the far end of its possible range
    is used: only a clear case ends a race.
    """
    if not panel.images:
        return False
    all_of = panel.pooled
    parts = panel.parts((contender, best))
    by_image = max(all_of.by_image, parts.by_image, 0.0) + panel.grain
    limit = -students(level, all_of.image_freedom)
    value = abs(float(panel.means[contender] - panel.means[best]))
    farthest = value + max(_moves(all_of, all_of.freedom), _moves(parts, all_of.freedom))
    return bool(farthest < limit * by_image**0.5)


def _moves(parts: VarianceComponents, freedom: int) -> float:
    return float(stdtrit(freedom, OPEN) * max(0.0, parts.by_seed) ** 0.5)
