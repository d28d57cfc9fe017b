"""Durations and sizes in a study file, and their units."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def parse_seconds(text: str) -> float:
    """Parse a duration such as `10m` to seconds; raise ValueError for anything else."""
    number, unit = _split(text, DURATION.pattern)
    seconds = number * _SECONDS[unit]
    if not 0 < seconds <= 1e9:
        raise ValueError(text)
    return seconds


def parse_bytes(text: str) -> int:
    """Parse a size such as `8GB` to bytes; raise ValueError for anything else."""
    number, unit = _split(text, SIZE.pattern)
    size = number * _BYTES[unit]
    if not 1 <= size < 2**63:
        raise ValueError(text)
    return int(size)


def write_seconds(seconds: float) -> str:
    """Write a duration that parses to these seconds, in the largest unit without decimals."""
    for unit, each in sorted(_SECONDS.items(), key=lambda item: -item[1]):
        if seconds % each == 0:
            return f"{int(seconds // each)}{unit}"
    return f"{Decimal(repr(seconds)):f}s"


def write_bytes(size: int) -> str:
    """Write a size that parses to this many bytes, in the largest unit without decimals."""
    for unit, each in sorted(_BYTES.items(), key=lambda item: -item[1]):
        if size % each == 0:
            return f"{size // each}{unit}"
    # Parsing truncates to whole bytes; half a byte more keeps rounding from losing one.
    return f"{size // 10**6}.{size % 10**6:06d}5MB"


def _split(text: str, pattern: str) -> tuple[float, str]:
    matched = re.fullmatch(pattern, text)
    if matched is None:
        raise ValueError(text)
    unit = matched.group(2)
    return float(text.removesuffix(unit)), unit


@dataclass(frozen=True)
class Quantity:
    """A kind of number that a file writes as a text with a unit."""

    takes: str
    """The valid texts, as worded in a fault."""
    pattern: str
    parse: Callable[[str], float]
    """Raises ValueError for an invalid text."""
    write: Callable[[Any], str]


DURATION = Quantity(
    'a duration above 0 such as "90s", "10m" or "1h"',
    r"^[0-9]+(\.[0-9]+)?(s|m|h)$",
    parse_seconds,
    write_seconds,
)
SIZE = Quantity(
    'a size above 0 such as "512MB" or "8GB"',
    r"^[0-9]+(\.[0-9]+)?(MB|GB|TB|MiB|GiB|TiB)$",
    parse_bytes,
    write_bytes,
)
