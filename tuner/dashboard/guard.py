"""A guard around optuna-dashboard: read-only, local host names only, safe headers.

optuna-dashboard has no login, no read-only mode and no Host check; one POST
changed a running trial's state.
"""

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
SANDBOX = ("Content-Security-Policy", "sandbox; default-src 'none'")
DROPPED = frozenset({"access-control-allow-origin", *(name.lower() for name, _ in HEADERS)})


def guarded(app: App) -> App:
    """Wrap the app so that it can only be read, and only under a local host name."""

    def guard(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # A script of another site may reach a loopback port through its own domain name
        # that resolves to 127.0.0.1 (DNS rebinding); the Host header still has that name.
        if _host_name(environ) not in LOCAL_NAMES:
            return _refuse(
                start_response, "421 Misdirected Request", "Use the address http://localhost."
            )
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start_response, "405 Method Not Allowed", "This dashboard is read-only.")
        return app(environ, _safe(environ, start_response))

    return guard


def _host_name(environ: Environ) -> str:
    host = str(environ.get("HTTP_HOST", "")).lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def _safe(environ: Environ, start_response: StartResponse) -> StartResponse:
    artifact = environ.get("PATH_INFO", "").startswith("/artifacts")

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() not in DROPPED]
        extra = [*HEADERS, SANDBOX] if artifact else HEADERS
        return start_response(status, kept + extra, *rest)

    return start


def _refuse(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *HEADERS]
    start_response(status, [*headers, ("Allow", "GET, HEAD")])
    return [body]
