"""Filtering and sorting the rows of a sheet: `--where` and `--sort`."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tuner.answers.sheets.contents import Sheet
from tuner.results import Condition

__all__ = ["sort", "where"]


def where(sheet: Sheet, conditions: Sequence[Condition]) -> Sheet:
    """Return the rows for which all conditions hold."""
    if not conditions:
        return sheet
    places = [(sheet.place(one.column), one) for one in conditions]
    rows = (row for row in sheet.rows if all(one.holds(row[at]) for at, one in places))
    return Sheet(sheet.columns, list(rows) if isinstance(sheet.rows, list) else rows)


def sort(sheet: Sheet, by: str | None) -> Sheet:
    """Return the rows sorted by a column, from the largest if `by` begins with a hyphen.

    Numbers come before texts; rows without a value come last in both directions.
    """
    if by is None:
        return sheet
    at = sheet.place(by.removeprefix("-"))
    rows = list(sheet.rows)
    filled = [row for row in rows if not _is_empty(row[at])]
    empty = [row for row in rows if _is_empty(row[at])]
    # Stable in both directions: rows with equal values keep their order.
    filled.sort(key=lambda row: _order(row[at]), reverse=by.startswith("-"))
    return Sheet(sheet.columns, [*filled, *empty])


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _order(cell: Any) -> tuple[int, float, str]:
    if isinstance(cell, datetime):
        return 0, cell.timestamp(), ""
    return (0, float(cell), "") if isinstance(cell, int | float) else (1, 0.0, str(cell))
