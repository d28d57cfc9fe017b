"""Conditions on rows: `--where model=cnn`, or `lr>1e-4 scheduler:step state:pruned` on a page.

A condition holds for a cell in Python (`Condition.holds`, for exports) or as SQL (`paging`, for
pages of a large study). Both give the same rows, which a test checks.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.errors import UserError
from tuner.spec.overrides import parse_value

_CONDITION = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
_TERM = re.compile(
    r"\s*(?P<column>[^\s<>=!:\"']+)\s*(?P<sign><=|>=|!=|==|=|<|>|:)\s*"
    r"(?P<text>\"[^\"]*\"|'[^']*'|[^\s\"']*)(?=\s|$)"
)

ORDERED: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value: `model=cnn`, `lr<=0.01`, `test_acc!=`.

    With a colon instead of the sign, any of several values matches, ignoring case:
    `state:pruned,failed`.
    """

    column: str
    sign: str
    text: str
    """The value as written; empty stands for an empty cell."""

    @property
    def number(self) -> float | None:
        """The value as a number; None if it is not a number."""
        return number_of(parse_value(self.text))

    @property
    def plain(self) -> str:
        """The value as a text, without surrounding quotes."""
        return self.text.strip("\"'")

    @property
    def any_of(self) -> "tuple[Condition, ...]":
        """One comparison per value if several values are given; one of them must hold."""
        values = self.text.split(",") if self.text[:1] not in ("'", '"') else [self.text]
        return tuple(Condition(self.column, "~", value) for value in values)

    def holds(self, cell: Any) -> bool:
        """Return whether a cell fulfils it; an empty cell is neither above nor below anything."""
        if self.sign == ":":
            return any(one.holds(cell) for one in self.any_of)
        if self.sign in ORDERED:
            value, bound = number_of(cell), self.number
            return value is not None and bound is not None and ORDERED[self.sign](value, bound)
        return self._is(cell) == (self.sign != "!=")

    def _is(self, cell: Any) -> bool:
        empty = cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))
        if empty or self.text == "":
            return empty and self.text == ""
        if isinstance(cell, bool):
            return self.text.lower() == str(cell).lower()
        if isinstance(cell, int | float):
            return self.number is not None and float(cell) == self.number
        if self.sign == "~":
            return str(cell).lower() == self.plain.lower()
        return str(cell) == self.plain


def read_condition(text: str) -> Condition:
    """Parse a condition of `--where`."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UserError(
            f"--where {text!r} is not a comparison such as model=cnn, lr<=0.01 or state!=FAILED."
        )
    return _checked(Condition(found[1], found[2], found[3]), f"--where {text!r}")


def read_query(text: str) -> tuple[Condition, ...]:
    """Parse conditions separated by spaces, which must all hold."""
    conditions: list[Condition] = []
    rest = text.strip()
    while rest:
        found = _TERM.match(rest)
        if found is None:
            raise UserError(
                f"{rest!r} is not a condition such as lr>0.001, scheduler:step or state:pruned; "
                "several are separated by spaces, and a value with spaces is put in quotes."
            )
        condition = Condition(found["column"], found["sign"], found["text"])
        conditions.append(_checked(condition, found[0].strip()))
        rest = rest[found.end() :].strip()
    return tuple(conditions)


def _checked(condition: Condition, said: str) -> Condition:
    if condition.sign in ORDERED and condition.number is None:
        raise UserError(
            f"{said}: {condition.text!r} is not a number, so nothing is "
            f"{'below' if '<' in condition.sign else 'above'} it; use = or !=."
        )
    return condition


def number_of(value: Any) -> float | None:
    """Return a cell as a number; None for a text, a boolean, or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if math.isnan(value) else float(value)
