"""Serving the dashboard on this machine."""

import errno
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from tuner.dashboard.app import build
from tuner.dashboard.desk import Desk
from tuner.errors import MachineError, UserError
from tuner.store.database import Database

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
    desk = Desk(database)
    config = uvicorn.Config(
        build(desk),
        log_level="warning",
        access_log=False,
        server_header=False,
        # Open pages have streams that never end by themselves.
        timeout_graceful_shutdown=1,
    )
    ready(f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}/")
    try:
        _Server(config, desk).run(sockets=sockets)
    finally:
        for opened in sockets:
            opened.close()


class _Server(uvicorn.Server):
    """A server that ends the streams of open pages when it is told to stop."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; called by a signal, in the thread of the event loop."""
        self._desk.announcements.close()
        super().handle_exit(sig, frame)


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
