"""Numbers and lists in plain words, the same in tables, verdicts and reports."""

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from tuner.records import Value, value_text

if TYPE_CHECKING:
    # Statistics take long to load, and words are needed without them.
    from tuner.results import Measure
    from tuner.statistics import Clusters, Interval

NOISE = 12
"""Decimals beyond which a float is noise of its calculation."""
DECIMALS_TO = 1e9
"""Numbers from here on are written as Python does."""
PATIENTS_UNKNOWN = (
    "These labels were stored before patients were kept with them, so this is judged by image: "
    "if patients have several images each, the intervals are too narrow."
)


def level_name(level: Value | None) -> str:
    """Return a level as people write it; – stands for a parameter that was not active."""
    return value_text(level)


def level_phrase(factor: str, level: Value | None) -> str:
    """Return a level as a sentence names it: "cosine", but "lr=0.01" where it is a number."""
    return level_name(level) if isinstance(level, str) else f"{factor}={level_name(level)}"


def fixed(value: float, digits: int) -> str:
    """Return a number with this many decimals, the same ones in every unit; zero has no sign.

    A difference of 23 in 400 images is 0.0575, and in binary a little more or
    less: as decimals, halves away from zero, it is −0.058 in a table and
    −5.8 points in a sentence.
    """
    if not math.isfinite(value) or abs(value) >= DECIMALS_TO:
        return minus(f"{value:.{digits}f}")
    exact = Decimal(repr(round(float(value), NOISE)))
    text = str(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
    return minus(text) if float(text) else text.removeprefix("-")


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent."""
    return f"{fixed(share * 100, digits)} %"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; what rounds to zero has none."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def minus(number: str) -> str:
    """Return a number for people: with a minus in place of a hyphen."""
    return number.replace("-", "−")


def difference(measure: "Measure", interval: "Interval") -> str:
    """Return a difference with its interval: "−0.3 points, 95 % interval −1.6 to +1.0"."""
    shown = interval.scaled(measure.scale)
    digits = decimals(measure, shown)
    unit = f" {measure.unit}" if measure.unit else ""
    return (
        f"{signed(shown.value, digits)}{unit}, 95 % interval "
        f"{signed(shown.low, digits)} to {signed(shown.high, digits)}"
    )


def amount(measure: "Measure", interval: "Interval", kind: str = "") -> str:
    """Return a difference without its direction: "2.1 points (0.9 to 3.3)".

    What kind of interval it is may be said before its limits.
    """
    shown = interval.scaled(measure.scale)
    digits = decimals(measure, shown)
    low, high = sorted((abs(shown.low), abs(shown.high)))
    unit = f" {measure.unit}" if measure.unit else ""
    ends = f"{fixed(low, digits)} to {fixed(high, digits)}"
    return f"{fixed(abs(shown.value), digits)}{unit} ({kind}{ends})"


def column_digits(column: str) -> int:
    """Return the decimals that a column of figures has in tables: 4 for nats, 3 for fractions."""
    return 4 if column.endswith("loss") else 3


def figure(measure: "Measure", value: float) -> str:
    """Return a mean as the tables show it."""
    if measure.name == "gap":
        return signed(value * 100, 1)
    if measure.unit == "nats":
        return fixed(value, 4)
    return f"{fixed(value * 100, 1)} %" if measure.unit == "points" else minus(f"{value:.4g}")


def interval(measure: "Measure", interval: "Interval") -> str:
    """Return the limits of a mean: "94.1 to 96.0"."""
    if measure.name == "gap":
        return f"{signed(interval.low * 100, 1)} to {signed(interval.high * 100, 1)}"
    if measure.unit == "points":
        low, high = max(0.0, interval.low), min(1.0, interval.high)
        return f"{fixed(low * 100, 1)} to {fixed(high * 100, 1)}"
    if measure.unit == "nats":
        return f"{fixed(interval.low, 4)} to {fixed(interval.high, 4)}"
    return minus(f"{interval.low:.4g} to {interval.high:.4g}")


def with_ends(interval: "Interval", *, sign: bool = False) -> str:
    """Return a fraction with its limits: "0.960 (0.936 to 0.975)"."""
    write = signed if sign else fixed
    return f"{write(interval.value, 3)} ({write(interval.low, 3)} to {write(interval.high, 3)})"


def percent_with_ends(interval: "Interval") -> str:
    """Return a share with its limits in per cent: "96.0 % (93.6 to 97.5)"."""
    ends = f"{fixed(interval.low * 100, 1)} to {fixed(interval.high * 100, 1)}"
    return f"{percent(interval.value)} ({ends})"


def points_with_ends(interval: "Interval") -> str:
    """Return a difference of shares with its limits, in points: "+22.0 (+8.8 to +34.2)"."""
    shown = interval.scaled(100)
    return f"{signed(shown.value, 1)} ({signed(shown.low, 1)} to {signed(shown.high, 1)})"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def count(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def round_amount(value: float) -> float:
    """Return the nearest amount that people name: 1, 2 or 5 of some power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    nearest = min((1, 2, 5, 10), key=lambda step: abs(math.log(value / (step * power))))
    return nearest * power


def decimals(measure: "Measure", shown: "Interval") -> int:
    """Return enough decimals for the interval's width to be seen."""
    width = shown.high - shown.low
    if width <= 0:
        return measure.digits
    return max(measure.digits, min(4, 1 - math.floor(math.log10(width))))


def sampled(images: int, patients: int) -> str:
    """Return the sample of a figure: "400 images", or "400 images of 80 patients"."""
    if not patients:
        return count(images, "image")
    return f"{count(images, 'image')} of {count(patients, 'patient')}"


def sampled_cell(images: int, patients: int) -> str:
    """Return the sample for a column "images": "400", or "400 of 80 patients"."""
    if not patients:
        return f"{images:,}"
    return f"{images:,} of {count(patients, 'patient')}"


def sampling_unit(patients: int) -> str:
    """Return the name of the sampling unit, in the plural."""
    return "patients" if patients else "images"


def patient_remarks(clusters: "Sequence[Clusters]", *, unknown: bool = False) -> list[str]:
    """Return what limits an answer: few patients, one with many images, or none stored."""
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
    """Return a p value as the tables show it."""
    return "<0.001" if chance < 0.001 else f"{chance:.3f}"
