"""Several settings against the best of them, or against one that was named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuner.answers.statistics.crossed import Difference
from tuner.answers.statistics.multiplicity import holm
from tuner.answers.statistics.spread import Interval, in_agreement

ALPHA = 0.05


class Measured(Protocol):
    """Means by level, which know how far each difference may be off."""

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean of each level."""
        ...

    def difference(self, one: int, other: int) -> Difference:
        """Return how far two levels lie apart, and how far off that may be."""
        ...


@dataclass(frozen=True)
class Against:
    """One level against the one that all are held against."""

    level: int
    difference: Interval
    chance: float
    """How often chance alone would bring this about, corrected for all that was looked at."""
    differs: bool


@dataclass(frozen=True)
class Verdict:
    """What a panel says: whom all were held against, and who differs from it."""

    reference: int
    others: tuple[Against, ...]

    @property
    def tied(self) -> tuple[int, ...]:
        """The levels that cannot be told from the reference, itself among them."""
        same = [one.level for one in self.others if not one.differs]
        return (self.reference, *same)


def against_best(panel: Measured, *, larger: bool) -> Verdict:
    """Hold every level against the best, allowing for the best having been picked by its figures.

    Farthest first: the first comparison asks whether so many equal levels would
    range that far (Tukey), the next whether those that remain would, until one
    is not told apart; with it and those nearer, nothing is said to differ.
    """
    order = _best_first(panel, larger=larger)
    best, rest = order[0], order[:0:-1]
    others: list[Against] = []
    stopped = False
    chance = 0.0
    for place, level in enumerate(rest):
        remaining = len(order) - place
        apart = panel.difference(level, best)
        # What is farther away is never less certain than what is nearer.
        chance = max(chance, apart.chance(remaining))
        stopped = stopped or chance >= ALPHA
        together = in_agreement(apart.interval(len(order)), differs=not stopped)
        others.append(Against(level, together, chance, not stopped))
    return Verdict(best, tuple(reversed(others)))


def against(panel: Measured, reference: int, *, larger: bool) -> Verdict:
    """Hold every level against one that was named beforehand (Holm)."""
    levels = [one for one in _best_first(panel, larger=larger) if one != reference]
    apart = [panel.difference(level, reference) for level in levels]
    chances = holm([difference.chance() for difference in apart])
    each = 1 - ALPHA / max(1, len(levels))
    others = [
        Against(
            level,
            in_agreement(difference.interval(confidence=each), differs=chance < ALPHA),
            chance,
            chance < ALPHA,
        )
        for level, difference, chance in zip(levels, apart, chances, strict=True)
    ]
    return Verdict(reference, tuple(others))


def _best_first(panel: Measured, *, larger: bool) -> Sequence[int]:
    means = panel.means
    return [int(one) for one in np.argsort(-means if larger else means, kind="stable")]
