"""Training curves by level of a factor: means by seed, and the curves of single stopped trials."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.records import Value
from tuner.results.results import Results
from tuner.store import tables as t

Array = NDArray[np.float64]
Level = Value | None

SERIES = ("train_nll", "train_acc", "val_loss", "val_acc")
"""The figures of each epoch; both losses are mean negative log-likelihoods."""

STRAYS_MOST = 40
"""If more trials stopped early, they are only counted, not drawn."""


@dataclass(frozen=True)
class Stray:
    """A trial that was stopped early."""

    trial: int
    values: dict[str, Array]


@dataclass(frozen=True)
class Curve:
    """One level: its complete trials as one mean per seed, and the stopped ones."""

    level: Level
    by_seed: dict[str, Array]
    """One row per seed, one column per epoch, up to the last epoch that all its trials reached."""
    complete: int
    stopped: int
    strays: tuple[Stray, ...]
    """Empty if too many were stopped to draw them."""

    @property
    def seeds(self) -> int:
        """The number of seeds in the mean."""
        return len(next(iter(self.by_seed.values())))

    @property
    def epochs(self) -> int:
        """The number of epochs that all its complete trials trained."""
        return int(next(iter(self.by_seed.values())).shape[1])


def series(results: Results) -> tuple[str, ...]:
    """Return the figures with curves, including the study's metric if it is its own."""
    return (*SERIES, results.metric) if results.own else SERIES


def curves(results: Results, by: str | None, numbers: Sequence[int] | None = None) -> list[Curve]:
    """Return one curve per level of a factor, or one for the whole study if `by` is None.

    A mean ends where the first of its trials ended: beyond, it would cover only survivors. With
    `numbers`, curves are of these trials only.
    """
    mine = t.trial.c.study_id == results.study.study_id
    chosen = mine if numbers is None else mine & t.trial.c.number.in_(numbers)
    return _curves(results, _level(by), chosen)


def setting_curves(results: Results, configurations: Sequence[int]) -> list[Curve]:
    """Return one curve per setting, whose level is its number."""
    mine = t.trial.c.study_id == results.study.study_id
    chosen = mine & t.trial.c.configuration.in_(configurations)
    return _curves(results, sa.cast(t.trial.c.configuration, sa.Text), chosen)


def _curves(
    results: Results, level: sa.ColumnElement[Any], chosen: sa.ColumnElement[bool]
) -> list[Curve]:
    means = _means(results, level, chosen)
    stopped = _stopped(results, level, chosen)
    curves = []
    for name in dict.fromkeys((*means, *stopped)):
        rows, stray = means.get(name, []), stopped.get(name, [])
        drawn = stray if sum(map(len, stopped.values())) <= STRAYS_MOST else []
        curves.append(
            Curve(
                level=_read(name),
                by_seed=_by_seed(rows, series(results)),
                complete=sum(row.trials for row in rows if row.epoch == 1),
                stopped=len(stray),
                strays=tuple(strays(results, drawn)),
            )
        )
    return curves


def _level(by: str | None) -> sa.ColumnElement[Any]:
    # As JSON text, which distinguishes 1, 1.0, "1" and true.
    return sa.cast(t.trial.c.chosen[by] if by is not None else sa.null(), sa.Text)


def _means(
    results: Results, level: sa.ColumnElement[Any], chosen: sa.ColumnElement[bool]
) -> dict[str, list[Any]]:
    level = level.label("level")
    query = (
        sa.select(
            level,
            t.trial.c.seed,
            t.epoch.c.epoch,
            sa.func.count().label("trials"),
            *(sa.func.avg(t.figure(t.epoch, name)).label(name) for name in series(results)),
        )
        .select_from(
            t.epoch.join(t.trial).join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
        .where(chosen, t.outcome.c.state == "COMPLETE")
        .group_by(level, t.trial.c.seed, t.epoch.c.epoch)
        .order_by(level, t.trial.c.seed, t.epoch.c.epoch)
    )
    rows_by_level: dict[str, list[Any]] = defaultdict(list)
    for row in results.connection.execute(query):
        rows_by_level[_key(row.level)].append(row)
    return rows_by_level


def _by_seed(rows: Sequence[Any], names: Sequence[str]) -> dict[str, Array]:
    if not rows:
        return {name: np.empty((0, 0)) for name in names}
    seeds: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        seeds[row.seed].append(row)
    whole = min(sum(one.trials == of[0].trials for one in of) for of in seeds.values())
    return {
        name: np.array(
            [[_number(getattr(one, name)) for one in of[:whole]] for of in seeds.values()]
        )
        for name in names
    }


def _stopped(
    results: Results, level: sa.ColumnElement[Any], chosen: sa.ColumnElement[bool]
) -> dict[str, list[int]]:
    query = (
        sa.select(level.label("level"), t.trial.c.number)
        .select_from(t.trial.join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id))
        .where(chosen, t.outcome.c.state != "COMPLETE")
        .order_by(t.trial.c.number)
    )
    numbers: dict[str, list[int]] = defaultdict(list)
    for row in results.connection.execute(query):
        numbers[_key(row.level)].append(row.number)
    return numbers


def strays(results: Results, numbers: Sequence[int]) -> list[Stray]:
    """Return the curves of single trials; trials without an epoch are left out."""
    query = (
        sa.select(
            t.trial.c.number,
            *(t.figure(t.epoch, name).label(name) for name in series(results)),
        )
        .select_from(t.epoch.join(t.trial))
        .where(t.trial.c.study_id == results.study.study_id, t.trial.c.number.in_(numbers))
        .order_by(t.trial.c.number, t.epoch.c.epoch)
    )
    rows: dict[int, list[Any]] = defaultdict(list)
    if numbers:
        for row in results.connection.execute(query):
            rows[row.number].append(row)
    return [
        Stray(
            number,
            {
                name: np.array([_number(getattr(one, name)) for one in of])
                for name in series(results)
            },
        )
        for number, of in rows.items()
    ]


def _number(value: float | None) -> float:
    # PostgreSQL sums rows in an order that may differ the next time, so the
    # last digits of a mean are dropped: the same study drawn twice gives the same file.
    return float("nan") if value is None else float(f"{value:.12g}")


def _key(text: str | None) -> str:
    return "null" if text is None else text


def _read(text: str) -> Level:
    level: Level = json.loads(text)
    return level


@dataclass(frozen=True)
class RateCourse:
    """One course of the learning rate, and the number of its trials."""

    level: Level
    values: Array
    trials: int


COURSES_MOST = 200
"""Limit on the courses read: more cannot be distinguished in a picture."""


def rates(results: Results, by: str | None) -> list[RateCourse]:
    """Return the distinct courses of the learning rate under each level of a factor."""
    course = (
        sa.select(
            t.trial.c.number,
            _level(by).label("level"),
            sa.func.array_agg(
                sa.dialects.postgresql.aggregate_order_by(t.epoch.c.lr, t.epoch.c.epoch)
            ).label("course"),
        )
        .select_from(t.epoch.join(t.trial))
        .where(t.trial.c.study_id == results.study.study_id)
        .group_by(t.trial.c.number, t.trial.c.chosen)
        .subquery()
    )
    query = (
        sa.select(course.c.course, course.c.level, sa.func.count())
        .group_by(course.c.course, course.c.level)
        .order_by(sa.func.min(course.c.number))
        .limit(COURSES_MOST)
    )
    return [
        RateCourse(_read(_key(level)), np.array(values, float), trials)
        for values, level, trials in results.connection.execute(query)
    ]
