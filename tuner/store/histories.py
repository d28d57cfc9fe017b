"""What happened in a study, and what its trials printed: for reading only."""

from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from tuner.records import DIVERGED
from tuner.store.studies import Study
from tuner.store.tables import event, output, trial


@dataclass(frozen=True)
class Output:
    """What one attempt at a trial printed."""

    number: int
    attempt: int
    text: str


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    at: datetime
    number: int | None
    worker_id: int | None
    kind: str
    text: str


def has_trial(connection: sa.Connection, study: Study, number: int) -> bool:
    """Tell whether the study has a trial of this number."""
    found = connection.execute(
        sa.select(trial.c.trial_id).where(
            trial.c.study_id == study.study_id, trial.c.number == number
        )
    )
    return found.first() is not None


def outputs(connection: sa.Connection, study: Study, number: int | None) -> list[Output]:
    """Return what attempts printed, of one trial or of all."""
    query = (
        sa.select(trial.c.number, output.c.token, output.c.text)
        .select_from(output.join(trial))
        .where(trial.c.study_id == study.study_id)
        .order_by(trial.c.number, output.c.token)
    )
    if number is not None:
        query = query.where(trial.c.number == number)
    return [Output(*row) for row in connection.execute(query)]


def events(connection: sa.Connection, study: Study, number: int | None) -> list[Event]:
    """Return what happened, the oldest first."""
    query = (
        sa.select(event.c.happened, trial.c.number, event.c.worker_id, event.c.kind, event.c.text)
        .select_from(event.outerjoin(trial, trial.c.trial_id == event.c.trial_id))
        .where(event.c.study_id == study.study_id)
        .order_by(event.c.event_id)
    )
    if number is not None:
        query = query.where(trial.c.number == number)
    return [_as_read(Event(*row)) for row in connection.execute(query)]


def _as_read(happened: Event) -> Event:
    """Call a trial that diverged so: its event is stored under Optuna's state, pruned."""
    if happened.kind == "pruned" and happened.text.startswith(DIVERGED):
        where = happened.text.removeprefix(DIVERGED).strip()
        return replace(happened, kind=DIVERGED, text=where)
    return happened
