"""Reads the events of a study and the output of its trials."""

from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from tuner.errors import UnknownStudyError
from tuner.records import DIVERGED
from tuner.store import tables as t
from tuner.store.studies import Study


@dataclass(frozen=True)
class Output:
    """The output of one attempt at a trial."""

    number: int
    attempt: int
    text: str


@dataclass(frozen=True)
class Event:
    """One event in a study's history."""

    at: datetime
    number: int | None
    worker_id: int | None
    kind: str
    text: str
    who: str = ""
    """The person who caused it; "" if it was a worker."""

    @property
    def described(self) -> str:
        """The event for people: "taken over: from worker 15" for one of kind adopted."""
        kind, text = self.kind, self.text
        if kind == "adopted":
            kind = "taken over"
            # After a failed attempt, for one, the same worker may be the first to claim it.
            if text == f"from worker {self.worker_id}":
                kind, text = "retried", "by the same worker"
        return f"{kind}: {text}" if text else kind


def has_trial(connection: sa.Connection, study: Study, number: int) -> bool:
    """Return whether the study has a trial with this number."""
    row = connection.execute(
        sa.select(t.trial.c.trial_id).where(
            t.trial.c.study_id == study.study_id, t.trial.c.number == number
        )
    )
    return row.first() is not None


def no_trial(connection: sa.Connection, study: Study, number: int) -> UnknownStudyError:
    """Return the error that the study has no trial with this number, saying which it has."""
    last = connection.execute(
        sa.select(sa.func.max(t.trial.c.number)).where(t.trial.c.study_id == study.study_id)
    ).scalar()
    if last is None:
        return UnknownStudyError(f"{study.title} has no trials yet.")
    rest = f"its trials are numbered 0 to {last}" if last else "its only trial is 0"
    return UnknownStudyError(f"{study.title} has no trial {number}; {rest}.")


def outputs(connection: sa.Connection, study: Study, number: int | None) -> list[Output]:
    """Return the output of attempts, of one trial or of all."""
    query = (
        sa.select(t.trial.c.number, t.output.c.token, t.output.c.text)
        .select_from(t.output.join(t.trial))
        .where(t.trial.c.study_id == study.study_id)
        .order_by(t.trial.c.number, t.output.c.token)
    )
    if number is not None:
        query = query.where(t.trial.c.number == number)
    return [Output(*row) for row in connection.execute(query)]


def events(connection: sa.Connection, study: Study, number: int | None) -> list[Event]:
    """Return events, the oldest first."""
    query = (
        sa.select(
            t.event.c.happened,
            t.trial.c.number,
            t.event.c.worker_id,
            t.event.c.kind,
            t.event.c.text,
            t.event.c.who,
        )
        .select_from(t.event.outerjoin(t.trial, t.trial.c.trial_id == t.event.c.trial_id))
        .where(t.event.c.study_id == study.study_id)
        .order_by(t.event.c.event_id)
    )
    if number is not None:
        query = query.where(t.trial.c.number == number)
    history = [Event(*row) for row in connection.execute(query)]
    # A trial that diverged has an event of kind pruned, Optuna's state for it.
    return [
        replace(event, kind=DIVERGED, text=event.text.removeprefix(DIVERGED).strip())
        if event.kind == "pruned" and event.text.startswith(DIVERGED)
        else event
        for event in history
    ]
