"""How a worker is asked to stop: once politely, twice at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """What signals, or the end of the parent, have asked for so far."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.count = 0
        self._since = 0.0
        self._event = threading.Event()

    def install(self) -> None:
        """Take SIGINT, SIGTERM and SIGHUP for this process; once only, on the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._take)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals for a while, then give them back to whoever had them.

        Python hears signals on its main thread only: on another one nothing is taken.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: a handler that was not set from Python, and cannot be set again.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def follow(self, descriptor: int) -> None:
        """Stop politely when the other end of a pipe is closed: the launcher has gone."""

        def wait() -> None:
            while os.read(descriptor, 1):
                pass
            if not self.asked:
                self._take(signal.SIGTERM, None)

        threading.Thread(target=wait, daemon=True).start()

    @property
    def asked(self) -> bool:
        """Whether the worker is to stop at the next good moment."""
        return self.count > 0

    @property
    def now(self) -> bool:
        """Whether the worker is to stop at once."""
        return self.count > 1

    @property
    def waited(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self._since if self.count else 0.0

    def pause(self, seconds: float) -> None:
        """Sleep, but wake at a request."""
        self._event.wait(seconds)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.count == 0:
            self._since = time.monotonic()
            self.signal = number
        self.count += 1
        self._event.set()
