"""Intervals as people and as programs read them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.answers.statistics.spread import Interval


def limits(found: "Interval | None") -> dict[str, float] | None:
    """Return an interval for programs."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def with_ends(found: "Interval", *, sign: bool = False) -> str:
    """Return a fraction with its limits: "0.960 (0.936 to 0.975)"."""
    from tuner.answers.verdicts.wording import fixed, signed

    write = signed if sign else fixed
    return f"{write(found.value, 3)} ({write(found.low, 3)} to {write(found.high, 3)})"
