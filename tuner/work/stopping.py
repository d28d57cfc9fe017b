"""Requests to stop a worker: after the first it finishes its epoch, after the second it doesn't."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """The requests to stop received so far, by signals or by the end of the parent."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.count = 0
        self.lifetime_over = False
        """Whether the first request was the end of the worker's lifetime."""
        self._since = 0.0
        self._event = threading.Event()

    def install(self) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP from now on; call it once, on the main thread.

        A SIGHUP that is ignored stays so: `nohup` asks for that.
        """
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside this context, then restore the previous handlers.

        Python receives signals on its main thread only; on another thread this does nothing.
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
                # None: the handler was not set from Python and cannot be restored.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def follow(self, descriptor: int, hear: Callable[[int], None] = lambda _: None) -> None:
        """Request a stop when the other end of a pipe is closed, because the launcher is gone.

        Until then `hear` is called with every byte that the launcher writes.
        """

        def wait() -> None:
            while said := os.read(descriptor, 1):
                hear(said[0])
            if not self.asked:
                self._take(signal.SIGTERM, None)

        threading.Thread(target=wait, daemon=True).start()

    def after(self, seconds: float) -> None:
        """Request a stop at the end of a lifetime, unless one was requested before."""

        def end() -> None:
            # The flag first, because readers of the request look at it at once. A signal in
            # between turns one request into two: the worker leaves without finishing its epoch,
            # but still gives its trial back.
            if not self.asked:
                self.lifetime_over = True
                self._take(None, None)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()

    @property
    def asked(self) -> bool:
        """Whether the worker should stop after its current epoch."""
        return self.count > 0

    @property
    def now(self) -> bool:
        """Whether the worker should stop at once."""
        return self.count > 1

    @property
    def waited(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self._since if self.count else 0.0

    def pause(self, seconds: float) -> None:
        """Sleep, but wake up at a request."""
        self._event.wait(seconds)

    def _take(self, number: int | None, _frame: FrameType | None) -> None:
        # The end of a lifetime does not count as a first signal: a batch system that sends one as a
        # warning before its time limit does not mean "at once".
        first = self.count == 0 or (self.lifetime_over and self.signal is None)
        if first:
            self._since = time.monotonic()
            self.signal = number
        self.count = 1 if first else self.count + 1
        self._event.set()
