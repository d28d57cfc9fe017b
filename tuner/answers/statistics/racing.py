"""One contender against the best so far: is it worse, and would more seeds ever tell?

The same panel and the same spread as in a comparison of settings; what is its
own is that one side is asked about, at a level that a race has left for it.
"""

from dataclasses import dataclass

from scipy.special import stdtrit

from tuner.answers.statistics.crossed import Panel, Parts
from tuner.answers.statistics.distributions import students
from tuner.answers.statistics.spread import Interval, around

OPEN = 0.975
"""How far the seeds may still move a difference is asked at this quantile."""


@dataclass(frozen=True)
class Held:
    """One contender held against the best so far."""

    difference: Interval
    """How far it is from the best; 0 is outside where it is separated, and within else."""
    chance: float
    """How often one that is as good as the best would look this much worse."""
    separated: bool
    beyond_seeds: bool
    """Whether no number of seeds would separate it on these images, as far as can be seen."""


def hold(panel: Panel, contender: int, best: int, level: float, *, larger: bool) -> Held:
    """Hold a contender against the best at a one-sided level."""
    apart = panel.difference(contender, best)
    behind = apart.value < 0 if larger else apart.value > 0
    chance = apart.chance() / 2 if behind else 1 - apart.chance() / 2
    separated = chance < level
    limits = around(apart.value, apart.spread, confidence=1 - 2 * level)
    beyond = not separated and _beyond_seeds(panel, contender, best, level)
    return Held(limits, chance, separated, beyond)


def _beyond_seeds(panel: Panel, contender: int, best: int, level: float) -> bool:
    """Say whether the images alone keep two from being separated.

    The difference itself moves with further seeds: it is taken at the far end
    of what they leave open, so that only what is well known ends a race.
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


def _moves(parts: Parts, freedom: int) -> float:
    return float(stdtrit(freedom, OPEN) * max(0.0, parts.by_seed) ** 0.5)
