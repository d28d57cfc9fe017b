"""Intervals as people and as programs read them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.answers.statistics.spread import Interval


def limits(found: "Interval | None") -> dict[str, float] | None:
    """Return an interval for programs."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def with_ends(found: "Interval", *, sign: bool = False) -> str:
    """Return a fraction with its limits: "0.960 (0.936 to 0.975)"."""
    form = "+.3f" if sign else ".3f"
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})".replace("-", "−")
