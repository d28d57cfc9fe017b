"""Who works on what at this moment."""

from dataclasses import dataclass

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.store import studies
from tuner.store.overview import WorkerLine, overview, workers_each


@dataclass(frozen=True)
class WorkerRow:
    """A worker with one trial that it trains, or none."""

    study: str
    worker: WorkerLine


@dataclass(frozen=True)
class WorkersPage:
    """All workers that were seen lately."""

    lines: tuple[WorkerRow, ...]


def workers_page(request: Request) -> Response:
    """Write the page of workers."""
    desk: Desk = request.app.state.desk
    return rendering.page(request, "workers", desk.read("workers", _workers))


def _workers(connection: sa.Connection) -> WorkersPage:
    busy = workers_each(connection)
    lines = [
        WorkerRow(study.title, line)
        for study in studies.listing(connection)
        if study.study_id in busy
        for line in overview(connection, study).workers
    ]
    return WorkersPage(tuple(lines))
