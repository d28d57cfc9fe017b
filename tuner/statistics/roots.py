"""Finds the root of a function between two points with different signs."""

import math
from collections.abc import Callable

EVALUATIONS = 200
"""Upper limit; bisection would need 64, so a function that needs more is broken."""
FLOAT = 4 * 2.0**-52
"""Approximate relative distance of neighbouring floats."""


def root(function: Callable[[float], float], one: float, other: float, within: float) -> float:
    """Return the root of a function to this tolerance, by Chandrupatla's method (1997).

    It uses inverse quadratic interpolation through three points where that is safe, and
    bisection elsewhere: as robust as bisection, and as fast as Brent's method.
    """
    new, old = other, one
    at_new, at_old = _number(function, new), _number(function, old)
    if at_old == 0 or at_new == 0:
        return old if at_old == 0 else new
    if (at_new > 0) == (at_old > 0):
        raise ValueError(f"no sign change from {one!r} ({at_old!r}) to {other!r} ({at_new!r})")
    step = 0.5
    for _ in range(EVALUATIONS):
        tried = new + step * (old - new)
        at_tried = _number(function, tried)
        # `new` and `old` always bracket the root; `left` is the discarded point.
        if (at_tried > 0) == (at_new > 0):
            left, at_left = new, at_new
        else:
            left, at_left, old, at_old = old, at_old, new, at_new
        new, at_new = tried, at_tried
        nearest = new if abs(at_new) < abs(at_old) else old
        narrow = within + FLOAT * abs(nearest)
        width = abs(old - new)
        if at_new == 0 or width <= narrow:
            return nearest
        step = _step((new, at_new), (old, at_old), (left, at_left))
        least = narrow / (2 * width)
        step = min(1 - least, max(least, step))
    raise ValueError(f"no root found from {one!r} to {other!r} in {EVALUATIONS} evaluations")


def _step(new: tuple[float, float], old: tuple[float, float], left: tuple[float, float]) -> float:
    """Return the next point to try, as a fraction of the way from `new` to `old`."""
    (x, f), (x_old, f_old), (x_left, f_left) = new, old, left
    place = (x - x_old) / (x_left - x_old)
    height = (f - f_old) / (f_left - f_old)
    # Only then is the inverse parabola through the three points monotonic within the bracket.
    if not (height**2 < place and (1 - height) ** 2 < 1 - place):
        return 0.5
    to_old = f / (f_old - f) * f_left / (f_old - f_left)
    to_left = f / (f_left - f) * f_old / (f_left - f_old)
    return to_old + to_left * (x_left - x) / (x_old - x)


def _number(function: Callable[[float], float], at: float) -> float:
    value = float(function(at))
    if math.isnan(value):
        raise ValueError(f"the function is not a number at {at!r}")
    return value
