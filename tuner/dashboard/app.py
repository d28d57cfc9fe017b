"""The dashboard as one ASGI app: our pages, optuna-dashboard beside them, a guard before both."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg2 import Error as DriverError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from tuner.dashboard.desk import Desk
from tuner.dashboard.guard import Guard
from tuner.dashboard.optuna import optuna_pages
from tuner.dashboard.pages import (
    curves,
    documents,
    front,
    pair,
    parallel,
    study,
    trial,
    trials,
    workers,
)
from tuner.dashboard.rendering import environment, number_in
from tuner.errors import TunerError, UnknownStudyError, UserError
from tuner.store.database import Database, is_outage

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"


def build(desk: Desk) -> ASGIApp:
    """Return the dashboard over a database."""
    app = Starlette(
        routes=_routes(desk.database),
        middleware=[Middleware(GZipMiddleware, minimum_size=1_000)],
        exception_handlers={
            TunerError: _refused,
            DBAPIError: _broken,
            DriverError: _broken,
            PoolTimeoutError: _busy,
            HTTPException: _not_found,
            Exception: _failed,
        },
        lifespan=_lifespan(desk),
    )
    # Around everything, so that the page of an error has its headers, too.
    return Guard(app)


def _routes(database: Database) -> list[BaseRoute]:
    def with_json(path: str, page: object) -> list[BaseRoute]:
        return [Route(f"{path}.json", page), Route(path, page)]  # type: ignore[arg-type]

    name = "/studies/{name}"
    return [
        Route("/", front.front),
        *with_json("/studies", front.front),
        *with_json("/workers", workers.workers_page),
        Route(f"{name}/curves.json", curves.curves_data),
        Route(f"{name}/parallel.json", parallel.parallel_data),
        Route(f"{name}/trials/{{number:int}}/curves.json", trial.trial_curves),
        *with_json(f"{name}/trials/{{number:int}}", trial.trial_page),
        Route(f"{name}/trials.csv", documents.export),
        *with_json(f"{name}/trials", trials.trials_page),
        *with_json(f"{name}/compare", pair.pair_page),
        Route(f"{name}/report", documents.report),
        Route(f"{name}/pictures/{{kind}}.svg", documents.picture),
        *with_json(name, study.study_page),
        Route("/events", _events),
        Mount("/assets", StaticFiles(directory=STATIC)),
        # All other paths are optuna-dashboard's, whose pages name them from the root.
        Mount("/", optuna_pages(database)),
    ]


def _lifespan(desk: Desk):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        app.state.desk = desk
        desk.tell = lambda study: _tell(loop, desk, study)
        listening = asyncio.create_task(desk.announcements.listen())
        try:
            yield
        finally:
            listening.cancel()
            desk.close()

    return lifespan


def _tell(loop: asyncio.AbstractEventLoop, desk: Desk, study: int | None) -> None:
    """Tell open pages, from any thread, that an answer is ready; nothing stored has changed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(desk.announcements.refresh, study)


async def _events(request: Request) -> Response:
    """Stream what changes, for one tab."""
    desk: Desk = request.app.state.desk
    asked = request.query_params.get("study", "")
    stream = desk.announcements.stream(number_in(asked))
    # A proxy must not wait for the end of a stream before it hands it on.
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


# What is answered when there is nothing to show


def _refused(request: Request, error: Exception) -> Response:
    code = 404 if isinstance(error, UnknownStudyError) else 400
    return _message(request, code if isinstance(error, UserError | UnknownStudyError) else 503,
                    str(error))  # fmt: skip


def _broken(request: Request, error: Exception) -> Response:
    if not is_outage(error):
        logger.error("a page could not be read", exc_info=error)
        return _failed(request, error)
    return _message(
        request,
        503,
        "The database does not answer at the moment. This page loads again by itself.",
        again=True,
    )


def _busy(request: Request, _error: Exception) -> Response:
    return _message(
        request, 503, "The dashboard is busy. This page loads again by itself.", again=True
    )


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _message(request, error.status_code, error.detail)


def _failed(request: Request, _error: Exception) -> Response:
    return _message(request, 500, "This page could not be made; the reason is in the server's log.")


def _message(request: Request, code: int, text: str, *, again: bool = False) -> Response:
    if request.url.path.endswith(".json"):
        return JSONResponse({"error": text}, code)
    if "part" in request.query_params:
        # A part that cannot be made now stays as it is on the page.
        return Response(text, code, media_type="text/plain")
    page = environment.get_template("message.html.j2")
    return HTMLResponse(page.render(text=text, again=again, request=request), code)
