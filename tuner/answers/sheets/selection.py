"""Which rows of a sheet a person wants, and in which order: `--where` and `--sort`."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuner.answers.sheets.contents import Sheet
from tuner.errors import UserError
from tuner.spec.overrides import parse_value

_CONDITION = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value: `model=cnn`, `lr<=0.01`, `test_acc!=`."""

    column: str
    sign: str
    text: str
    """As written; empty means an empty cell."""

    def holds(self, cell: Any) -> bool:
        """Say whether a cell fulfils it; an empty cell is neither above nor below anything."""
        if self.sign in _COMPARE:
            number = _number(cell)
            bound = _number(parse_value(self.text))
            return number is not None and bound is not None and _COMPARE[self.sign](number, bound)
        return self._is(cell) == (self.sign != "!=")

    def _is(self, cell: Any) -> bool:
        if cell is None or self.text == "":
            return (cell is None or cell == "") and self.text == ""
        if isinstance(cell, bool):
            return self.text.lower() == str(cell).lower()
        value = _number(parse_value(self.text))
        if isinstance(cell, int | float):
            return value is not None and float(cell) == value
        return str(cell) == self.text.strip("\"'")


def read_condition(text: str) -> Condition:
    """Read a condition as it is typed."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UserError(
            f"--where {text!r} is not a comparison such as model=cnn, lr<=0.01 or state!=FAILED."
        )
    condition = Condition(found[1], found[2], found[3])
    if condition.sign in _COMPARE and _number(parse_value(condition.text)) is None:
        raise UserError(
            f"--where {text!r}: {condition.text!r} is not a number, so nothing is "
            f"{'below' if '<' in condition.sign else 'above'} it; use = or !=."
        )
    return condition


def where(sheet: Sheet, conditions: Sequence[Condition]) -> Sheet:
    """Return the rows for which all conditions hold."""
    if not conditions:
        return sheet
    places = [(sheet.place(one.column), one) for one in conditions]
    rows = (row for row in sheet.rows if all(one.holds(row[at]) for at, one in places))
    return Sheet(sheet.columns, list(rows) if isinstance(sheet.rows, list) else rows)


def sort(sheet: Sheet, by: str | None) -> Sheet:
    """Return the rows by a column, from the largest where `by` begins with a hyphen.

    Numbers go by size and before texts; rows without a value come last either way.
    """
    if by is None:
        return sheet
    at = sheet.place(by.removeprefix("-"))
    rows = list(sheet.rows)
    filled = [row for row in rows if not _is_empty(row[at])]
    empty = [row for row in rows if _is_empty(row[at])]
    # Stable in both directions: rows of one value keep their order.
    filled.sort(key=lambda row: _order(row[at]), reverse=by.startswith("-"))
    return Sheet(sheet.columns, [*filled, *empty])


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _order(cell: Any) -> tuple[int, float, str]:
    if isinstance(cell, datetime):
        return 0, cell.timestamp(), ""
    return (0, float(cell), "") if isinstance(cell, int | float) else (1, 0.0, str(cell))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if math.isnan(value) else float(value)
