"""Filtering, sorting and paginating a study's trials in PostgreSQL.

A study of 100,000 trials is not read as a whole to show 50 of them. A page starts after the last
row of the previous one (its value and number), not at an offset, so that trials which end
meanwhile neither repeat nor hide rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from tuner.errors import UserError
from tuner.names import meant
from tuner.records import OWN
from tuner.results.conditions import ORDERED, Condition
from tuner.results.rows import CLASS_FIGURES, COSTS, FIGURES
from tuner.store import tables as t
from tuner.store.studies import Study

ColumnKind = Literal["number", "text", "json", "time"]

SIZE = 50
"""Rows per page by default."""
SIZE_MOST = 1_000


@dataclass(frozen=True)
class Column:
    """A column of trials as SQL."""

    expression: sa.ColumnElement[Any]
    kind: ColumnKind

    @property
    def number(self) -> sa.ColumnElement[Any]:
        """Its cell as a number; NULL if it is not a number."""
        if self.kind == "number":
            return self.expression
        if self.kind == "json":
            # Only a CASE keeps PostgreSQL from casting a text before its type is checked.
            kind = sa.func.jsonb_typeof(self.expression)
            return sa.case((kind == "number", sa.cast(self.text, sa.Double)))
        return sa.null()

    @property
    def text(self) -> sa.ColumnElement[Any]:
        """Its cell as a text; NULL for numbers and times."""
        if self.kind == "json":
            return self.expression.op("#>>", return_type=sa.Text())(sa.text("'{}'"))
        return self.expression if self.kind == "text" else sa.null()


@dataclass(frozen=True)
class Page:
    """Which trials a page shows."""

    numbers: tuple[int, ...]
    total: int
    """The number of the study's trials that fulfil the conditions."""
    after: str
    """Where the next page starts; "" on the last one."""


def columns(study: Study) -> dict[str, Column]:
    """Return the columns by which trials can be filtered and sorted."""
    outcome = t.outcome.c
    found: dict[str, Column] = {
        "trial": Column(t.trial.c.number, "number"),
        "state": Column(t.trial_state, "text"),
        "reason": Column(sa.func.nullif(outcome.reason, ""), "text"),
        "seed": Column(t.trial.c.seed, "number"),
        "attempts": Column(t.attempts, "number"),
    }
    found |= {name: Column(t.trial.c.chosen[name], "json") for name in study.spec.varied}
    found |= {
        name: Column(sa.literal(json.loads(json.dumps(value)), JSONB), "json")
        for name, value in study.spec.fixed.items()
    }
    found["best_epoch"] = Column(outcome.best_epoch, "number")
    for stored, shown in (("best_", ""), ("last_", "last_")):
        for name in (*FIGURES, *CLASS_FIGURES):
            figure = (
                outcome[f"{stored}val_acc"] - outcome[f"{stored}test_acc"]
                if name == "gap"
                else outcome[stored + name]
            )
            found[shown + name] = Column(_measured(figure), "number")
        for metric in study.spec.metrics:
            val, test = (
                t.own_figure(outcome[stored + OWN], f"{split}_{metric.name}")
                for split in ("val", "test")
            )
            gap = val - test if metric.better == "higher" else test - val
            for of, figure in (("val", val), ("test", test), ("gap", gap)):
                found[f"{shown}{of}_{metric.name}"] = Column(figure, "number")
    found |= {name: Column(_of_epochs(name), "number") for name in _SUMS}
    found |= {
        "parameter_count": Column(outcome.setup["parameter_count"], "json"),
        "device": Column(outcome.setup["device"], "json"),
        "started": Column(t.trial.c.created, "time"),
        "ended": Column(outcome.ended, "time"),
    }
    return found


def page(
    connection: sa.Connection,
    study: Study,
    conditions: Sequence[Condition] = (),
    *,
    sort: str = "trial",
    after: str = "",
    size: int = SIZE,
) -> Page:
    """Return one page of the trials for which all conditions hold.

    They are sorted by a column, from the largest if `sort` begins with a hyphen; those without a
    value come last in both directions, and equal ones are sorted by their numbers.
    """
    known = columns(study)
    query = _query(known, study, conditions)
    total = connection.execute(
        sa.select(sa.func.count()).select_from(query.subquery())
    ).scalar_one()
    column = _column(known, study, sort.removeprefix("-"))
    keys = _keys(column)
    down = sort.startswith("-")
    ordered = query.add_columns(*(key.label(f"key_{place}") for place, key in enumerate(keys)))
    if after:
        ordered = ordered.where(_beyond(keys, _read(after, keys), down=down))
    ordered = ordered.order_by(*_order(keys, down=down)).limit(min(size, SIZE_MOST) + 1)
    rows = connection.execute(ordered).all()
    shown = rows[: min(size, SIZE_MOST)]
    more = len(rows) > len(shown)
    return Page(
        numbers=tuple(row.number for row in shown),
        total=int(total),
        after=_written(shown[-1], len(keys)) if more else "",
    )


def chosen(
    connection: sa.Connection,
    study: Study,
    conditions: Sequence[Condition] = (),
    *,
    sort: str = "trial",
) -> list[int]:
    """Return the numbers of all trials for which the conditions hold, in the order of `page`."""
    known = columns(study)
    keys = _keys(_column(known, study, sort.removeprefix("-")))
    query = _query(known, study, conditions)
    rows = connection.execute(query.order_by(*_order(keys, down=sort.startswith("-"))))
    return list(rows.scalars())


def _query(
    known: dict[str, Column], study: Study, conditions: Sequence[Condition]
) -> sa.Select[Any]:
    wanted = [
        _holds(_column(known, study, condition.column), condition) for condition in conditions
    ]
    return (
        sa.select(t.trial.c.number)
        .select_from(
            t.trial.join(t.lease).outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
        .where(t.trial.c.study_id == study.study_id, *wanted)
    )


def _order(keys: Sequence[sa.ColumnElement[Any]], *, down: bool) -> list[sa.ColumnElement[Any]]:
    ordered = [key.desc() if down else key.asc() for key in keys]
    return [*(key.nulls_last() for key in ordered), t.trial.c.number]


_SUMS = ("epochs_run", "epochs_reused", "seconds", *COSTS)


def _of_epochs(name: str) -> sa.ColumnElement[Any]:
    """Return a column that is a sum over the epochs of a trial."""
    epoch = t.epoch.c
    sums: dict[str, sa.ColumnElement[Any]] = {
        "epochs_run": sa.func.count(),
        "epochs_reused": sa.func.count().filter(epoch.reused),
        "seconds": sa.func.coalesce(sa.func.sum(epoch.seconds).filter(~epoch.reused), 0.0),
        "seconds_per_epoch": _measured(sa.func.avg(epoch.seconds)),
        "train_seconds": _measured(sa.func.sum(epoch.seconds - epoch.val_seconds)),
        "val_seconds": _measured(sa.func.sum(epoch.val_seconds)),
    }
    summed = sa.select(sums[name]).where(epoch.trial_id == t.trial.c.trial_id).scalar_subquery()
    # A trial's outcome stores these sums.
    return sa.func.coalesce(t.outcome.c[name], summed) if name in t.outcome.c else summed


def _measured(figure: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a figure; NULL if it is NaN."""
    return sa.func.nullif(figure, sa.cast("NaN", sa.Double))


def _column(known: dict[str, Column], study: Study, name: str) -> Column:
    if name not in known:
        raise UserError(
            f"{study.title} has no column {name!r} to search or sort by.{meant(name, known)}"
        )
    return known[name]


def _holds(column: Column, condition: Condition) -> sa.ColumnElement[bool]:
    """Return `Condition.holds` as SQL."""
    if condition.sign == ":":
        return sa.or_(*(_holds(column, one) for one in condition.any_of))
    if condition.sign in ORDERED:
        # NULL for an empty cell, which WHERE treats as false.
        return column.number.op(condition.sign, is_comparison=True)(condition.number)
    equal = sa.func.coalesce(_is(column, condition), sa.false())
    return ~equal if condition.sign == "!=" else equal


def _is(column: Column, condition: Condition) -> sa.ColumnElement[bool]:
    if condition.text == "":
        empty: sa.ColumnElement[bool] = column.expression.is_(None)
        if column.kind == "json":
            empty = empty | (sa.func.jsonb_typeof(column.expression) == "null")
        return empty
    any_case = condition.sign == "~"
    wanted = condition.plain.lower() if any_case else condition.plain
    text = sa.func.lower(column.text) if any_case else column.text
    ways: list[sa.ColumnElement[bool]] = []
    if column.kind in ("number", "json") and condition.number is not None:
        ways.append(column.number == condition.number)
    if column.kind == "text":
        ways.append(text == wanted)
    if column.kind == "json":
        kind = sa.func.jsonb_typeof(column.expression)
        ways.append((kind == "string") & (text == wanted))
        ways.append((kind == "boolean") & (column.text == condition.text.lower()))
    return sa.or_(*ways) if ways else sa.false()


# Keys: what rows are sorted by, and where a page starts


def _keys(column: Column) -> list[sa.ColumnElement[Any]]:
    """Return the sort keys of a column: numbers before texts, as in an export."""
    if column.kind == "json":
        return [column.number, _in_order(column.text)]
    return [_in_order(column.text) if column.kind == "text" else column.expression]


def _in_order(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a text to sort by code points, as Python does; NULL for ""."""
    return sa.func.nullif(text, "", type_=sa.Text()).collate("C")


def _beyond(
    keys: Sequence[sa.ColumnElement[Any]], last: Sequence[Any], *, down: bool
) -> sa.ColumnElement[bool]:
    """Return whether a row comes after the last row of the previous page."""
    *values, number = last
    later: sa.ColumnElement[bool] = t.trial.c.number > number
    for key, value in reversed(list(zip(keys, values, strict=True))):
        if value is None:
            later = key.is_(None) & later
        else:
            bound = sa.literal(value, key.type)
            further = key < bound if down else key > bound
            later = further | key.is_(None) | ((key == bound) & later)
    return later


def _written(row: Any, keys: int) -> str:
    values = [getattr(row, f"key_{place}") for place in range(keys)]
    plain = [value.isoformat() if hasattr(value, "isoformat") else value for value in values]
    return json.dumps([*plain, row.number], separators=(",", ":"))


def _read_value(key: sa.ColumnElement[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(key.type, sa.DateTime):
        return datetime.fromisoformat(value)
    if isinstance(value, str) and isinstance(key.type, sa.String):
        value.encode()  # a ValueError for lone surrogates
        return value
    if type(value) in (int, float) and not isinstance(key.type, sa.String):
        return value
    raise TypeError


def _read(after: str, keys: Sequence[sa.ColumnElement[Any]]) -> list[Any]:
    try:
        *values, number = json.loads(after)
        if len(values) != len(keys) or type(number) is not int or not 0 <= number < 2**31:
            raise ValueError
        read = [_read_value(key, value) for key, value in zip(keys, values, strict=True)]
    except (ValueError, TypeError, RecursionError):
        raise UserError("The address of this page is damaged; begin with the first page.") from None
    return [*read, number]
