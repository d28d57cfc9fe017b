"""Comparison of output with golden files: equal texts but for the last digits of numbers.

Another CPU, BLAS or SciPy may compute another last bit, and print another last digit. Everything
else counts: words, spaces, the order of keys.
"""

import difflib
import json
import math
import re
from typing import Any

NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
RELATIVE, ABSOLUTE = 1e-6, 1e-9
DIGITS = 3
"""A number with this many significant digits or more may differ by one in the last."""


def difference(expected: str, found: str, *, rounded: bool) -> str | None:
    """Return a diff of two texts, or None if they agree.

    `rounded`: numbers are printed for people, with a few digits.
    """
    if agree(expected, found, rounded=rounded):
        return None
    # A line that agrees is not shown as changed because of its last digit.
    lines = _aligned(expected.splitlines(), found.splitlines(), rounded=rounded)
    wanted = expected.splitlines()
    shown = difflib.unified_diff(wanted, lines, "expected", "found", n=2, lineterm="")
    return "\n".join(shown) or "The texts differ in how their lines end."


def json_difference(expected: str, found: str) -> str | None:
    """Return where two JSON texts differ; None if they agree."""
    return "\n".join(_differing(_values(expected), _values(found), "$")) or None


def _values(text: str) -> Any:
    """Return a text's JSON value, or one value per line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def agree(expected: str, found: str, *, rounded: bool) -> bool:
    """Return whether two texts agree but for the last digits of numbers."""
    if expected == found:
        return True
    if NUMBER.sub("#", expected) != NUMBER.sub("#", found):
        return False
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(found), strict=True)
    return all(one == other or _close(one, other, rounded=rounded) for one, other in pairs)


def _close(one: str, other: str, *, rounded: bool) -> bool:
    numbers = [float(text.replace("−", "-")) for text in (one, other)]
    allowed = max(ABSOLUTE, RELATIVE * max(map(abs, numbers)))
    mantissa, _, exponent = one.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    if rounded and decimals != len(other.lower().partition("e")[0].partition(".")[2]):
        return False  # the number of printed digits differs
    digits = mantissa.lstrip("-−").replace(".", "").lstrip("0")
    if rounded and decimals and len(digits) >= DIGITS:
        allowed = max(allowed, 1.001 * 10.0 ** (int(exponent or 0) - decimals))
    return abs(numbers[0] - numbers[1]) <= allowed


def _aligned(expected: list[str], found: list[str], *, rounded: bool) -> list[str]:
    """Return the found lines, with those that agree replaced by the expected ones."""
    before, after = ([NUMBER.sub("#", line) for line in lines] for lines in (expected, found))
    lines = list(found)
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    for block in matcher.get_matching_blocks():
        for at, other in zip(
            range(block.a, block.a + block.size),
            range(block.b, block.b + block.size),
            strict=True,
        ):
            if agree(expected[at], found[other], rounded=rounded):
                lines[other] = expected[at]
    return lines


def _differing(one: Any, other: Any, place: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return [f"{place}: keys {list(one)} expected, {list(other)} found"]
        return [line for key in one for line in _differing(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{place}: {len(one)} items expected, {len(other)} found"]
        pairs = enumerate(zip(one, other, strict=True))
        return [line for at, two in pairs for line in _differing(*two, f"{place}[{at}]")]
    same = type(one) is type(other) and one == other
    if isinstance(one, float) and isinstance(other, float):
        close = math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        same = close or (math.isnan(one) and math.isnan(other))
    elif isinstance(one, str) and isinstance(other, str):
        same = agree(one, other, rounded=True)
    return [] if same else [f"{place}: {one!r} expected, {other!r} found"]
