"""A TCP proxy between a worker and PostgreSQL that tests can cut, stall, slow or close.

It knows enough of PostgreSQL's protocol to recognise a COMMIT, so that a connection can be cut
before the server receives it, or before the worker receives the answer.
"""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

COMMIT = b"COMMIT\x00"
CHUNK = 2**16
Cut = Literal["before", "after"]


@dataclass
class Pair:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    committing: bool = False
    """A COMMIT has passed; its answer will be dropped."""

    def cut(self) -> None:
        """Reset both sides at once, without a goodbye."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Wakes the other pump, which would stay in its recv after a close alone.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                end.close()


@dataclass
class Proxy:
    """Passes bytes to a server on this machine, unless a fault is set."""

    target: int | Path
    """The server's port, or its socket in the file system."""
    port: int = 0
    rate: float | None = None
    """The bandwidth to the server, in bytes per second over all connections."""
    delay: float = 0.0
    """Seconds that each piece of data waits before it is passed on."""
    commits: int = 0
    """COMMITs seen so far."""
    cut_at: dict[int, Cut] = field(default_factory=dict)
    """Which COMMIT, counted from 1, is cut, and on which side of the server."""
    cuts: int = 0
    _pairs: list[Pair] = field(default_factory=list)
    _flowing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _line: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket | None = None

    def open(self) -> "Proxy":
        """Listen, on the same port as before if there was one."""
        self._flowing.set()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def refuse(self) -> None:
        """Take no new connections and cut all there are: the server is unreachable."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.cut()

    def stall(self) -> None:
        """Keep all connections, and pass nothing on."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on what was held back, and everything new."""
        self._flowing.set()

    def close(self) -> None:
        """End the proxy."""
        self.flow()
        self.refuse()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = self._reach()
        except OSError:
            client.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = Pair(client, server)
        with self._lock:
            self._pairs.append(pair)
        for pump in (self._upwards, self._downwards):
            threading.Thread(target=pump, args=(pair,), daemon=True).start()

    def _reach(self) -> socket.socket:
        if isinstance(self.target, Path):
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.target))
            return server
        server = socket.create_connection(("127.0.0.1", self.target))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _upwards(self, pair: Pair) -> None:
        while data := self._received(pair.client):
            if self.rate is not None:
                with self._line:
                    time.sleep(len(data) / self.rate)
            if COMMIT in data:
                with self._lock:
                    self.commits += 1
                    wanted = self.cut_at.get(self.commits)
                if wanted == "before":
                    break
                pair.committing = wanted == "after"
            if not self._sent(pair.server, data):
                break
        self._end(pair)

    def _downwards(self, pair: Pair) -> None:
        while data := self._received(pair.server):
            # Whatever the server sends now is its answer to the commit.
            if pair.committing or not self._sent(pair.client, data):
                break
        self._end(pair)

    def _received(self, end: socket.socket) -> bytes:
        try:
            data = end.recv(CHUNK)
        except OSError:
            return b""
        time.sleep(self.delay)
        self._flowing.wait()
        return data

    def _sent(self, end: socket.socket, data: bytes) -> bool:
        try:
            end.sendall(data)
        except OSError:
            return False
        return True

    def _end(self, pair: Pair) -> None:
        with self._lock:
            first = pair in self._pairs
            if first:
                self._pairs.remove(pair)
                self.cuts += 1
        if first:
            pair.cut()
