"""Training curves for each level of a factor: a mean for each seed, and single stopped trials."""

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
"""The figures of every epoch; losses are mean negative log-likelihoods, on both splits."""

STRAYS_MOST = 40
"""More trials that stopped early are counted, not drawn one by one."""


@dataclass(frozen=True)
class Stray:
    """One trial that was stopped on its way."""

    trial: int
    values: dict[str, Array]


@dataclass(frozen=True)
class Curve:
    """One level: its complete trials as one mean a seed, and those that were stopped."""

    level: Level
    by_seed: dict[str, Array]
    """A row a seed, a column an epoch, up to the last epoch that all its trials reached."""
    complete: int
    stopped: int
    strays: tuple[Stray, ...]
    """None where too many were stopped to be drawn."""

    @property
    def seeds(self) -> int:
        """How many seeds the mean is over."""
        return len(next(iter(self.by_seed.values())))

    @property
    def epochs(self) -> int:
        """How many epochs all its complete trials trained."""
        return int(next(iter(self.by_seed.values())).shape[1])


def series(results: Results) -> tuple[str, ...]:
    """Return the figures whose curves are read: with the study's metric if it is its own."""
    return (*SERIES, results.metric) if results.own else SERIES


def curves(results: Results, by: str | None, numbers: Sequence[int] | None = None) -> list[Curve]:
    """Return a curve for each level of a factor, or one for the study where none is named.

    A mean ends where the first of its trials ended: beyond, it would run over survivors. With
    `numbers` curves are of those trials alone.
    """
    mine = t.trial.c.study_id == results.study.study_id
    chosen = mine if numbers is None else mine & t.trial.c.number.in_(numbers)
    return _curves(results, _level(by), chosen)


def setting_curves(results: Results, configurations: Sequence[int]) -> list[Curve]:
    """Return a curve for each of these settings, whose levels are their numbers."""
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
    # As JSON text, so that 1, 1.0, "1" and true stay what they are.
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
    """Return the curves of single trials, of those that have an epoch."""
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
    # PostgreSQL sums in the order in which it meets rows, which may be another the next time: the
    # last digits of a mean go, so that the same study drawn twice is the same file.
    return float("nan") if value is None else float(f"{value:.12g}")


def _key(text: str | None) -> str:
    return "null" if text is None else text


def _read(text: str) -> Level:
    level: Level = json.loads(text)
    return level


@dataclass(frozen=True)
class RateCourse:
    """One course of the learning rate, and the trials that took it."""

    level: Level
    values: Array
    trials: int


COURSES_MOST = 200
"""Most courses to read: more are not distinguishable in a picture."""


def rates(results: Results, by: str | None) -> list[RateCourse]:
    """Return the different courses that the learning rate took under each level of a factor."""
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
