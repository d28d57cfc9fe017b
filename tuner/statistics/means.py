"""Means over seeds with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.statistics.distributions import students
from tuner.statistics.variance import Interval


@dataclass(frozen=True)
class Mean:
    """A mean over seeds: its value, the number of seeds, and its 95% interval."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> Interval | None:
        """The mean with its limits; None with fewer than two seeds."""
        if self.low is None or self.high is None:
            return None
        return Interval(self.value, self.low, self.high)

    @property
    def half_width(self) -> float | None:
        """Half the interval's width; None with fewer than two seeds."""
        return None if self.high is None else self.high - self.value


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Mean | None:
    """Return the mean with its t interval; without interval for one seed, None for no seed."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = students(0.5 + confidence / 2, n - 1) * spread / math.sqrt(n)
    return Mean(mean, n, mean - half, mean + half)


def welch(
    one: Sequence[float], other: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """Return the difference of two means with Welch's interval.

    Variances may differ; the degrees of freedom are Satterthwaite's (Welch 1947). None with fewer
    than two values each, or where both have no variance at all: chance is unknown then, not 0.
    """
    if min(len(one), len(other)) < 2:
        return None
    means, errors = [], []
    for values in (one, other):
        mean = math.fsum(values) / len(values)
        means.append(mean)
        squares = math.fsum((value - mean) ** 2 for value in values)
        errors.append(squares / (len(values) - 1) / len(values))
    difference, error = means[0] - means[1], sum(errors)
    if error == 0:
        return None
    freedom = error**2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(errors, (one, other), strict=True)
    )
    half = students(0.5 + confidence / 2, freedom) * math.sqrt(error)
    return Interval(difference, difference - half, difference + half)
