"""The rows of all tables and exports: one per trial, one per epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.names import meant
from tuner.records import OWN, Epoch
from tuner.results.conditions import Condition
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.studies import Study

LEADING = ("trial", "state", "reason", "seed", "attempts")
FIGURES = (
    "train_loss",
    "train_nll",
    "train_acc",
    "val_loss",
    "val_acc",
    "test_loss",
    "test_acc",
    "gap",
)
TRAILING = (
    "epochs_run",
    "epochs_reused",
    "seconds",
    "parameter_count",
    "device",
    "started",
    "ended",
)
CLASS_FIGURES = tuple(
    f"{split}_{figure}"
    for split in ("val", "test")
    for figure in ("auc", "balanced_acc", "sensitivity", "specificity")
)
COSTS = ("seconds_per_epoch", "train_seconds", "val_seconds")
"""Over all epochs of a trial; reused ones count with their original duration."""

SLOPES = ("late_train_slope", "late_val_slope")
"""Nats per epoch, by linear regression over the late epochs; negative if the loss still falls."""

LATE = 0.4
"""A late slope is fitted to this share of a trial's epochs, the last ones."""
LEAST = 3
"""The fewest epochs for a slope: two points always lie on a line."""

FURTHER = (*CLASS_FIGURES, *(f"last_{name}" for name in CLASS_FIGURES), *COSTS, *SLOPES)
"""The further columns, in the order of exports."""
# Every field of the record, so that everything stored of an epoch can be exported.
EPOCH_COLUMNS = ("trial", *(one.name for one in fields(Epoch) if one.name != OWN))
UNDEFINED = frozenset(name for name in EPOCH_COLUMNS if name.startswith("val_")) - {"val_loss"}
"""Columns in which NaN does not mean divergence: a class is missing, or it was not measured."""


@dataclass(frozen=True)
class TrialRow:
    """One trial: its cells by column, and its value of the study's metric, which ranks rows."""

    cells: Mapping[str, Any]
    value: float | None
    seconds_alone: float = 0.0
    """Training time without reuse; the column `seconds` has the actual time."""
    further: Mapping[str, Any] = field(default_factory=dict)
    """The cells of the further columns, if they were read."""
    configuration: int = 0
    """The number of its setting; trials of one setting differ only in their seed."""
    one_class: tuple[str, ...] = ()
    """Splits whose images are all predicted as one class, at the judged epoch."""
    remark: str = ""
    """The trainer's remark on the model's outputs."""

    def __getitem__(self, column: str) -> Any:
        """Return one cell."""
        return self.cells[column] if column in self.cells else self.further[column]

    @property
    def ended(self) -> bool:
        """Whether no worker will train the trial, unless it is paused and promoted later."""
        return self.cells["state"] not in ("RUNNING", "WAITING")

    @property
    def complete(self) -> bool:
        """Whether the trial ran to its end."""
        return bool(self.cells["state"] == "COMPLETE")

    @property
    def lost(self) -> bool:
        """Whether the trial was pruned, paused or diverged, or failed, so that it is in no mean."""
        return self.cells["state"] in ("PRUNED", "PAUSED", "DIVERGED", "FAILED")


def figure_columns(spec: Spec) -> tuple[str, ...]:
    """Return the figures of a study's trials: the built-in ones, then the study's own."""
    own = (f"{of}_{metric.name}" for metric in spec.metrics for of in ("val", "test", "gap"))
    return (*FIGURES, *own)


def trial_columns(spec: Spec) -> tuple[str, ...]:
    """Return the columns of a study's trials, in the order of exports."""
    figures = figure_columns(spec)
    last = tuple(f"last_{name}" for name in figures)
    parameters = (*spec.varied, *spec.fixed_names)
    return (*LEADING, *parameters, "best_epoch", *figures, *last, *TRAILING)


def epoch_columns(spec: Spec) -> tuple[str, ...]:
    """Return the columns of a study's epochs, in the order of exports."""
    return (*EPOCH_COLUMNS, *(f"val_{metric.name}" for metric in spec.metrics))


def check_columns(study: Study, conditions: Sequence[Condition]) -> None:
    """Refuse conditions on columns that the study's trials do not have."""
    known = (*trial_columns(study.spec), *FURTHER)
    for condition in conditions:
        if condition.column not in known:
            raise UserError(
                f"{study.title} has no column {condition.column!r} to search by."
                f"{meant(condition.column, known)}"
            )


def trial_rows(
    connection: sa.Connection,
    study: Study,
    numbers: Sequence[int] | None = None,
    *,
    further: bool = False,
) -> list[TrialRow]:
    """Return one row per trial of the study, or of these numbers, in the order of numbers."""
    chosen: sa.ColumnElement[bool] = t.trial.c.study_id == study.study_id
    if numbers is not None:
        chosen &= t.trial.c.number.in_(numbers)
    more = further_cells(connection, chosen) if further else {}
    rows = connection.execute(_trial_query(study, chosen))
    return [_trial_row(study.spec, row, more.get(row.tuner_trial_number, {})) for row in rows]


def ranked(rows: Sequence[TrialRow], spec: Spec) -> list[TrialRow]:
    """Return the complete trials, best by the study's metric first."""
    sign = 1.0 if spec.direction == "minimize" else -1.0
    complete = [
        row for row in rows if row.complete and row.value is not None and math.isfinite(row.value)
    ]
    return sorted(complete, key=lambda row: (sign * (row.value or 0.0), row["trial"]))


def epoch_rows(
    connection: sa.Connection, study: Study, numbers: Sequence[int] | None = None
) -> list[tuple[Any, ...]]:
    """Return one row per recorded epoch, of all trials or of these numbers."""
    columns = epoch_columns(study.spec)
    query = (
        sa.select(t.trial.c.number, *(t.figure(t.epoch, name) for name in columns[1:]))
        .select_from(t.epoch.join(t.trial))
        .where(t.trial.c.study_id == study.study_id)
        .order_by(t.trial.c.number, t.epoch.c.epoch)
    )
    if numbers is not None:
        query = query.where(t.trial.c.number.in_(numbers))
    unknown = [name in UNDEFINED for name in columns]
    return [
        tuple(
            None if maybe and cell is not None and math.isnan(cell) else cell
            for cell, maybe in zip(row, unknown, strict=True)
        )
        for row in connection.execute(query)
    ]


@dataclass(frozen=True)
class Place:
    """A trial's place among those of its study."""

    rank: int | None
    """Its rank among the complete trials by the study's metric, from 1; None if it has none."""
    complete: int
    """The number of complete trials whose metric is a number."""
    peers: tuple[int, ...]
    """The trials of the same configuration under other seeds."""


def place(connection: sa.Connection, study: Study, row: TrialRow) -> Place:
    """Return a trial's place, without reading the others one by one."""
    spec, number = study.spec, row["trial"]
    moment = t.outcome.c.best_epoch if spec.search.at == "best" else t.outcome.c.last_epoch
    value = t.figure(t.epoch, spec.search.metric)
    # PostgreSQL sorts NaN above infinity, so this range excludes both.
    finite = (value > float("-inf")) & (value < float("inf"))
    ahead: sa.ColumnElement[bool] = sa.false()
    ranked = row.complete and row.value is not None and math.isfinite(row.value)
    if ranked:
        better = value < row.value if spec.direction == "minimize" else value > row.value
        ahead = better | ((value == row.value) & (t.trial.c.number < number))
    counted = connection.execute(
        sa.select(
            sa.func.count().label("complete"),
            sa.func.count().filter(ahead).label("ahead"),
        )
        .select_from(
            t.trial.join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).join(
                t.epoch, (t.epoch.c.trial_id == t.trial.c.trial_id) & (t.epoch.c.epoch == moment)
            )
        )
        .where(t.trial.c.study_id == study.study_id, t.outcome.c.state == "COMPLETE", finite)
    ).one()
    peers = connection.execute(
        sa.select(t.trial.c.number)
        .where(
            t.trial.c.study_id == study.study_id,
            t.trial.c.configuration == row.configuration,
            t.trial.c.number != number,
        )
        .order_by(t.trial.c.number)
    )
    return Place(counted.ahead + 1 if ranked else None, counted.complete, tuple(peers.scalars()))


def _trial_query(study: Study, chosen: sa.ColumnElement[bool]) -> sa.Select[Any]:
    # Of trials without an outcome that has these sums.
    curves = (
        sa.select(
            t.epoch.c.trial_id,
            sa.func.count().label("epochs_run"),
            sa.func.count().filter(t.epoch.c.reused).label("epochs_reused"),
            sa.func.sum(t.epoch.c.seconds).filter(~t.epoch.c.reused).label("seconds"),
            sa.func.sum(t.epoch.c.seconds).label("seconds_alone"),
        )
        .select_from(
            t.epoch.join(t.trial).outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
        .where(chosen, t.outcome.c.epochs_run.is_(None))
        .group_by(t.epoch.c.trial_id)
        .subquery("curves")
    )
    moment = t.outcome.c.best_epoch if study.spec.search.at == "best" else t.outcome.c.last_epoch
    judged = t.epoch.alias("judged")
    return (
        sa.select(
            t.trial,
            t.attempts.label("attempts"),
            t.lease.c.state.label("lease_state"),
            t.outcome,
            t.trial_state.label("state"),
            *(
                sa.func.coalesce(t.outcome.c[name], curves.c[name], 0).label(name)
                for name in ("epochs_run", "epochs_reused", "seconds", "seconds_alone")
            ),
            t.figure(judged, study.spec.search.metric).label("value"),
        )
        .select_from(
            t.trial.join(t.lease)
            .outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
            .outerjoin(curves, curves.c.trial_id == t.trial.c.trial_id)
            .outerjoin(
                judged, (judged.c.trial_id == t.trial.c.trial_id) & (judged.c.epoch == moment)
            )
        )
        .where(chosen)
        .order_by(t.trial.c.number)
        .set_label_style(sa.LABEL_STYLE_TABLENAME_PLUS_COL)
    )


def _trial_row(spec: Spec, row: Any, further: Mapping[str, Any]) -> TrialRow:
    setup = row.tuner_outcome_setup or {}
    cells: dict[str, Any] = {
        "trial": row.tuner_trial_number,
        "state": row.state,
        "reason": row.tuner_outcome_reason or None,
        "seed": row.tuner_trial_seed,
        "attempts": row.attempts,
    }
    for name in spec.varied:
        cells[name] = row.tuner_trial_chosen.get(name)
    for name in spec.fixed_names:
        cells[name] = spec.fixed[name]
    cells["best_epoch"] = row.tuner_outcome_best_epoch
    cells |= _figures(spec, row, "best_", "")
    cells |= _figures(spec, row, "last_", "last_")
    cells |= {
        "epochs_run": row.epochs_run,
        "epochs_reused": row.epochs_reused,
        "seconds": float(row.seconds),
        "parameter_count": setup.get("parameter_count"),
        "device": setup.get("device"),
        "started": row.tuner_trial_created,
        "ended": row.tuner_outcome_ended,
    }
    seconds_alone = float(row.seconds_alone)
    return TrialRow(
        cells,
        row.value,
        seconds_alone,
        further,
        row.tuner_trial_configuration,
        _one_class(row, spec.search.at),
        str((setup.get("notes") or {}).get("output", "")),
    )


def _one_class(row: Any, at: str) -> tuple[str, ...]:
    """Return the splits whose images are all predicted as one class.

    With two classes, that is so exactly if one class has recall 1 and the other 0.
    With more classes, the stored means do not distinguish it from guessing.
    """
    splits = []
    for split in ("val", "test"):
        rates = [
            getattr(row, f"tuner_outcome_{at}_{split}_{name}")
            for name in ("sensitivity", "specificity", "balanced_acc")
        ]
        if set(rates[:2]) == {0.0, 1.0} and rates[2] == 0.5:
            splits.append(split)
    return tuple(splits)


def _figures(spec: Spec, row: Any, stored: str, shown: str) -> dict[str, Any]:
    figures = {
        shown + name: getattr(row, f"tuner_outcome_{stored}{name}")
        for name in FIGURES
        if name != "gap"
    }
    val_acc, test_acc = figures[f"{shown}val_acc"], figures[f"{shown}test_acc"]
    measured = val_acc is not None and test_acc is not None
    figures[f"{shown}gap"] = val_acc - test_acc if measured else None
    own = getattr(row, f"tuner_outcome_{stored}{OWN}")
    for metric in spec.metrics:
        val, test = (_measured(own.get(f"{split}_{metric.name}")) for split in ("val", "test"))
        worse = None if val is None or test is None else val - test
        if worse is not None and metric.better == "lower":
            worse = -worse
        for of, value in (("val", val), ("test", test), ("gap", worse)):
            figures[f"{shown}{of}_{metric.name}"] = value
    return figures


# Further columns: figures for unbalanced classes, times, and slopes of the losses


def further_cells(
    connection: sa.Connection, chosen: sa.ColumnElement[bool]
) -> dict[int, Mapping[str, Any]]:
    """Return the further cells of the chosen trials, by their numbers."""
    return {row.number: _further_of(row) for row in connection.execute(_further_query(chosen))}


def _further_of(row: Any) -> dict[str, Any]:
    cells = {name: _measured(getattr(row, f"best_{name}")) for name in CLASS_FIGURES}
    cells |= {f"last_{name}": _measured(getattr(row, f"last_{name}")) for name in CLASS_FIGURES}
    return cells | {name: _measured(getattr(row, name)) for name in (*COSTS, *SLOPES)}


def _measured(value: float | None) -> float | None:
    """Return a figure; None if it, or an epoch in its sum, was not measured."""
    return None if value is None or math.isnan(value) else value


def _further_query(chosen: sa.ColumnElement[bool]) -> sa.Select[Any]:
    lengths = (
        sa.select(t.epoch.c.trial_id, sa.func.max(t.epoch.c.epoch).label("last"))
        .select_from(t.epoch.join(t.trial))
        .where(chosen)
        .group_by(t.epoch.c.trial_id)
        .subquery("lengths")
    )
    late = t.epoch.c.epoch > lengths.c.last * (1 - LATE)
    enough = sa.func.count().filter(late) >= LEAST
    curves = (
        sa.select(
            t.epoch.c.trial_id,
            sa.func.avg(t.epoch.c.seconds).label("seconds_per_epoch"),
            sa.func.sum(t.epoch.c.seconds - t.epoch.c.val_seconds).label("train_seconds"),
            sa.func.sum(t.epoch.c.val_seconds).label("val_seconds"),
            _slope(t.epoch.c.train_nll, late, enough).label("late_train_slope"),
            _slope(t.epoch.c.val_loss, late, enough).label("late_val_slope"),
        )
        .select_from(t.epoch.join(lengths, lengths.c.trial_id == t.epoch.c.trial_id))
        .group_by(t.epoch.c.trial_id)
        .subquery("curves")
    )
    figures = [
        t.outcome.c[f"{moment}_{name}"] for moment in ("best", "last") for name in CLASS_FIGURES
    ]
    return (
        sa.select(t.trial.c.number, *figures, *(curves.c[name] for name in (*COSTS, *SLOPES)))
        .select_from(
            t.trial.outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).outerjoin(
                curves, curves.c.trial_id == t.trial.c.trial_id
            )
        )
        .where(chosen)
    )


def _slope(
    figure: sa.Column[Any], late: sa.ColumnElement[bool], enough: sa.ColumnElement[bool]
) -> sa.ColumnElement[Any]:
    # A loss that is not finite has no slope; regr_slope would return NaN.
    fitted = sa.func.regr_slope(figure, sa.cast(t.epoch.c.epoch, sa.Double)).filter(late)
    return sa.case((enough, fitted), else_=None)
