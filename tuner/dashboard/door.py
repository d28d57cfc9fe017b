"""Authentication: how a request reached the dashboard, and who sent it."""

import asyncio
import ipaddress
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from tuner.dashboard.callers import Caller, form_key, same
from tuner.dashboard.peers import IPAddress, Peer, plain
from tuner.errors import UserError
from tuner.settings import person
from tuner.store import accounts
from tuner.store.accounts import Account
from tuner.store.database import Database

P = ParamSpec("P")
Value = TypeVar("Value")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PEER = "peer"
"""Where the server leaves the `Peer` of a connection in the state of its requests."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
PORT = re.compile(r":\d{1,5}")
FORWARDED = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|via")
"""Headers that say that a request has come through a proxy."""
THREADS = 5
"""At the door; the pool of a `Database` has as many connections."""
DEVICE_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class Access:
    """How the dashboard may be reached."""

    login: bool = False
    """Whether everybody must log in, even the user who started it."""
    hosts: frozenset[str] = frozenset()
    """Host names for it, besides those of this machine."""
    proxies: tuple[Network, ...] = ()
    """Proxies whose X-Forwarded headers are trusted."""
    https_only: bool = False
    """Whether requests must use HTTPS, to here or to the proxy."""
    writes: bool = False
    """Whether operators may write through optuna-dashboard."""
    base: str = ""
    """The path below which it is served, such as /tuner; "" for the root of a host."""

    def names(self, host: str) -> bool:
        """Return whether a Host header names this dashboard."""
        name = host.lower()
        port = PORT.search(name, name.rfind("]") + 1)
        if port is not None:
            if port.end() != len(name):
                return False
            name = name[: port.start()]
        return name in LOOPBACK_NAMES or name in self.hosts


@dataclass(frozen=True)
class Way:
    """How a request arrived."""

    address: str
    """The client's address, as far as proxies are trusted."""
    https: bool


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse the networks of proxies, as given on the command line."""
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise UserError(
            f"--trusted-proxy takes an IP address, or a network such as 10.0.0.0/8: {error}."
        ) from None


class Door:
    """Finds out how a request arrived and who sent it."""

    def __init__(self, database: Database, access: Access) -> None:
        # Separate threads and connections: slow pages may occupy all others, and logins must not
        # wait for them. No more threads than connections.
        self.database = Database(database.address)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="door")
        self.access = access
        # For the user who started the server, if the connection does not identify them: a printed
        # link, and the cookie that it sets. Both end with the server.
        self.link = secrets.token_urlsafe(32)
        self._owners_cookie = secrets.token_urlsafe(32)
        self._owner = Caller(person(), "operator", form_key(secrets.token_urlsafe(32)))

    def close(self) -> None:
        """Close its threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.database.close()

    async def in_thread(self, work: Callable[P, Value], *args: P.args, **more: P.kwargs) -> Value:
        """Run work that waits for the database or the kernel in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(work, *args, **more)
        )

    def way(self, scope: Scope) -> Way:
        """Return how a request arrived, according to trusted proxies' headers."""
        host, _port = scope.get("client") or ("", 0)
        https = scope.get("scheme") == "https"
        if not self._trusted(host):
            return Way(host, https)
        headers = Headers(scope=scope)
        hops = ",".join(headers.getlist("x-forwarded-for")).split(",")
        # Each proxy appends its client. Entries to the left of the last untrusted one may be
        # forged.
        for hop in reversed([_address(one) for one in hops if one.strip()]):
            host = hop
            if not self._trusted(hop):
                break
        proto = ",".join(headers.getlist("x-forwarded-proto")).rpartition(",")[2].strip().lower()
        return Way(host, proto == "https" if proto else https)

    async def caller(self, scope: Scope, *, touch: bool = True) -> Caller | None:
        """Return who sent a request; None if unknown.

        With `touch`, this counts as use of the session, which otherwise expires.
        """
        headers = Headers(scope=scope)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            # A wrong token is an error, even if other credentials are valid.
            return await self.in_thread(self._by_token, secret.strip())
        cookies = _cookies(headers)
        secret = cookies.get(self.cookie_name(scope, "session"), "")
        if secret and (caller := await self.in_thread(self._by_session, secret, touch)) is not None:
            return caller
        return self._owner if await self._is_owner(scope, headers, cookies) else None

    async def _is_owner(self, scope: Scope, headers: Headers, cookies: dict[str, str]) -> bool:
        if self.access.login:
            return False
        if same(cookies.get(self.cookie_name(scope, "owner"), ""), self._owners_cookie):
            return True
        # A proxy that runs as root or as this user connects on behalf of others.
        if any(FORWARDED.fullmatch(name) for name in headers):
            return False
        peer = scope.get("state", {}).get(PEER)
        if not isinstance(peer, Peer):
            return False
        if peer.known:
            return peer.is_owner
        # In a thread: with thousands of connections, the kernel's table is long.
        return await self.in_thread(lambda: peer.is_owner)

    def _by_token(self, secret: str) -> Caller | None:
        with self.database.transaction() as connection:
            token = accounts.token_by(connection, secret)
        return None if token is None else Caller(f"token {token.name}", token.role)

    def _by_session(self, secret: str, touch: bool) -> Caller | None:
        with self.database.transaction() as connection:
            account = accounts.session_account(connection, secret, touch=touch)
        if account is None:
            return None
        return Caller(account.name, account.role, form_key(secret), session=True)

    # Cookies

    def cookie_name(self, scope: Scope, kind: str) -> str:
        """Return the name of a cookie; over HTTPS, its prefix lets only this host set it."""
        # Browsers accept __Host- only with Secure and for exactly this host: neither a sibling
        # domain nor an attacker who answers http:// can plant one. Below a path, other programs
        # share the host, and it is more important not to send them the cookie: __Secure- keeps
        # out whoever answers http://, and allows a path.
        prefix = "__Secure-" if self.access.base else "__Host-"
        return f"{prefix if self.way(scope).https else ''}tuner-{kind}"

    def cookie(self, scope: Scope, kind: str) -> str:
        """Return the value of a cookie, or ""."""
        return _cookies(Headers(scope=scope)).get(self.cookie_name(scope, kind), "")

    def set_cookie(self, scope: Scope, answer: Response, kind: str, value: str) -> None:
        """Set a cookie; an empty value removes it."""
        lasting = kind == "device"
        answer.set_cookie(
            self.cookie_name(scope, kind),
            value,
            # Without an age, the cookie ends with the browser session.
            max_age=DEVICE_SECONDS if lasting else None if value else 0,
            path=self.access.base or "/",
            secure=self.way(scope).https,
            httponly=True,
            # Not Strict: a link in a mail would show the login page to somebody who is logged in.
            # Lax sends the cookie from other sites only with GET, which changes nothing.
            samesite="lax",
        )

    def let_in(self, scope: Scope, answer: Response, secret: str, account: Account) -> None:
        """Set the cookies of a session and of the device."""
        from tuner.dashboard.attempts import device_key

        self.set_cookie(scope, answer, "session", secret)
        self.set_cookie(scope, answer, "device", device_key(account))

    def let_owner_in(self, scope: Scope, answer: Response) -> None:
        """Set the cookie of the user who started the server."""
        self.set_cookie(scope, answer, "owner", self._owners_cookie)

    def _trusted(self, host: str) -> bool:
        try:
            address: IPAddress = plain(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            return False
        return any(address in network for network in self.access.proxies)


def _address(hop: str) -> str:
    """Return the address of a hop; some proxies append the client's port."""
    text = hop.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    # An IPv6 address without brackets has at least two colons.
    return text.partition(":")[0] if text.count(":") == 1 else text


def _cookies(headers: Headers) -> dict[str, str]:
    """Return a request's cookies; unreadable ones are left out."""
    return cookie_parser("; ".join(headers.getlist("cookie")))
