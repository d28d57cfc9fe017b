"""A child process with a message channel: how a supervisor holds its trainer.

The child runs in a session of its own, so that Ctrl-C in a terminal reaches
the supervisor alone. What it prints goes to a file.
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
"""Bytes of output that are read at once; a trainer may print without end."""
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
"""Signals that people, schedulers and the kernel send; the others are a program's own faults."""
GARBLED = "the trainer sent an invalid message"


class Child:
    """A running child; its messages arrive on a thread, whether anyone waits for them or not.

    `start` starts it, with these streams.
    """

    def __init__(self, start: Callable[[Streams], Process], log: Path) -> None:
        self.log = log
        self.heard = time.monotonic()
        """When the last message came, by the monotonic clock."""
        self.garbled = False
        self.killed_by: signal.Signals | None = None
        """The signal by which somebody else ended the child, once `death` was asked."""
        self._killed = False
        self._why = ""
        """Why we killed it, if there is more to say than that."""
        self._ended = threading.Event()
        """Whether the process has ended, whoever else holds its end of the channel."""
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
        # A thread empties the channel even while the supervisor waits for the
        # database: a trainer never waits for a full pipe.
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._await_end, daemon=True).start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message; a child that is gone is noticed when its silence is read."""
        try:
            send(self._channel, message)
        except OSError:
            return

    def next(self, timeout: float) -> Message | None:
        """Return the next message, or None if none came in time."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            self._messages.put(None)  # gone stays gone, for whoever asks next
        return message

    @property
    def gone(self) -> bool:
        """Whether the child was killed, or has closed its channel and all of it was read."""
        # Killed is gone at once: the listener may not have noticed yet, and the
        # next trial must not be given to a dead child.
        if self._killed:
            return True
        with self._messages.mutex:
            waiting = list(self._messages.queue)
        return waiting[:1] == [None]

    def memory(self) -> int:
        """Return the resident memory of the child and all it started, in bytes."""
        try:
            root = psutil.Process(self.pid)
            family = [root, *root.children(recursive=True)]
            return sum(process.memory_info().rss for process in family)
        except psutil.Error:
            return 0

    def wait(self, seconds: float) -> None:
        """Wait for the child to end by itself, for so long at most."""
        self._ended.wait(seconds)

    def kill(self, why: str = "") -> None:
        """End the child and all it started, at once; `why` is told to whoever asks how it ended."""
        self._killed = True
        self._why = self._why or why
        kill_family(self._process)
        self._process.wait()
        self._channel.close()

    def death(self) -> str:
        """Say how the child ended, in words that are equal for equal causes."""
        if self.garbled:
            self.kill()
            return GARBLED
        if self._why:
            return self._why
        ended, killed_by_us = self._ended.wait(timeout=5), self._killed
        self.kill()  # and all that it has left behind
        if not ended:
            return "the trainer closed its channel"
        code = self._process.wait()
        if not killed_by_us and -code in OUTSIDE:
            self.killed_by = signal.Signals(-code)
        return _death(code)

    def printed(self, start: int) -> str:
        """Return the end of what the child printed since a position in its log."""
        with self.log.open("rb") as printed:
            printed.seek(max(start, self.position() - PRINTED_LIMIT))
            return printed.read(PRINTED_LIMIT).decode(errors="replace")

    def position(self) -> int:
        """Return the end of the log as it is now."""
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
        """End the channel when the process ends.

        A process that the child forked (a loader of data, say) holds the channel
        open after the child was killed, and its end would be noticed only with
        that one's. What the child sent lies in our end of the channel already,
        and is read before the end that this puts behind it.
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
