"""A study's documents: its report, its plots, its trials as a file."""

import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import Any
from urllib.parse import quote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from tuner.answers.sheets import MEDIA
from tuner.dashboard.desk import Desk
from tuner.dashboard.rendering import message
from tuner.errors import UserError
from tuner.names import meant
from tuner.results import Condition, Results
from tuner.store.studies import Study

logger = logging.getLogger(__name__)

OLD = 60.0
"""Seconds after which a document that is out of date is no longer shown. While a study runs,
documents are soon out of date."""
EXPORTING = threading.Lock()
"""Held while an export is read from the database, or its file is written."""
TAKING = 30.0
"""Seconds within which a client must accept a piece of an export."""
EXPORT_MOST = 900.0
"""Time limit of an export in seconds: it occupies a connection, and others wait for it."""
WHOLE_PAGE = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
)
"""A report contains its styles, and no scripts."""


def report(request: Request) -> Response:
    """Return the current report of a study."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])

    def ask(results: Results) -> str:
        from tuner.report.gather import gather
        from tuner.report.html import as_html

        return as_html(gather(results))

    kept = desk.write("report", ask, study)
    if kept is None or (not kept.current and kept.age > OLD):
        return _soon("The report is being written; it appears here by itself.")
    return HTMLResponse(kept.value, headers={"Content-Security-Policy": WHOLE_PAGE})


def picture(request: Request) -> Response:
    """Return one of the plots of `tuner plot` as SVG."""
    from tuner.pictures import KINDS

    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    kind = request.path_params["kind"]
    by = request.query_params.get("by") or None
    # Checked before anything is queued: otherwise, any address would be one more plot to draw.
    if kind not in KINDS:
        kinds = ", ".join(KINDS)
        raise UserError(f"There is no picture {kind!r}; use one of {kinds}.{meant(kind, KINDS)}")
    if by is not None and by not in study.spec.varied:
        varied = ", ".join(study.spec.varied)
        raise UserError(f"{study.title} does not vary {by!r}; it varies {varied}.")

    def ask(results: Results) -> bytes:
        from tuner.pictures import Subject, draw

        return draw(kind, Subject(results, by=by)).render("svg")

    kept = desk.write(("picture", kind, by), ask, study)
    if kept is None or (not kept.current and kept.age > OLD):
        return _soon("The picture is being drawn; it appears here by itself.")
    headers = {"Content-Security-Policy": WHOLE_PAGE}
    return Response(kept.value, media_type="image/svg+xml", headers=headers)


def _soon(text: str) -> Response:
    """Say that a document is not ready yet; the browser reloads automatically."""
    return PlainTextResponse(f"{text}\n", 202, headers={"Refresh": "2"})


def export(request: Request) -> Response:
    """Send all trials of the table, all its pages, in the formats of `tuner export`."""
    from tuner.answers.sheets import formats
    from tuner.results import read_query

    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    asked = request.query_params
    conditions = read_query(asked.get("q", ""))
    columns = list(dict.fromkeys(filter(None, asked.get("columns", "").split(","))))
    ending = request.path_params.get("ending", "csv")
    form = formats.format_of(f"trials.{ending}")
    # `a\r\nb.csv` has a format, too.
    if form is None or "." in ending:
        known = [f".{one}" for endings in formats.ENDINGS.values() for one in endings]
        raise UserError(f"Unknown export format {f'.{ending}'!r}; use one of {', '.join(known)}.")
    # One at a time: a large study's export occupies a core and a connection for minutes. Others get
    # a 503 instead of waiting here, where forty of them would block all threads that render pages.
    if not EXPORTING.acquire(blocking=False):
        answer = message(request, 503, "Another export is being written. Try again in a moment.")
        answer.headers["Retry-After"] = "5"
        return answer
    sort = asked.get("sort") or "trial"
    pieces = _exported(desk, study, form, conditions, sort=sort, columns=columns)
    # Up to the first piece here, so that an invalid request can still get an error status.
    first = next(pieces)
    name = "".join(one for one in study.title if one.isalnum() or one in "_-@.") or "trials"
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.{ending}"}
    return _Export(desk, first, pieces, media_type=MEDIA[form], headers=headers)


def _exported(
    desk: Desk,
    study: Study,
    form: str,
    conditions: Sequence[Condition],
    *,
    sort: str,
    columns: Sequence[str],
) -> Generator[bytes]:
    """Yield an export piece by piece; release its connection and the lock at the end."""
    from tuner.answers.columns import units
    from tuner.answers.sheets import contents, formats

    try:
        with desk.results(study) as results:
            sheet = contents.chosen_trials(results, conditions, sort=sort, columns=columns)
            layout = formats.Layout(
                exact={*study.spec.varied, *study.spec.fixed},
                units=units(sheet.columns, results, compared=None),
            )
            yield from formats.pieces(sheet, form, layout)
    finally:
        EXPORTING.release()


class _InTurn:
    """A generator shared by threads: `close` waits for the piece that is being produced."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._turn = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._turn:
            return next(self._pieces)

    def close(self) -> None:
        """Make the generator release its resources."""
        with self._turn:
            self._pieces.close()


class _StoppedError(Exception):
    """The server is stopping."""


class _Export(StreamingResponse):
    """An export in progress. A client that disconnects, or is too slow, ends it."""

    def __init__(self, desk: Desk, first: bytes, pieces: Generator[bytes], **more: Any) -> None:
        self._desk = desk
        self._pieces = _InTurn(pieces)
        super().__init__(chain((first,), self._pieces), **more)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it to its end, or until the client stops accepting it."""

        async def send_soon(message: Message) -> None:
            if self._desk.stopping:
                raise _StoppedError
            # A slow client makes this wait, and the database with it.
            with anyio.fail_after(TAKING):
                await send(message)

        try:
            with anyio.fail_after(EXPORT_MOST):
                await super().__call__(scope, receive, send_soon)
        except TimeoutError:
            # The status has been sent. Without a proper end, the server closes the connection, so
            # the client notices that something is missing.
            logger.warning("an export was broken off: its client takes it too slowly")
        except _StoppedError:
            logger.warning("an export was broken off: the dashboard stops")
        finally:
            # A thread may still be in the generator: a stopping server cancels this task without
            # waiting for its thread.
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._pieces.close)
