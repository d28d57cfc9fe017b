"""A child process with a message channel: how a supervisor runs its trainer.

The child runs in its own session, so that Ctrl-C in a terminal reaches only the
supervisor. Its output goes to a file.
"""

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tuner.home import open_private
from tuner.processes import Process, Streams, kill_family
from tuner.work.messages import GarbledError, Message, TornError, receive, send

PRINTED_LIMIT = 2**20
"""At most this many bytes of output are read; a trainer may print without end."""
OUTSIDE = frozenset(
    {
        signal.SIGKILL,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
"""Signals sent by people, schedulers and the kernel; all others are due to faults of a program."""
GARBLED = "the trainer sent an invalid message"


class Child:
    """A running child process whose messages are received on a thread.

    `start` starts the process with the given streams.
    """

    def __init__(self, start: Callable[[Streams], Process], log: Path) -> None:
        self.log = log
        self.heard = time.monotonic()
        """When the last message arrived, by the monotonic clock."""
        self.garbled = False
        self.killed_by: signal.Signals | None = None
        """The signal from outside that ended the child; set by `death`."""
        self._killed = False
        self._why = ""
        """The reason for which we killed it, if one was given."""
        self._ended = threading.Event()
        """Set when the process has ended, even if others still hold its end of the channel."""
        ours, theirs = socket.socketpair()
        with (
            theirs,
            Path(os.devnull).open("rb") as nothing,
            os.fdopen(open_private(log, os.O_WRONLY | os.O_APPEND), "ab") as printed,
        ):
            out = printed.fileno()
            self._process = start(Streams(nothing.fileno(), out, out, theirs.fileno()))
        self._channel = ours
        self._messages: queue.Queue[Message | None] = queue.Queue()
        # A thread empties the channel even while the supervisor waits for the database,
        # so that a trainer never blocks on a full pipe.
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._await_end, daemon=True).start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message; if the child is gone, `next` and `gone` will show that."""
        try:
            send(self._channel, message)
        except OSError:
            return

    def next(self, timeout: float) -> Message | None:
        """Return the next message, or None if none arrived in time."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            self._messages.put(None)  # the end stays in the queue for the next caller
        return message

    @property
    def gone(self) -> bool:
        """Whether the child was killed, or has closed its channel and all messages were read."""
        # A killed child counts as gone at once: the listener may not have noticed yet, and the next
        # trial must not be sent to a dead child.
        if self._killed:
            return True
        with self._messages.mutex:
            waiting = list(self._messages.queue)
        return waiting[:1] == [None]

    def memory(self) -> int:
        """Return the resident memory of the child and its descendants, in bytes."""
        try:
            root = psutil.Process(self.pid)
            family = [root, *root.children(recursive=True)]
            return sum(process.memory_info().rss for process in family)
        except psutil.Error:
            return 0

    def wait(self, seconds: float) -> None:
        """Wait at most this long for the child to end by itself."""
        self._ended.wait(seconds)

    def kill(self, why: str = "") -> None:
        """Kill the child and its descendants; `death` then returns `why` as the reason."""
        self._killed = True
        self._why = self._why or why
        kill_family(self._process)
        self._process.wait()
        self._channel.close()

    def death(self) -> str:
        """Return how the child ended, with the same wording for the same cause."""
        if self.garbled:
            self.kill()
            return GARBLED
        if self._why:
            return self._why
        ended, killed_by_us = self._ended.wait(timeout=5), self._killed
        self.kill()  # including descendants that it left behind
        if not ended:
            return "the trainer closed its channel"
        code = self._process.wait()
        if not killed_by_us and -code in OUTSIDE:
            self.killed_by = signal.Signals(-code)
        return _death(code)

    def printed(self, start: int) -> str:
        """Return the last output of the child after a position in its log."""
        with self.log.open("rb") as printed:
            printed.seek(max(start, self.position() - PRINTED_LIMIT))
            return printed.read(PRINTED_LIMIT).decode(errors="replace")

    def position(self) -> int:
        """Return the current size of the log."""
        return self.log.stat().st_size

    def _listen(self) -> None:
        while True:
            try:
                message = receive(self._channel)
            except TornError:
                message = None
            except GarbledError:
                self.garbled, message = True, None
            except OSError:
                message = None
            self.heard = time.monotonic()
            self._messages.put(message)
            if message is None:
                return

    def _await_end(self) -> None:
        """Shut the channel down when the process ends.

        A process that the child forked (a data loader, say) keeps the channel open after the child
        was killed, so we would notice the child's end only when that process ends too. What the
        child sent is already in our end of the channel, and is read before this end of file.
        """
        self._process.wait_unreaped()
        self._ended.set()
        with contextlib.suppress(OSError):  # closed by kill()
            self._channel.shutdown(socket.SHUT_RD)


def _death(code: int) -> str:
    if code == -signal.SIGSEGV:
        return "the trainer crashed (SIGSEGV)"
    if code < 0:
        how = "killed from outside" if -code in OUTSIDE else "ended"
        return f"the trainer was {how} ({signal.Signals(-code).name})"
    return f"the trainer exited with code {code}"
