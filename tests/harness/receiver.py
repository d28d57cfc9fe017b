"""A real HTTP server that receives notices, and answers as a test specifies."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Reply:
    """Return a handler that answers with a status."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return reply


@dataclass
class Receiver:
    """The received requests, and the answers to the next ones."""

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    """The replies in turn; after the last one, 200."""
    received: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Path, headers and body of each request."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over: waiting requests are released."""

    def bodies(self) -> list[Any]:
        """Return the notices."""
        return [body for _, _, body in self.received]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a port of this machine."""
    kept = Receiver()

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length))
            kept.received.append((self.path, dict(self.headers), body))
            (kept.replies.pop(0) if kept.replies else status(200))(self)

        def do_GET(self) -> None:
            kept.received.append((self.path, dict(self.headers), None))
            status(200)(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        kept.released.set()
        server.shutdown()
        server.server_close()
