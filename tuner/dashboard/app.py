"""The dashboard as one ASGI app: our pages and optuna-dashboard, both behind the guard."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg2 import Error as DriverError
from psycopg2.errors import UndefinedColumn, UndefinedTable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tuner.dashboard.assets import serve_asset
from tuner.dashboard.attempts import Attempts
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import Door
from tuner.dashboard.guard import METRICS, OPTUNAS_PATHS, Guard
from tuner.dashboard.optuna import optuna_pages
from tuner.dashboard.pages import (
    actions,
    curves,
    documents,
    front,
    login,
    metrics,
    pair,
    parallel,
    study,
    trial,
    trials,
    workers,
)
from tuner.dashboard.pages.actions import Delete
from tuner.dashboard.paths import below
from tuner.dashboard.rendering import message, number_in
from tuner.errors import TunerError, UnknownStudyError, UserError
from tuner.store.database import is_outage

logger = logging.getLogger(__name__)

NO_GZIP = re.compile(r"\bgzip\s*;\s*q=0(?:\.0*)?\s*(?:,|$)", re.IGNORECASE)
"""An Accept-Encoding that refuses gzip: gzip;q=0."""
KNOWN_SECONDS = 30.0
"""Seconds between checks whether the reader of a stream is still logged in."""


def build(desk: Desk, door: Door, delete: Delete) -> ASGIApp:
    """Return the dashboard of a database, with access control; `delete` deletes a study."""
    app = Starlette(
        routes=_routes(desk, door.access.base),
        middleware=[Middleware(_Compression, minimum_size=1_000)],
        exception_handlers={
            TunerError: _refused,
            DBAPIError: _broken,
            DriverError: _broken,
            PoolTimeoutError: _busy,
            HTTPException: _not_found,
            Exception: _failed,
        },
        lifespan=_lifespan(desk, door),
    )
    app.state.desk = desk
    app.state.door = door
    app.state.delete = delete
    app.state.attempts = Attempts()
    # Around everything, so that error pages get the headers, too.
    return Guard(app, door, _unavailable)


class _Compression(GZipMiddleware):
    """Compresses responses for clients that accept gzip."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        accepted = Headers(scope=scope).get("accept-encoding", "") if "headers" in scope else ""
        if NO_GZIP.search(accepted):
            # Starlette, like `assets`, only looks for the word gzip.
            kept = [one for one in scope["headers"] if one[0] != b"accept-encoding"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


class _Number(Convertor[int]):
    """A number in a path that fits PostgreSQL's integer."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        """Parse the number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Format the number."""
        return str(value)


register_url_convertor("number", _Number())


def _routes(desk: Desk, base: str = "") -> list[BaseRoute]:
    def with_json(path: str, page: object) -> list[BaseRoute]:
        return [Route(f"{path}.json", page), Route(path, page)]  # type: ignore[arg-type]

    name = "/studies/{name}"
    return [
        Route("/", front.front),
        *with_json("/studies", front.front),
        *with_json("/workers", workers.workers_page),
        Route(METRICS, metrics.metrics),
        Route(f"{name}/curves.json", curves.curves_data),
        Route(f"{name}/parallel.json", parallel.parallel_data),
        Route(f"{name}/trials/{{number:number}}/curves.json", trial.trial_curves),
        Route(
            f"{name}/trials/{{number:number}}/images/{{split}}/{{place:number}}.png", trial.image
        ),
        *with_json(f"{name}/trials/{{number:number}}", trial.trial_page),
        Route(f"{name}/trials.csv", documents.export),
        Route(f"{name}/export.{{ending}}", documents.export),
        *with_json(f"{name}/trials", trials.trials_page),
        Route(f"{name}/compare/curves.json", pair.compare_curves),
        *with_json(f"{name}/compare", pair.compare_page),
        Route(f"{name}/report", documents.report),
        Route(f"{name}/pictures/{{kind}}.svg", documents.picture),
        *with_json(name, study.study_page),
        *login.ROUTES,
        *actions.ROUTES,
        Route("/events", _events),
        Route("/assets/{name:path}", serve_asset),
        # All other paths belong to optuna-dashboard, whose pages use absolute paths.
        Route("/{path:path}", _no_optuna) if base else Mount("/", optuna_pages(desk)),
    ]


def _no_optuna(request: Request) -> Response:
    """Say why Optuna Dashboard is not shown below a path."""
    if not request.url.path.startswith(OPTUNAS_PATHS):
        raise HTTPException(404)
    return message(
        request,
        404,
        "Optuna Dashboard is not shown here. Its pages ask for addresses at the root of a host, "
        f"such as /api, and this dashboard is served below {below('')}. Serve the dashboard under "
        "a host name of its own, or start another one on your machine: tuner dashboard",
    )


def _lifespan(desk: Desk, door: Door):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        desk.tell = lambda study: _tell(loop, desk, study)
        listening = asyncio.create_task(desk.announcements.listen())
        try:
            yield
        finally:
            listening.cancel()
            door.close()
            desk.close()

    return lifespan


def _tell(loop: asyncio.AbstractEventLoop, desk: Desk, study: int | None) -> None:
    """Notify open pages, from any thread, that an answer is ready; nothing stored has changed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(desk.announcements.refresh, study)


async def _events(request: Request) -> Response:
    """Stream changes to one tab."""
    desk: Desk = request.app.state.desk
    asked = request.query_params.get("study", "")
    stream = _while_known(request, desk.announcements.stream(number_in(asked)))
    # A proxy must pass the stream on without buffering it.
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _while_known(request: Request, stream: AsyncIterator[str]) -> AsyncIterator[str]:
    """End a stream when its reader's session has ended or the user was removed."""
    door: Door = request.app.state.door
    asked = time.monotonic()
    async for text in stream:
        if time.monotonic() - asked > KNOWN_SECONDS:
            asked = time.monotonic()
            try:
                # An open tab alone does not keep a session alive.
                if await door.caller(request.scope, touch=False) is None:
                    return
            except (DBAPIError, DriverError, PoolTimeoutError):
                pass  # the database is unavailable, which the stream reports itself
        yield text


# Responses when there is nothing to show


def _unavailable(request: Request, error: Exception) -> Response:
    return _busy(request, error) if isinstance(error, PoolTimeoutError) else _broken(request, error)


def _refused(request: Request, error: Exception) -> Response:
    code = 404 if isinstance(error, UnknownStudyError) else 400
    return message(request, code if isinstance(error, UserError | UnknownStudyError) else 503,
                    str(error))  # fmt: skip


def _broken(request: Request, error: Exception) -> Response:
    if isinstance(getattr(error, "orig", error), UndefinedColumn | UndefinedTable):
        # The schema was checked at the start, so another version has migrated it since.
        logger.error("the database's tables are not those of this version", exc_info=error)
        return message(
            request,
            503,
            "Another version of tuner has migrated this database. Restart the dashboard.",
        )
    if not is_outage(error):
        logger.error("a page could not be read", exc_info=error)
        return _failed(request, error)
    return message(
        request,
        503,
        "The database does not answer at the moment. This page reloads by itself.",
        again=True,
    )


def _busy(request: Request, _error: Exception) -> Response:
    return message(request, 503, "The dashboard is busy. This page reloads by itself.", again=True)


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return message(request, error.status_code, error.detail)


def _failed(request: Request, _error: Exception) -> Response:
    return message(request, 500, "This page could not be rendered; see the server's log.")
