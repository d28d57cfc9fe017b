"""Multiple comparisons: several settings against the best of them, or against a named one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.anova import LevelDifference
from tuner.statistics.variance import Interval, in_agreement

ALPHA = 0.05


class MeasuredLevels(Protocol):
    """Means by level, with the spread of each difference."""

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean of each level."""
        ...

    def difference(self, one: int, other: int) -> LevelDifference:
        """Return the difference of two levels with its spread."""
        ...


@dataclass(frozen=True)
class Against:
    """One level compared with the reference."""

    level: int
    difference: Interval
    p_value: float
    """The p value, corrected for multiple comparisons."""
    differs: bool


@dataclass(frozen=True)
class Verdict:
    """The reference level, and how every other level compares with it."""

    reference: int
    others: tuple[Against, ...]

    @property
    def tied(self) -> tuple[int, ...]:
        """The levels not significantly different from the reference, which is included."""
        same = [other.level for other in self.others if not other.differs]
        return (self.reference, *same)


def against_best(panel: MeasuredLevels, *, larger: bool) -> Verdict:
    """Compare every level with the best, accounting for the best being chosen by its figures.

    A step-down range test (Tukey's studentised range, from the farthest level to
    the nearest): the first comparison is at the range of all levels, the next at
    that of the remaining ones, and it stops at the first that is not significant.
    """
    order = _best_first(panel, larger=larger)
    best, rest = order[0], order[:0:-1]
    others: list[Against] = []
    stopped = False
    p_value = 0.0
    for place, level in enumerate(rest):
        remaining = len(order) - place
        apart = panel.difference(level, best)
        # p values must not decrease from a farther level to a nearer one.
        p_value = max(p_value, apart.p_value(remaining))
        stopped = stopped or p_value >= ALPHA
        together = in_agreement(apart.interval(len(order)), differs=not stopped)
        others.append(Against(level, together, p_value, not stopped))
    return Verdict(best, tuple(reversed(others)))


def against(panel: MeasuredLevels, reference: int, *, larger: bool) -> Verdict:
    """Compare every level with one named beforehand (Holm's correction)."""
    levels = [one for one in _best_first(panel, larger=larger) if one != reference]
    apart = [panel.difference(level, reference) for level in levels]
    p_values = holm([difference.p_value() for difference in apart])
    each = 1 - ALPHA / max(1, len(levels))
    others = [
        Against(
            level,
            in_agreement(difference.interval(confidence=each), differs=p_value < ALPHA),
            p_value,
            p_value < ALPHA,
        )
        for level, difference, p_value in zip(levels, apart, p_values, strict=True)
    ]
    return Verdict(reference, tuple(others))


def _best_first(panel: MeasuredLevels, *, larger: bool) -> Sequence[int]:
    means = panel.means
    return [int(one) for one in np.argsort(-means if larger else means, kind="stable")]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm's step-down method (family-wise error rate)."""
    corrected = [0.0] * len(p_values)
    worst = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = worst
    return corrected
