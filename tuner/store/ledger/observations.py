"""What a learning sampler is told: every trial's parameters and value, kept in a worker's memory.

Optuna's storage reads trials with all their epochs and attributes, 0.7 ms for each. Samplers look
at the parameters, the state and the value, and of a pruned trial at its last epoch: one statement
reads these, and later only trials that are new, have ended, or were reopened.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects.postgresql import ARRAY

from tuner.spec.study import Spec
from tuner.store import sampling
from tuner.store import tables as t
from tuner.store.optuna_storage import REPORTS, TRIALS, VALUES, Reopenings

VALUE = models.TrialValueModel.stored_repr_to_value
REPORT = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value


class Observations:
    """The trials of one study, as its sampler sees them."""

    def __init__(self) -> None:
        self._trials: dict[int, FrozenTrial] = {}
        """By trial id, in the order of their numbers."""
        self._running: set[int] = set()
        self._stale: set[int] = set()
        """Trials that were reopened since they were read."""
        self._reopenings = Reopenings()

    def read(self, connection: sa.Connection, study_id: int, spec: Spec) -> list[FrozenTrial]:
        """Return all trials by number; those in training without their epochs."""
        # First of all: see `Reopenings`. If reading fails, they are still to be read.
        self._stale.update(self._reopenings.since(connection, study_id) or ())
        self._stale &= self._trials.keys()
        every = sampling.distributions(spec)
        # Trials with the same parameters share one description of them; nobody writes into it.
        described: dict[tuple[str, ...], dict[str, Any]] = {}
        changed = _select(study_id, len(self._trials), self._running, self._stale)
        for row in connection.execute(changed).all():
            params = sampling.in_file_order(spec, row.chosen)
            names = tuple(params)
            if names not in described:
                described[names] = {name: every[name] for name in names}
            # The constructor checks nothing, unlike `create_trial`: the parameters were checked
            # when the trial was created.
            self._trials[row.trial_id] = FrozenTrial(
                number=row.number,
                trial_id=row.trial_id,
                state=row.state,
                value=None if row.value_type is None else VALUE(row.value, row.value_type),
                datetime_start=None,
                datetime_complete=None,
                params=params,
                distributions=described[names],
                user_attrs={"seed": row.seed, "diverged": row.diverged},
                system_attrs={},
                intermediate_values=(
                    {} if row.step is None else {row.step: REPORT(row.report, row.report_type)}
                ),
            )
            self._running.discard(row.trial_id)
            if row.state == TrialState.RUNNING:
                self._running.add(row.trial_id)
        self._stale.clear()
        return list(self._trials.values())


def _select(
    study_id: int, count: int, running: Collection[int], stale: Collection[int]
) -> sa.Select[Any]:
    """Select trials from number `count` on, those running that have ended since, and stale ones.

    Numbers have no gaps and are given under the study's lock, so that whoever has read `count`
    trials has the numbers below `count`.
    """
    last = (
        sa.select(
            REPORTS.c.step,
            REPORTS.c.intermediate_value.label("report"),
            REPORTS.c.intermediate_value_type.label("report_type"),
        )
        .where(REPORTS.c.trial_id == TRIALS.c.trial_id, TRIALS.c.state == TrialState.PRUNED)
        .order_by(REPORTS.c.step.desc())
        .limit(1)
        .lateral("last")
    )
    ended = TRIALS.c.state != TrialState.RUNNING
    return (
        sa.select(
            t.trial.c.trial_id,
            t.trial.c.number,
            t.trial.c.seed,
            t.trial.c.chosen,
            TRIALS.c.state,
            sa.func.coalesce(t.ended_as == "DIVERGED", sa.false()).label("diverged"),
            VALUES.c.value,
            VALUES.c.value_type,
            last.c.step,
            last.c.report,
            last.c.report_type,
        )
        .select_from(
            t.trial.join(TRIALS, TRIALS.c.trial_id == t.trial.c.trial_id)
            .outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
            .outerjoin(VALUES, VALUES.c.trial_id == t.trial.c.trial_id)
            .outerjoin(last, sa.true())
        )
        .where(
            t.trial.c.study_id == study_id,
            (t.trial.c.number >= count) | (_among(running) & ended) | _among(stale),
        )
        .order_by(t.trial.c.number)
    )


def _among(trial_ids: Collection[int]) -> sa.ColumnElement[bool]:
    """One array, not a value for each trial: a statement of one shape is compiled once."""
    return t.trial.c.trial_id == sa.any_(sa.cast(sorted(trial_ids), ARRAY(sa.Integer)))
