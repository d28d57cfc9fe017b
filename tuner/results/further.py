"""What a trial's row has beside its leading figures, read only when it is asked for.

Figures for unequal classes, what training and validation took, and how the
losses still move at the end of training.
"""

import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from tuner.store import tables as t
from tuner.store.studies import Study

CLASS_FIGURES = tuple(
    f"{split}_{figure}"
    for split in ("val", "test")
    for figure in ("auc", "balanced_acc", "sensitivity", "specificity")
)
COSTS = ("seconds_per_epoch", "train_seconds", "val_seconds")
"""Of all epochs of a trial, reused ones with what they took when they were trained."""

SLOPES = ("late_train_slope", "late_val_slope")
"""Nats per epoch, from a straight line through the late epochs; below 0 the loss still falls."""

LATE = 0.4
"""The share of a trial's epochs, its last ones, that a late slope is fitted to."""
LEAST = 3
"""Epochs without which no slope is given: two points lie on a line whatever they are."""

COLUMNS = (*CLASS_FIGURES, *(f"last_{name}" for name in CLASS_FIGURES), *COSTS, *SLOPES)
"""The further columns, in the order that exports have."""


def further_cells(connection: sa.Connection, study: Study) -> dict[int, Mapping[str, Any]]:
    """Return the further cells of every trial of the study, by its number."""
    return {row.number: _cells(row) for row in connection.execute(_query(study))}


def _cells(row: Any) -> dict[str, Any]:
    cells = {name: _known(getattr(row, f"best_{name}")) for name in CLASS_FIGURES}
    cells |= {f"last_{name}": _known(getattr(row, f"last_{name}")) for name in CLASS_FIGURES}
    return cells | {name: _known(getattr(row, name)) for name in (*COSTS, *SLOPES)}


def _known(value: float | None) -> float | None:
    """Return a figure, or None where it, or an epoch that it sums, was not measured."""
    return None if value is None or math.isnan(value) else value


def _query(study: Study) -> sa.Select[Any]:
    lengths = (
        sa.select(t.epoch.c.trial_id, sa.func.max(t.epoch.c.epoch).label("last"))
        .select_from(t.epoch.join(t.trial))
        .where(t.trial.c.study_id == study.study_id)
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
        .where(t.trial.c.study_id == study.study_id)
    )


def _slope(
    figure: sa.Column[Any], late: sa.ColumnElement[bool], enough: sa.ColumnElement[bool]
) -> sa.ColumnElement[Any]:
    # A loss that is not finite has no slope, and regr_slope would say NaN of it.
    fitted = sa.func.regr_slope(figure, sa.cast(t.epoch.c.epoch, sa.Double)).filter(late)
    return sa.case((enough, fitted), else_=None)
