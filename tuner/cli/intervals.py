"""Intervals as people and as programs read them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.statistics.variance import Interval


def limits(interval: "Interval | None") -> dict[str, float] | None:
    """Return an interval for programs."""
    return (
        None
        if interval is None
        else {"value": interval.value, "low": interval.low, "high": interval.high}
    )


def with_ends(interval: "Interval", *, sign: bool = False) -> str:
    """Return a fraction with its limits: "0.960 (0.936 to 0.975)"."""
    from tuner.answers.words import fixed, signed

    write = signed if sign else fixed
    return f"{write(interval.value, 3)} ({write(interval.low, 3)} to {write(interval.high, 3)})"
