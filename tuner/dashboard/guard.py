"""What stands before every page: this machine's names only, nothing but reading, safe headers.

optuna-dashboard has no login, no read-only mode and no Host check; one POST
changed a running trial's state.
"""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

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

    def __init__(self, app: ASGIApp, names: Collection[str] = LOCAL_NAMES) -> None:
        self._app = app
        self._names = frozenset(names)

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
        if host_name(Headers(scope=scope).get("host", "")) not in self._names:
            return PlainTextResponse("Use the address http://localhost.\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse(
                "This dashboard is read-only.\n", 405, headers={"Allow": "GET, HEAD"}
            )
        return None


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    host = host.lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


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
