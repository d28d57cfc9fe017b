"""Axes of the pictures that a page draws itself, as shares of the picture's width or height."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MARGIN = 0.03
"""Share of the data's range that is left free at both ends of an axis."""


@dataclass(frozen=True)
class Axis:
    """A linear axis from its low to its high end."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Axis | None":
        """Return an axis that holds all these values; None where one of them is not finite."""
        ends = list(values)
        if not ends or not np.isfinite(ends).all():
            return None
        low, high = min(ends), max(ends)
        width = (high - low) or abs(high) or 1.0
        return cls(low - MARGIN * width, high + MARGIN * width)

    def place(self, value: float) -> float:
        """Return where a value is: 0 at the low end, 1 at the high end."""
        return round(float((value - self.low) / (self.high - self.low)), 4)

    def ticks(self, scale: float = 1.0) -> tuple[tuple[float, str], ...]:
        """Return some round values with their places; `scale` is that of what is written."""
        low, high = self.low * scale, self.high * scale
        step = 10.0 ** np.floor(np.log10((high - low) / 4))
        step = next(
            step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5
        )
        # As multiples of the step: a sum of steps would end at −0, or at 0.30000000000000004.
        values = [
            step * count for count in range(int(np.ceil(low / step)), int(np.ceil(high / step)))
        ]
        return tuple(
            (self.place(float(value) / scale), f"{value or 0.0:.6g}".replace("-", "−"))
            for value in values
        )
