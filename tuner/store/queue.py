"""The queue of a study: settings that a person wants to train before the others.

A queued setting does not add to the budget: it takes a place that the grid or the sampler would
have filled. In a grid, its cell moves to the front; in other studies, it becomes the next
configuration instead of the sampler's proposal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.records import Value, value_text
from tuner.spec.setting import check_setting
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.ledger.locks import lock_study
from tuner.store.studies import Study, read_spec


@dataclass(frozen=True)
class Queued:
    """A setting in the queue."""

    number: int
    """Its position: lower numbers are trained first."""
    chosen: Mapping[str, Value]
    configuration: int | None
    """The cell of a grid; in other studies None until a worker starts it."""


@dataclass(frozen=True)
class QueuePlace:
    """Where a setting is: in the queue, or already a trial."""

    chosen: Mapping[str, Value]
    trial: int | None
    """The trial's number; None while it waits in the queue."""
    added: bool = False
    """Whether this call put it there."""


def read_queue(connection: sa.Connection, study_id: int) -> list[Queued]:
    """Return every setting ever queued for a study, in order."""
    rows = connection.execute(
        sa.select(t.queued.c.number, t.queued.c.chosen, t.queued.c.configuration)
        .where(t.queued.c.study_id == study_id)
        .order_by(t.queued.c.number)
    )
    return [Queued(row.number, row.chosen, row.configuration) for row in rows]


def places(connection: sa.Connection, study: Study) -> list[QueuePlace]:
    """Return where each queued setting is now, in the order of the queue."""
    queue = read_queue(connection, study.study_id)
    # Pages and the live screen ask at every change, so of 10,000 trials only these are read.
    placed = [one.configuration for one in queue if one.configuration is not None]
    begun = _begun(connection, study, placed) if placed else {}
    return [
        QueuePlace(
            queued.chosen,
            None if queued.configuration is None else begun.get(queued.configuration, (None,))[0],
        )
        for queued in queue
    ]


def enqueue(
    connection: sa.Connection, study: Study, settings: Sequence[Mapping[str, Value]]
) -> list[QueuePlace]:
    """Append settings to the queue; one that has started or is queued already keeps its place.

    Either all of them are queued or none. Raises if the budget has no room.
    """
    # Under the lock of claims: the started trials, the queue and the budget cannot change before
    # the commit, so a setting is never queued for a place that a worker takes meanwhile.
    lock_study(connection, study.study_id)
    spec = read_spec(connection, study)
    found = []
    for given in settings:
        chosen = check_setting(spec, given)
        found.append(_place(connection, study, chosen) or _add(connection, study, spec, chosen))
    return found


def take(connection: sa.Connection, study_id: int, queued: Queued, configuration: int) -> None:
    """Record the configuration of a queued setting, in the transaction that creates its trial."""
    connection.execute(
        sa.update(t.queued)
        .where(t.queued.c.study_id == study_id, t.queued.c.number == queued.number)
        .values(configuration=configuration)
    )


def _place(
    connection: sa.Connection, study: Study, chosen: Mapping[str, Value]
) -> QueuePlace | None:
    for number, begun in _begun(connection, study).values():
        if begun == chosen:
            return QueuePlace(chosen, number)
    waiting = read_queue(connection, study.study_id)
    return QueuePlace(chosen, None) if any(one.chosen == chosen for one in waiting) else None


def _add(
    connection: sa.Connection, study: Study, spec: Spec, chosen: Mapping[str, Value]
) -> QueuePlace:
    begun = _begun(connection, study)
    queue = read_queue(connection, study.study_id)
    waiting = sum(one.configuration not in begun for one in queue)
    if len(begun) + waiting >= spec.configurations:
        settings = "setting" if spec.configurations == 1 else "settings"
        waits = f", {waiting} of them queued" if waiting else ""
        raise UserError(
            f"All {spec.configurations} {settings} in the budget of {study.title} have started"
            f"{waits}, so there is no room for another. Increase `trials` in [budget], "
            "launch again, then queue the setting."
        )
    cell = spec.grid.index(dict(chosen)) if spec.search.sampler == "grid" else None
    number = 1 + max((one.number for one in queue), default=-1)
    connection.execute(
        sa.insert(t.queued).values(
            study_id=study.study_id, number=number, chosen=dict(chosen), configuration=cell
        )
    )
    text = " ".join(f"{name}={value_text(value)}" for name, value in chosen.items())
    connection.execute(sa.insert(t.event).values(study_id=study.study_id, kind="queued", text=text))
    return QueuePlace(chosen, None, added=True)


def _begun(
    connection: sa.Connection, study: Study, configurations: Sequence[int] | None = None
) -> dict[int, tuple[int, Mapping[str, Value]]]:
    """Return the started configurations, all or some, with their first trials and parameters."""
    query = (
        sa.select(t.trial.c.configuration, t.trial.c.number, t.trial.c.chosen)
        .where(t.trial.c.study_id == study.study_id)
        .order_by(t.trial.c.number.desc())
    )
    if configurations is not None:
        query = query.where(t.trial.c.configuration.in_(configurations))
    rows = connection.execute(query)
    return {row.configuration: (row.number, row.chosen) for row in rows}
