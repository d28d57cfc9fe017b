"""Serving the dashboard: addresses, TLS, time limits, and the links printed at the start."""

import asyncio
import errno
import importlib
import ipaddress
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tuner.dashboard import ahead
from tuner.dashboard.app import build
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import PEER, Access, Door, networks
from tuner.dashboard.pages.actions import Delete
from tuner.dashboard.paths import checked_base
from tuner.dashboard.peers import End, Peer, can_tell
from tuner.errors import MachineError, UserError
from tuner.settings import Settings
from tuner.store import accounts
from tuner.store.database import Database

LOOPBACK = {
    "127.0.0.1": ("127.0.0.1",),
    "::1": ("::1",),
    # Both, because a browser may try either first. The name is not resolved: a hosts
    # file may map it to anything.
    "localhost": ("127.0.0.1", "::1"),
}

FREE_PORTS_TRIED = 20
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors for ::1 on a machine without IPv6."""
SWITCH_SECONDS = 0.0005
"""The interpreter's switch interval. A page waits for it after each of its SQL statements; with
Python's default of 5 ms, an answer computed at the same time would make a page of twenty
statements 0.1 s slower."""
REQUEST_SECONDS = 30.0
"""Seconds from a request's first byte within which it must be complete, or it is dropped."""


@dataclass(frozen=True)
class Site:
    """Where and how the dashboard is served: the options of the command line."""

    host: str = "127.0.0.1"
    port: int = 8080
    names: tuple[str, ...] = ()
    """Host names for it, besides those of this machine."""
    proxies: tuple[str, ...] = ()
    certificate: Path | None = None
    certificate_key: Path | None = None
    insecure_http: bool = False
    writes: bool = False
    first_user: str | None = None
    """An operator to add, with a link, while nobody can log in yet."""
    with_key: bool = False
    """Whether to print a link that logs in whoever opens it."""
    base: str = ""
    """The path below which it is served; a proxy passes it on unchanged."""
    objectives: tuple[Path, ...] = ()
    """Folders of objectives, whose code may read a study's images."""

    @property
    def local(self) -> bool:
        """Whether the user who starts it has access on this machine without a login.

        A base path means that there is a proxy. One that runs as that user, or as root,
        and adds no header (nginx's plain `proxy_pass`, socat) makes its visitors look like them.
        """
        behind_proxy = bool(self.proxies or checked_base(self.base))
        return self.host in LOOPBACK and not self.names and not behind_proxy

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses it listens on."""
        if self.host in LOOPBACK:
            return LOOPBACK[self.host]
        try:
            return (str(ipaddress.ip_address(self.host)),)
        except ValueError:
            raise UserError(
                f"--host {self.host} is not an IP address of this machine; 0.0.0.0 is all of them. "
                "The name that browsers use is --allow-host."
            ) from None

    @property
    def access(self) -> Access:
        """How it may be reached; raises UserError if that would not be safe."""
        encrypted = self.certificate is not None or bool(self.proxies)
        if self.host not in LOOPBACK and not encrypted and not self.insecure_http:
            raise UserError(
                f"--host {self.host} would send passwords and studies over the network in plain "
                "text. Give a certificate (--tls-cert, --tls-key), or the address of the proxy "
                "that has one (--trusted-proxy), or --insecure-http if something else protects "
                "the connection. From another machine an SSH tunnel needs none of them: "
                "ssh -L 8080:127.0.0.1:8080 MACHINE"
            )
        addresses = [
            address
            for address in self.addresses
            if not ipaddress.ip_address(address).is_unspecified
        ]
        own = {f"[{address}]" if ":" in address else address for address in addresses}
        return Access(
            login=not self.local,
            hosts=frozenset(name.lower() for name in self.names) | own,
            proxies=networks(self.proxies),
            https_only=not self.local and encrypted and not self.insecure_http,
            writes=self.writes,
            base=checked_base(self.base),
        )


def serve(
    settings: Settings,
    database: Database,
    site: Site,
    delete: Delete,
    ready: Callable[[Sequence[str]], None],
) -> None:
    """Serve until interrupted; `ready` gets the lines to print once it listens."""
    access = site.access
    sys.setswitchinterval(SWITCH_SECONDS)
    importlib.import_module("scipy.special")  # so that the first answer does not wait for it
    encryption = _encryption(site)
    first = None if site.local else _first_link(database, site)
    try:
        sockets = _listen(site.addresses, site.port)
    except OSError as error:
        raise MachineError(
            f"Port {site.port} of {site.host} cannot be used: {error.strerror}. Choose another "
            "with --port."
        ) from None
    desk = Desk(database, settings, site.objectives)
    door = Door(database, access)
    config = uvicorn.Config(
        _Quiet(build(desk, door, delete), desk),
        http=_Connection,
        log_level="warning",
        # Its log records use this program's handlers and format.
        log_config=None,
        access_log=False,
        server_header=False,
        # The guard handles trusted proxies; uvicorn on its own would trust any local program.
        proxy_headers=False,
        ws="none",
        # Open pages have streams that never end on their own.
        timeout_graceful_shutdown=1,
        **encryption,
    )
    ready(_lines(site, door, sockets[0].getsockname()[1], first))
    ahead.begin(desk)
    try:
        _Server(config, desk).run(sockets=sockets)
    finally:
        for opened in sockets:
            opened.close()


def _encryption(site: Site) -> dict[str, Any]:
    if site.certificate is None:
        if site.certificate_key is not None:
            raise UserError("--tls-key needs --tls-cert with the certificate that it belongs to.")
        return {}
    try:
        key = site.certificate_key
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(site.certificate, key)
    except OSError as error:  # also what ssl raises
        raise UserError(
            f"The certificate {site.certificate} cannot be used: {error}. --tls-cert is a PEM "
            "file with the certificate and those that signed it, --tls-key its private key "
            "without a passphrase."
        ) from None
    return {"ssl_certfile": site.certificate, "ssl_keyfile": site.certificate_key}


def _first_link(database: Database, site: Site) -> str | None:
    """Ensure that somebody can log in; if nobody can, return a link for the first operator."""
    with database.transaction() as connection:
        if any(account.password for account in accounts.listing(connection)):
            return None
        if site.first_user is None:
            raise UserError(
                "Nobody can log in yet, and a dashboard that others can reach needs a login. Add "
                "a user first:\n  tuner dashboard user add NAME --role operator"
            )
        account = accounts.find_or_none(connection, site.first_user)
        if account is None:
            account = accounts.add(connection, site.first_user, "operator", None)
        # If the first user existed as a reader, nobody could act.
        accounts.set_role(connection, account, "operator")
        return accounts.add_link(connection, account)


def _lines(site: Site, door: Door, port: int, first: str | None) -> list[str]:
    scheme = "https" if site.certificate else "http"
    host = "127.0.0.1" if ipaddress.ip_address(site.addresses[0]).is_unspecified else site.host
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    if site.names and site.proxies:
        url = f"https://{site.names[0]}"  # the proxy's port is not ours
    elif site.names:
        url = f"{scheme}://{site.names[0]}:{port}"
    url += door.access.base
    lines = [f"{url}/  (press Ctrl-C to stop)"]
    if first is not None:
        lines.append(
            f"Nobody can log in yet. {site.first_user} chooses a password here, within 24 hours:\n"
            f"  {url}/link/{first}"
        )
    if site.local and (site.with_key or not can_tell()):
        lines.append(
            "Anyone with this link has access without a login until the dashboard stops. "
            f"Keep it private:\n  {url}/key/{door.link}"
        )
    return lines


class _Connection(H11Protocol):
    """A connection that knows both its ends, and has a time limit for requests.

    uvicorn waits for ever for a request that is never completed.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        if self.client and self.server and self.server[1] is not None:
            peer = Peer(End.of(*self.client), End.of(self.server[0], self.server[1]))
            # A separate state, of which each request gets a copy.
            self.app_state = {**self.app_state, PEER: peer}
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Handle received data, and start the time limit if a request is incomplete."""
        super().data_received(data)
        if self.conn.their_state in {h11.IDLE, h11.SEND_BODY}:
            self._expect()
        else:
            self._unexpect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._unexpect()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _unexpect(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Quiet:
    """An ASGI app whose requests may be cut off when the server stops.

    After a second of grace, uvicorn cancels requests in progress, and logs the traceback of the
    cancellation as an error of the app.
    """

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # The server ends its lifespan itself, in order.
            if not self._desk.stopping or scope["type"] == "lifespan":
                raise


class _Server(uvicorn.Server):
    """A server that ends the streams of open pages when it stops."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; called on a signal, in the thread of the event loop."""
        self._desk.stopping = True
        self._desk.announcements.close()
        super().handle_exit(sig, frame)


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on the same port of all addresses; port 0 chooses one that is free on all."""
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
