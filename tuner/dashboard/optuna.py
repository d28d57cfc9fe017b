"""optuna-dashboard over one cached storage, as an app beside our own pages."""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any, cast

import sqlalchemy as sa
from a2wsgi import WSGIMiddleware
from optuna_dashboard import wsgi
from starlette.types import ASGIApp

from tuner.dashboard.desk import Desk
from tuner.dashboard.optuna_note import Notes
from tuner.store import tables as t
from tuner.store.optuna_storage import Binding

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

THREADS = 4

WRITES = {
    ("POST", "/api/studies"): True,
    ("PUT", "/api/studies/<study_id:int>/note"): True,
    ("PUT", "/api/studies/<study_id:int>/<trial_id:int>/note"): True,
    ("POST", "/api/studies/<study_id:int>/preference"): True,
    ("PUT", "/api/studies/<study_id:int>/preference_feedback_component"): True,
    ("DELETE", "/api/studies/<study_id:int>/preference/<history_id>"): True,
    ("POST", "/api/studies/<study_id:int>/preference/<history_id>"): True,
    # These would change a study behind tuner's back: its name and trials have rows in both
    # schemas, and workers hold leases on them. `tuner delete` deletes all of it.
    ("POST", "/api/studies/<study_id:int>/rename"): False,
    ("DELETE", "/api/studies/<study_id:int>"): False,
    ("POST", "/api/trials/<trial_id:int>/tell"): False,
    ("POST", "/api/trials/<trial_id:int>/user-attrs"): False,
    ("POST", "/api/studies/<study_id:int>/<trial_id:int>/skip"): False,
    # There is no artifact store.
    ("POST", "/api/artifacts/<study_id:int>"): False,
    ("POST", "/api/artifacts/<study_id:int>/<trial_id:int>"): False,
    ("DELETE", "/api/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>"): False,
    ("DELETE", "/api/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>"): (
        False
    ),
}
"""Every route of optuna-dashboard that writes, and whether --allow-writes permits it."""


def _pattern(rule: str) -> str:
    kinds = {None: "[^/]+", "int": "[0-9]{1,9}"}
    parts = re.split(r"<\w+(?::(\w+))?>", rule)
    return "".join(kinds[part] if place % 2 else re.escape(part or "")
                   for place, part in enumerate(parts))  # fmt: skip


_OPEN = [
    (method, re.compile(_pattern(rule))) for (method, rule), opened in WRITES.items() if opened
]


def optuna_pages(desk: Desk) -> ASGIApp:
    """Return optuna-dashboard, unchanged, with our answers as notes of studies."""
    # The same protocol; only its types are stricter than ASGI's.
    return cast("ASGIApp", WSGIMiddleware(cast("Any", _Current(desk)), workers=THREADS))


def may_be_written(method: str, path: str) -> bool:
    """Return whether --allow-writes lets operators send this request.

    Routes that a new version of optuna-dashboard adds are refused until they are listed here.
    """
    return any(method == opened and rule.fullmatch(path) for opened, rule in _OPEN)


class _Current:
    """optuna-dashboard over a cached storage, replaced when ended trials were reopened.

    By default optuna-dashboard opens an uncached storage: at 1,000 trials a refresh then reads
    36,700 rows instead of 1,700. But Optuna's cache never reads a finished trial again, and
    optuna-dashboard itself keeps trials for some seconds, so both are replaced.
    """

    def __init__(self, desk: Desk) -> None:
        self._database = desk.database
        self._notes = Notes(desk)
        self._lock = threading.Lock()
        self._reopenings: dict[int, int] = {}
        self._app: WsgiApp = self._opened()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request; called by several threads at once."""
        path = environ.get("PATH_INFO", "")
        self._notes.look_at(path)
        asks_database = path.startswith(("/api/", "/csv/"))
        app = self._refreshed() if asks_database else self._app
        return app(environ, start_response)

    def _opened(self) -> WsgiApp:
        app: WsgiApp = wsgi(self._notes.added_to(Binding(self._database).storage))
        return app

    def _refreshed(self) -> WsgiApp:
        with self._lock:
            # Read the counts of reopenings before the trials, so that the trials are at least as
            # new.
            with self._database.transaction() as connection:
                rows = connection.execute(sa.select(t.study.c.study_id, t.study.c.reopenings)).all()
            reopenings = {row.study_id: row.reopenings for row in rows}
            if reopenings != self._reopenings:
                self._app = self._opened()
                self._reopenings = reopenings
            return self._app
