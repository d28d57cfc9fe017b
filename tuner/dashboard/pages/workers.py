"""The current workers with their trials and device loads, and the studies that wait for workers."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.records import Value
from tuner.store import queue, studies
from tuner.store.overview import (
    Counts,
    WorkerLine,
    count_each,
    lost_each,
    overview,
    workers_each,
)

QUEUED_MOST = 20
"""The most queued settings that are listed per study."""


@dataclass(frozen=True)
class WorkerRow:
    """A worker with one of its trials, or none."""

    study: str
    worker: WorkerLine


@dataclass(frozen=True)
class StudyAtWork:
    """A study with trials left to train."""

    study: str
    workers: int
    counts: Counts
    left: int
    """Trials that have not started."""
    queued: tuple[Mapping[str, Value], ...]
    """The first settings in its queue."""
    queued_total: int
    leases_lost: int
    """How often a worker became silent and its trial was taken over."""


@dataclass(frozen=True)
class WorkersPage:
    """All workers seen recently, and the open studies."""

    lines: tuple[WorkerRow, ...]
    open: tuple[StudyAtWork, ...]
    """Newest study first."""


def workers_page(request: Request) -> Response:
    """Return the page of workers."""
    desk: Desk = request.app.state.desk
    return rendering.page(request, "workers", desk.read("workers", _workers))


def _workers(connection: sa.Connection) -> WorkersPage:
    busy = workers_each(connection)
    stored = studies.listing(connection)
    lines = [
        WorkerRow(study.title, line)
        for study in stored
        if study.study_id in busy
        for line in overview(connection, study).workers
    ]
    wanted = [study for study in stored if study.state == "open"]
    counts, lost = count_each(connection, wanted), lost_each(connection, wanted)
    found = []
    for study in reversed(wanted):
        of = counts[study.study_id]
        waiting = [place.chosen for place in queue.places(connection, study) if place.trial is None]
        found.append(
            StudyAtWork(
                study=study.title,
                workers=sum(busy.get(study.study_id, {}).values()),
                counts=of,
                left=max(0, of.total - of.at_rest - of.running - of.waiting),
                queued=tuple(waiting[:QUEUED_MOST]),
                queued_total=len(waiting),
                leases_lost=lost.get(study.study_id, 0),
            )
        )
    return WorkersPage(tuple(lines), tuple(found))
