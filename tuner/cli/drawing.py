"""Curves drawn with letters, for a terminal."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

Series = tuple[str, str, Sequence[float | None]]
"""A name, a style, and a value for each epoch."""
# Bits of a braille letter, by column and row of its eight dots.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800


def chart(title: str, series: Sequence[Series], *, width: int = 64, height: int = 9) -> "Text":
    """Draw several curves over the same epochs, the last one on top."""
    from rich.text import Text

    known = [v for _, _, values in series for v in values if v is not None and math.isfinite(v)]
    drawn = Text(title, style="bold")
    if not known:
        return drawn.append("\n  nothing is known yet", style="dim")
    for name, style, _ in series:
        drawn.append(f"  ⣀ {name}", style=style)
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    cells: list[list[tuple[int, str]]] = [[(0, "")] * width for _ in range(height)]
    for _, style, values in series:
        _draw(cells, values, style, low, high)
    for row, line in enumerate(cells):
        drawn.append(f"\n{_label(row, height, low, high):>9} ┤", style="dim")
        for bits, style in line:
            drawn.append(chr(BLANK + bits) if bits else " ", style=style)
    longest = max(len(values) for _, _, values in series)
    drawn.append(f"\n{'':>9} └{'─' * width}", style="dim")
    drawn.append(f"\n{'':>11}1{f'epoch {longest}':>{width - 1}}", style="dim")
    return drawn


def _label(row: int, height: int, low: float, high: float) -> str:
    if row not in (0, height // 2, height - 1):
        return ""
    return f"{high - (high - low) * row / (height - 1):.3g}"


def _draw(
    cells: list[list[tuple[int, str]]],
    values: Sequence[float | None],
    style: str,
    low: float,
    high: float,
) -> None:
    across, down = 2 * len(cells[0]), 4 * len(cells)
    points = [
        (_place(at, len(values), across), round((high - value) / (high - low) * (down - 1)))
        for at, value in enumerate(values)
        if value is not None and math.isfinite(value)
    ]
    for (x, y), (to_x, to_y) in zip(points, points[1:] or points, strict=False):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(steps + 1):
            _dot(
                cells,
                round(x + (to_x - x) * step / steps),
                round(y + (to_y - y) * step / steps),
                style,
            )


def _place(at: int, count: int, across: int) -> int:
    return 0 if count < 2 else round(at / (count - 1) * (across - 1))


def _dot(cells: list[list[tuple[int, str]]], x: int, y: int, style: str) -> None:
    bits, _ = cells[y // 4][x // 2]
    cells[y // 4][x // 2] = (bits | DOTS[x % 2][y % 4], style)
