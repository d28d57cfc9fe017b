"""Formats numbers, units and lists, alike in tables, verdicts and reports."""

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from tuner.records import SHARE, Unit, Value, value_text

if TYPE_CHECKING:
    # Statistics take long to load, and many callers do not need them.
    from tuner.spec.study import Spec
    from tuner.statistics import Clusters, Interval

__all__ = [
    "count",
    "ends",
    "figure",
    "fixed",
    "level_name",
    "listed",
    "lost",
    "lost_trials",
    "minus",
    "ordinal",
    "percent",
    "sampled",
    "sampling_unit",
    "signed",
    "with_ends",
]

NOISE = 12
"""Digits beyond these are rounding noise of a float."""
DECIMALS_TO = 1e9
"""Larger numbers are written as Python does."""
NO_LIMITS = "–"
"""Shown as an interval's limits if the variance is unknown."""
PATIENTS_UNKNOWN = (
    "Patient IDs were not yet stored with these labels, so the sampling unit is the image: "
    "if patients have several images each, the intervals are too narrow."
)


def level_name(level: Value | None) -> str:
    """Return a level's name; – stands for a parameter that was not active."""
    return value_text(level)


def level_phrase(factor: str, level: Value | None) -> str:
    """Return a level's name in a sentence: "cosine", but "lr=0.01" for a number."""
    return level_name(level) if isinstance(level, str) else f"{factor}={level_name(level)}"


def fixed(value: float, digits: int) -> str:
    """Return a number rounded to decimals, consistently in every unit; zero has no sign.

    A difference of 23 in 400 images is 0.0575, and in binary slightly more or
    less. Rounded as a decimal, half away from zero, it is −0.058 in a table and
    −5.8 points in a sentence.
    """
    if not math.isfinite(value) or abs(value) >= DECIMALS_TO:
        return minus(f"{value:.{digits}f}")
    exact = Decimal(repr(round(float(value), NOISE)))
    text = str(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
    return minus(text) if float(text) else text.removeprefix("-")


def percent(share: float, digits: int = SHARE.digits) -> str:
    """Return a share in per cent."""
    return f"{fixed(share * 100, digits)}%"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; a number that rounds to zero has none."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def minus(number: str) -> str:
    """Return a number with a minus sign instead of a hyphen."""
    return number.replace("-", "−")


def figure(unit: Unit, value: float | None) -> str:
    """Return a figure in its unit: "87.2%", "0.2791", or "+16.7" for a gap."""
    if value is None:
        return "–"
    return f"{_number(unit, value)}{unit.mark}"


def with_half(unit: Unit, value: float, half: float | None) -> str:
    """Return a mean ± half its interval: "87.2 ± 2.7%"; with one seed, only the mean."""
    if half is None:
        return figure(unit, value)
    return f"{_number(unit, value)} ± {_number(replace(unit, signed=False), half)}{unit.mark}"


def ends(unit: Unit, interval: "Interval") -> str:
    """Return the limits of an interval, cut to the unit's range: "94.1 to 96.0"."""
    if not interval.bounded:
        return NO_LIMITS
    low, high = max(unit.low, interval.low), min(unit.high, interval.high)
    return f"{_number(unit, low)} to {_number(unit, high)}"


def with_ends(unit: Unit, interval: "Interval | None") -> str:
    """Return a figure with its limits: "96.0% (93.6 to 97.5)", "0.960 (0.936 to 0.975)"."""
    if interval is None:
        return "–"
    return f"{figure(unit, interval.value)} ({ends(unit, interval)})"


def with_any_ends(unit: Unit, interval: "Interval | None") -> str:
    """Return a figure with its limits, or without them if no image varies, as at 100%.

    A bootstrap of equal values has an interval of width 0, which would be misleading.
    """
    if interval is None or interval.low < interval.high:
        return with_ends(unit, interval)
    return figure(unit, interval.value)


def _number(unit: Unit, value: float) -> str:
    scaled = value * unit.scale
    if unit.scientific:
        return minus(f"{scaled:.{unit.digits}e}")
    if unit.significant:
        return f"{'+' if unit.signed and scaled > 0 else ''}{minus(f'{scaled:.4g}')}"
    return signed(scaled, unit.digits) if unit.signed else fixed(scaled, unit.digits)


def difference(unit: Unit, interval: "Interval") -> str:
    """Return a difference with its interval: "−0.3 points, 95% interval −1.6 to +1.0"."""
    value, limits = difference_cells(unit, interval)
    return f"{value}{_after(unit)}, 95% interval {limits}"


def difference_cells(unit: Unit, interval: "Interval") -> tuple[str, str]:
    """Return a difference and its limits, with enough decimals to show the width."""
    shown = interval.scaled(unit.scale)
    if not interval.bounded:
        return signed(shown.value, unit.digits), NO_LIMITS
    digits = _decimals(unit, shown)
    limits = f"{signed(shown.low, digits)} to {signed(shown.high, digits)}"
    return signed(shown.value, digits), limits


def amount(unit: Unit, interval: "Interval", kind: str = "") -> str:
    """Return a difference without its direction: "2.1 points (0.9 to 3.3)".

    `kind` is put before the limits.
    """
    if not interval.bounded:
        return size(unit, abs(interval.value))
    shown = interval.scaled(unit.scale)
    digits = _decimals(unit, shown)
    low, high = sorted((abs(shown.low), abs(shown.high)))
    limits = f"{fixed(low, digits)} to {fixed(high, digits)}"
    return f"{fixed(abs(shown.value), digits)}{_after(unit)} ({kind}{limits})"


def size(unit: Unit, value: float) -> str:
    """Return the size of a difference: "2.1 points", "0.006 nats"."""
    digits = 1 if unit.digits == 1 else 3
    return f"{fixed(value * unit.scale, digits)}{_after(unit)}"


def _after(unit: Unit) -> str:
    return f" {unit.of_differences}" if unit.of_differences else ""


def _decimals(unit: Unit, shown: "Interval") -> int:
    width = shown.high - shown.low
    if width <= 0:
        return unit.digits
    return max(unit.digits, min(4, 1 - math.floor(math.log10(width))))


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def count(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, …."""
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def lost(spec: "Spec", conjunction: str = "or") -> str:
    """Return the name for trials without a value in means: "pruned, diverged or failed"."""
    paused = "paused, " if spec.pauses else ""
    return f"{paused}pruned, diverged {conjunction} failed"


def lost_trials(number: int, spec: "Spec") -> str:
    """Return the number of such trials with their name."""
    return count(number, f"{lost(spec)} trial")


def round_amount(value: float) -> float:
    """Return the nearest round number: 1, 2 or 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    nearest = min((1, 2, 5, 10), key=lambda step: abs(math.log(value / (step * power))))
    return nearest * power


def sampled(images: int, patients: int) -> str:
    """Return the sample of a figure: "400 images", or "400 images from 80 patients"."""
    if not patients:
        return count(images, "image")
    return f"{count(images, 'image')} from {count(patients, 'patient')}"


def sampled_cell(images: int, patients: int) -> str:
    """Return the sample for a column "images": "400", or "400 from 80 patients"."""
    if not patients:
        return f"{images:,}"
    return f"{images:,} from {count(patients, 'patient')}"


def sampling_unit(patients: int) -> str:
    """Return the name of the sampling unit, in the plural."""
    return "patients" if patients else "images"


def not_resampled(figure: str) -> str:
    """Say why intervals of a study's own metric do not cover variation between images."""
    return f"{figure} was not computed on resampled images, or patients, in every trial"


def patient_remarks(clusters: "Sequence[Clusters]", *, unknown: bool = False) -> list[str]:
    """Return an answer's limitations: few patients, one with many images, or none stored."""
    from tuner.statistics import FEWEST, GIANT

    said = [PATIENTS_UNKNOWN] if unknown else []
    few = min((one.patients for one in clusters), default=FEWEST)
    if few < FEWEST:
        said.append(
            f"{count(few, 'patient')} {'is' if few == 1 else 'are'} too few to judge by, "
            f"no matter how many images they have; collect images of {FEWEST} or more."
        )
    largest = max((one.largest for one in clusters), default=0.0)
    if few >= FEWEST and largest > GIANT:
        said.append(
            f"One patient has {percent(largest, 0)} of the images, which makes the "
            "intervals wide; more images of other patients would narrow them."
        )
    return said


def p_value(chance: float) -> str:
    """Return a p value formatted for tables."""
    return "<0.001" if chance < 0.001 else f"{chance:.3f}"
