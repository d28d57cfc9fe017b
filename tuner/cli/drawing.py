"""Curves drawn with characters, for a terminal."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

Series = tuple[str, str, Sequence[float | None]]
"""A name, a style, and a value for each epoch."""
Cells = list[list[tuple[str, str]]]
"""A character and its style, by row and column."""
# Bits of a braille character, by column and row of its eight dots.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800
LINE = "⣀"
POINTS = "·"
"""The character of the lower curve, distinguishable without colours too."""


def chart(
    title: str, series: Sequence[Series], *, width: int = 64, height: int = 9, last: str = ""
) -> "Text":
    """Draw curves over the same epochs: the last one as a line, the others as dots.

    `last` labels the end of the axis; by default, it is the last epoch.
    """
    from rich.text import Text

    known = [v for _, _, values in series for v in values if v is not None and math.isfinite(v)]
    drawn = Text(title, style="bold")
    if not known:
        return drawn.append("\n  no data yet", style="dim")
    for name, style, _ in series:
        drawn.append(f"  {LINE if name == series[-1][0] else POINTS} {name}", style=style)
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    cells: Cells = [[(" ", "")] * width for _ in range(height)]
    for _, style, values in series[:-1]:
        for row, column in _traced(values, (width, height), (low, high)):
            cells[row][column] = (POINTS, style)
    _, style, values = series[-1]
    for (row, column), bits in _traced(values, (width, height), (low, high)).items():
        cells[row][column] = (chr(BLANK + bits), style)
    for row, line in enumerate(cells):
        drawn.append(f"\n{_label(row, height, low, high):>9} ┤", style="dim")
        for letter, style in line:
            drawn.append(letter, style=style)
    longest = max(len(values) for _, _, values in series)
    drawn.append(f"\n{'':>9} └{'─' * width}", style="dim")
    drawn.append(f"\n{'':>11}1{last or f'epoch {longest}':>{width - 1}}", style="dim")
    return drawn


def _label(row: int, height: int, low: float, high: float) -> str:
    if row not in (0, height // 2, height - 1):
        return ""
    return f"{high - (high - low) * row / (height - 1):.3g}"


def _traced(
    values: Sequence[float | None], size: tuple[int, int], limits: tuple[float, float]
) -> dict[tuple[int, int], int]:
    """Return the cells of a curve, by row and column, with the dots set in each."""
    (width, height), (low, high) = size, limits
    points = [
        (
            round(at / max(len(values) - 1, 1) * (2 * width - 1)),
            round((high - value) / (high - low) * (4 * height - 1)),
        )
        for at, value in enumerate(values)
        if value is not None and math.isfinite(value)
    ]
    found: dict[tuple[int, int], int] = {}
    for (x, y), (to_x, to_y) in zip(points, points[1:] or points, strict=False):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(steps + 1):
            at_x = round(x + (to_x - x) * step / steps)
            at_y = round(y + (to_y - y) * step / steps)
            cell = (at_y // 4, at_x // 2)
            found[cell] = found.get(cell, 0) | DOTS[at_x % 2][at_y % 4]
    return found
