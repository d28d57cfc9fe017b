"""Access control in front of every page: who is let in, what they may do, and safe headers.

optuna-dashboard has no login, no read-only mode and no Host check; one POST could
change a running trial's state.

    Host ── HTTPS where it must be ── not embedded elsewhere ── who is it? ── may they? ──> page
"""

import asyncio
import re
from collections.abc import Callable
from urllib.parse import quote, urlencode

from psycopg2 import Error as DriverError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.dashboard.callers import Caller
from tuner.dashboard.door import Door
from tuner.dashboard.optuna import may_be_written
from tuner.dashboard.paths import below, serving_below, without_base

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer, under which browsers send forms with the header "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""For our own pages: scripts and styles only from our own files, and no eval."""
OPTUNAS = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
"""For optuna-dashboard's pages, whose scripts insert styles."""
SANDBOX = "sandbox; default-src 'none'"
"""For artifacts: an uploaded HTML file must not run in our origin."""
OPTUNAS_PATHS = ("/dashboard", "/static", "/api", "/artifacts", "/favicon.ico", "/csv")

LOGIN = "/login"
# Whole paths: whatever our routes do not match goes to optuna-dashboard.
PUBLIC = re.compile(r"/login|/(link|key)/[^/]+")
"""Paths that need no login."""
OUR_WRITES = re.compile(r"/login|/logout|/account|/link/[^/]+|/studies/[^/]+/actions/[^/]+")
"""Paths of our own pages that accept POST; no others do."""
OWN = ("/logout", "/account")
"""Paths that affect only the sender, so readers may post to them, too."""
DATA = (".json", ".csv", ".svg")
METRICS = "/metrics"
READING = ("GET", "HEAD")

BODY_MOST = 1 << 20
"""The most bytes of a request's body: forms and notes."""
BODY_SECONDS = 20.0


class Guard:
    """An ASGI app that passes requests on to another one, or refuses them."""

    def __init__(
        self, app: ASGIApp, door: Door, explain: Callable[[Request, Exception], Response]
    ) -> None:
        self._app = app
        self._door = door
        self._explain = explain
        """Renders database errors as a page."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        base = self._door.access.base
        inside = without_base(scope, base)
        send = _with_headers(inside or scope, base, send)
        with serving_below(base):
            if inside is None:
                await (self._refusal(scope) or _outside(scope, base))(scope, receive, send)
            else:
                await self._inside(inside, receive, send)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request by its path below the base."""
        scope.setdefault("state", {})
        refusal = self._refusal(scope) or await self._unwelcome(scope)
        if refusal is None and scope["method"] not in READING:
            body = await _whole_body(receive)
            refusal = body if isinstance(body, Response) else None
            receive = _replay(body, receive) if isinstance(body, bytes) else receive
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Refuse requests that nobody may send."""
        # A script of another site may reach this server through its own domain name that
        # resolves to our address (DNS rebinding); the Host header still has that name.
        headers = Headers(scope=scope)
        access = self._door.access
        if not access.names(headers.get("host", "")):
            return _refuse(
                "This dashboard does not serve that host name. Use http://localhost, or start it "
                "with --allow-host NAME.",
                421,
            )
        if access.https_only and not self._door.way(scope).https:
            return _refuse("This dashboard is reached by https:// only.", 403)
        if _embedded_elsewhere(headers):
            return _refuse("Requests from pages of other sites are refused.", 403)
        # PostgreSQL's texts cannot contain NUL, and no name does.
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return _refuse("There is a NUL in this address.", 400)
        if scope["method"] not in READING and not self._is_written(scope):
            text = "Nothing can be changed here."
            return PlainTextResponse(f"{text}\n", 405, headers={"Allow": "GET, HEAD"})
        return None

    def _is_written(self, scope: Scope) -> bool:
        """Return whether this address accepts POST at all."""
        path, method = scope["path"], scope["method"]
        if method == "POST" and OUR_WRITES.fullmatch(path):
            return True
        return self._door.access.writes and may_be_written(method, path)

    async def _unwelcome(self, scope: Scope) -> Response | None:
        """Authenticate the sender; refuse unknown senders and those who may not do this."""
        path = scope["path"]
        if path.startswith("/assets/"):  # the same for everybody
            scope["state"]["caller"] = None
            return None
        try:
            caller = await self._door.caller(scope, touch=_is_navigation(Headers(scope=scope)))
        except (DBAPIError, DriverError, PoolTimeoutError) as error:
            return self._explain(Request(scope), error)
        scope["state"]["caller"] = caller
        if scope["method"] not in READING and not self._comes_from_here(scope, caller):
            return _refuse("This request came from a page of another site and was refused.", 403)
        if PUBLIC.fullmatch(path):
            return None
        if caller is None:
            return _login_first(scope)
        if scope["method"] not in READING and path not in OWN and not caller.acts:
            return _refuse("You have read-only access. Ask an operator to make changes.", 403)
        return None

    def _comes_from_here(self, scope: Scope, caller: Caller | None) -> bool:
        """Return whether this came from one of our pages, or from a script with an API token."""
        headers = Headers(scope=scope)
        if caller is not None and not caller.form_key:
            return True  # browsers do not send tokens on their own
        origin = headers.get("origin")
        if origin is not None:
            scheme = "https" if self._door.way(scope).https else "http"
            return origin.lower() == f"{scheme}://{headers.get('host', '')}".lower()
        # All current browsers send at least one of the two with requests other than GET.
        return headers.get("sec-fetch-site") == "same-origin"


def _refuse(text: str, code: int) -> Response:
    return PlainTextResponse(f"{text}\n", code)


def _login_first(scope: Scope) -> Response:
    """Redirect an unknown person to the login; answer a program with 401."""
    path, headers = scope["path"], Headers(scope=scope)
    query = scope["query_string"].decode("latin-1")
    is_part = "part=" in query
    is_page = (
        scope["method"] in READING
        and not path.endswith(DATA)
        # A scraper would follow a redirect and fail to parse the login page.
        and path not in ("/events", METRICS)
    )
    if not is_page or is_part or path.startswith("/api/") or "authorization" in headers:
        # A page whose session has ended requests a part: the 401 makes it reload as a whole.
        more = {"HX-Refresh": "true"} if is_part else {"WWW-Authenticate": "Bearer"}
        return JSONResponse({"error": "Log in first, or send a valid token."}, 401, headers=more)
    address = quote(path) + (f"?{query}" if query else "")
    return RedirectResponse(below(f"{LOGIN}?{urlencode({'next': address})}"), 303)


async def _whole_body(receive: Receive) -> bytes | Response:
    """Read the whole body before anything waits for it, with limits on size and time.

    Otherwise, a slowly sent body would block one of optuna-dashboard's few threads.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return _refuse("The connection was closed.", 400)
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > BODY_MOST:
                    return _refuse("That is too large.", 413)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        return PlainTextResponse("That took too long.\n", 408, headers={"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that replays a body that was read already."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _embedded_elsewhere(headers: Headers) -> bool:
    """Return whether another site's page makes this request without a navigation by the user.

    It could not read the answer, but could make us compute it again and again. Links are allowed.
    """
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return (
        headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"
    )


def _is_navigation(headers: Headers) -> bool:
    """Return whether a person navigated to a page, which keeps their session alive.

    Open tabs request parts, curves and streams on their own while a study changes. These requests
    do not keep a session alive: one left open on a shared computer would otherwise never end.
    """
    mode = headers.get("sec-fetch-mode")
    if mode is not None:
        return mode == "navigate"
    # Browsers do not send Sec-Fetch headers to http:// addresses of other machines.
    return "text/html" in headers.get("accept", "") and "hx-request" not in headers


def _outside(scope: Scope, base: str) -> Response:
    """Answer a request for a path that is not below the base."""
    if scope["path"] in ("/", base):
        return RedirectResponse(f"{base}/", 303)
    return _refuse(f"This dashboard is served below {base}/.", 404)


def _policy(path: str, base: str) -> str:
    if path.startswith("/artifacts"):
        return SANDBOX
    # Below a path, optuna-dashboard is not served.
    return OPTUNAS if path.startswith(OPTUNAS_PATHS) and not base else OURS


def _with_headers(scope: Scope, base: str, send: Send) -> Send:
    """Return a `send` that adds security headers."""

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            del headers["access-control-allow-origin"]
            for name, value in HEADERS.items():
                headers[name] = value
            if not scope["path"].startswith("/studies/"):
                del headers["content-security-policy"]
            # Reports and pictures have their own policy, which allows no scripts.
            headers.setdefault("Content-Security-Policy", _policy(scope["path"], base))
            headers.setdefault("Cache-Control", "no-store")
            message["headers"] = headers.raw
        await send(message)

    return send_safely
