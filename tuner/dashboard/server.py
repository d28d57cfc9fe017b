"""Serving the dashboard on this machine."""

from collections.abc import Callable

from optuna_dashboard import wsgi
from waitress.server import create_server

from tuner.dashboard.guard import App, guarded
from tuner.errors import MachineError, UserError
from tuner.store.database import Database
from tuner.store.optuna_storage import Binding

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
EVERYWHERE = "0.0.0.0"  # noqa: S104  # in a container, whose port is published on loopback only


def build(database: Database) -> App:
    """Return the dashboard's WSGI app over a storage that keeps finished trials in memory."""
    # By itself optuna-dashboard opens an uncached storage: at 1,000 trials a
    # refresh then reads 36,700 rows instead of 1,700.
    return guarded(wsgi(Binding(database).storage))


def serve(
    database: Database, host: str, port: int, *, anywhere: bool, ready: Callable[[str], None]
) -> None:
    """Serve until interrupted; `ready` is called with the address once it listens."""
    if host not in LOOPBACK and not anywhere:
        raise UserError(
            f"--host {host} would show the studies to the network, and there is no login yet. "
            "Use 127.0.0.1, and an SSH tunnel from elsewhere: ssh -L 8080:127.0.0.1:8080 MACHINE"
        )
    try:
        server = create_server(
            build(database), host=EVERYWHERE if anywhere else host, port=port, threads=4
        )
    except OSError as error:
        raise MachineError(
            f"Port {port} of {host} cannot be used: {error.strerror}. Choose another with --port."
        ) from None
    port = server.effective_port  # type: ignore[union-attr]  # one socket, so one port
    ready(f"http://{host}:{port}/")
    try:
        server.run()
    finally:
        server.close()
