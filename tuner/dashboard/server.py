"""Serving the dashboard on this machine."""

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa
from optuna_dashboard import wsgi
from waitress.server import create_server

from tuner.dashboard.guard import App, Environ, StartResponse, guarded
from tuner.errors import MachineError, UserError
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.optuna_storage import Binding

LOOPBACK = {
    "127.0.0.1": ("127.0.0.1",),
    "::1": ("::1",),
    # Both, because a browser may try either first. The name is not looked up: a hosts
    # file may map it to anything.
    "localhost": ("127.0.0.1", "::1"),
}
EVERYWHERE = "0.0.0.0"  # noqa: S104  # in a container, whose port is published on loopback only

FREE_PORTS_TRIED = 20
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors for ::1 on a machine without IPv6."""


def build(database: Database) -> App:
    """Return the dashboard's WSGI app over a storage that caches finished trials."""
    return guarded(_Current(database))


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
        self._app: App = wsgi(Binding(database).storage)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; called by several server threads at once."""
        asks_database = environ.get("PATH_INFO", "").startswith("/api/")
        app = self._refreshed() if asks_database else self._app
        return app(environ, start_response)

    def _refreshed(self) -> App:
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


def serve(
    database: Database, host: str, port: int, *, anywhere: bool, ready: Callable[[str], None]
) -> None:
    """Serve until interrupted; `ready` is called with the address once it listens."""
    if host not in LOOPBACK and not anywhere:
        raise UserError(
            f"--host {host} would expose the studies to the network, and there is no login yet. "
            "Use 127.0.0.1, and from another machine an SSH tunnel: "
            "ssh -L 8080:127.0.0.1:8080 MACHINE"
        )
    try:
        sockets = _listen((EVERYWHERE,) if anywhere else LOOPBACK[host], port)
    except OSError as error:
        raise MachineError(
            f"Port {port} of {host} cannot be used: {error.strerror}. Choose another with --port."
        ) from None
    server = create_server(build(database), sockets=sockets, threads=4)
    ready(f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}/")
    try:
        server.run()
    finally:
        server.close()


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on one port of all local addresses; port 0 chooses one that is free on all."""
    for _ in range(FREE_PORTS_TRIED):
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                # The first socket chooses the port, and the others must get the same one.
                chosen = sockets[0].getsockname()[1] if sockets else port
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                try:
                    sockets.append(socket.create_server((address, chosen), family=family))
                except OSError as error:
                    if error.errno not in NO_SUCH_ADDRESS or len(addresses) == 1:
                        raise
        except OSError as error:
            for opened in sockets:
                opened.close()
            # The port is free on the first address but taken on another.
            if port or error.errno != errno.EADDRINUSE:
                raise
        else:
            if sockets:
                return sockets
    raise OSError(errno.EADDRNOTAVAIL, "no port is free on all of its addresses")
