"""What stands before every page: this machine's names only, nothing but reading, safe headers.

optuna-dashboard has no login, no read-only mode and no Host check; one POST
changed a running trial's state.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""The Host headers that name this machine."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""For our own pages: no script and no style but from our own files, and no eval."""
OPTUNAS = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
"""For optuna-dashboard's pages, whose script writes styles into the page."""
SANDBOX = "sandbox; default-src 'none'"
"""For artifacts: an HTML file that somebody uploaded must not run in our origin."""
OPTUNAS_PATHS = ("/dashboard", "/static", "/api", "/artifacts", "/favicon.ico", "/csv")


class Guard:
    """An ASGI app that lets requests through to another one, or refuses them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = self._refusal(scope) or self._app
        await answer(scope, receive, _with_headers(scope, send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        # A script of another site may reach a loopback port through its own domain name
        # that resolves to 127.0.0.1 (DNS rebinding); the Host header still has that name.
        headers = Headers(scope=scope)
        if LOCAL.fullmatch(headers.get("host", "")) is None:
            return PlainTextResponse("Use the address http://localhost.\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse(
                "This dashboard is read-only.\n", 405, headers={"Allow": "GET, HEAD"}
            )
        if _embedded_elsewhere(headers):
            return PlainTextResponse("This is not served into pages of other sites.\n", 403)
        # No name has a NUL, and PostgreSQL takes none in a text.
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return PlainTextResponse("There is a NUL in this address.\n", 400)
        return None


def _embedded_elsewhere(headers: Headers) -> bool:
    """Say whether a page of another site asks for something behind its reader's back.

    It could not read the answer, but have it computed again and again. To follow a link is allowed.
    """
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return (
        headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"
    )


def _policy(path: str) -> str:
    if path.startswith("/artifacts"):
        return SANDBOX
    return OPTUNAS if path.startswith(OPTUNAS_PATHS) else OURS


def _with_headers(scope: Scope, send: Send) -> Send:
    """Return a way to send that adds the headers which keep other sites out."""

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            del headers["access-control-allow-origin"]
            for name, value in HEADERS.items():
                headers[name] = value
            if not scope["path"].startswith("/studies/"):
                del headers["content-security-policy"]
            # A report and a picture of ours bring a policy of their own, without any script.
            headers.setdefault("Content-Security-Policy", _policy(scope["path"]))
            headers.setdefault("Cache-Control", "no-store")
            message["headers"] = headers.raw
        await send(message)

    return send_safely
