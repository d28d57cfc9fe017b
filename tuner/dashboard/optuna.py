"""optuna-dashboard over one cached storage, as an app beside our own pages."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, cast

import sqlalchemy as sa
from a2wsgi import WSGIMiddleware
from optuna_dashboard import wsgi
from starlette.types import ASGIApp

from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.optuna_storage import Binding

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

THREADS = 4


def optuna_pages(database: Database) -> ASGIApp:
    """Return optuna-dashboard, as it is when installed."""
    # Its types are stricter than ASGI's own, and the same.
    return cast("ASGIApp", WSGIMiddleware(cast("Any", _Current(database)), workers=THREADS))


class _Current:
    """optuna-dashboard over a cached storage, replaced when ended trials were reopened.

    By default optuna-dashboard opens an uncached storage: at 1,000 trials a refresh then reads
    36,700 rows instead of 1,700. But Optuna's cache never reads a finished trial again, and
    optuna-dashboard itself keeps trials for some seconds, so both are replaced.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._reopenings: dict[int, int] = {}
        self._app: WsgiApp = wsgi(Binding(database).storage)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; called by several server threads at once."""
        asks_database = environ.get("PATH_INFO", "").startswith(("/api/", "/csv/"))
        app = self._refreshed() if asks_database else self._app
        return app(environ, start_response)

    def _refreshed(self) -> WsgiApp:
        with self._lock:
            # Read the counts of reopenings before the trials, so that the trials are at least as
            # new.
            with self._database.transaction() as connection:
                rows = connection.execute(sa.select(t.study.c.study_id, t.study.c.reopenings)).all()
            reopenings = {row.study_id: row.reopenings for row in rows}
            if reopenings != self._reopenings:
                self._app = wsgi(Binding(self._database).storage)
                self._reopenings = reopenings
            return self._app
