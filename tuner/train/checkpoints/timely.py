"""Deadlines for every call to a place of checkpoints.

A place may fail when it is opened, or never answer. Either costs the checkpoints, but never a
training or a command: each call runs on its own thread and is given up after a while.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from tuner.errors import MachineError, TunerError
from tuner.text import masked
from tuner.train.checkpoints.location import open_place
from tuner.train.checkpoints.place import CheckpointPlace, StoredFile
from tuner.train.checkpoints.tree import Stored, Tree

LOOKUP_SECONDS = 60.0
"""How long a training waits for its stored prefix, or for a place to open."""
TICK_SECONDS = 0.2
READ_AT_ONCE = 100
"""How many small files are read in one call; more might take longer than the deadline."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SilentError(MachineError):
    """A place did not answer in time."""


def timely(work: Callable[[], T], seconds: float, alive: Callable[[], None]) -> T:
    """Return the result of `work`, or raise SilentError if it takes longer than this.

    `alive` is called meanwhile. Work that is given up continues on its thread, and its
    result is dropped.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        # Any exception is re-raised in the waiting thread.
        except BaseException as error:  # noqa: BLE001
            answers.put((None, error))

    threading.Thread(target=run, name="checkpoints-lookup", daemon=True).start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer, error = answers.get(timeout=TICK_SECONDS)
        except queue.Empty:
            alive()
            if time.monotonic() >= deadline:
                raise SilentError(f"no answer within {seconds:g} s") from None
            continue
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]  # None only where T allows it


def opened(location: str, seconds: float, alive: Callable[[], None] = lambda: None) -> Tree:
    """Open a place, or raise a TunerError that names it."""
    try:
        return timely(lambda: Tree(location), seconds, alive)
    except SilentError as error:
        place = masked(location)
        raise MachineError(
            f"checkpoints at {place} cannot be opened: {error}. Check the address and the network."
        ) from None


class TimelyPlace:
    """A place with a deadline for each answer; a missed deadline raises SilentError.

    The deadline holds per call: a healthy place with many checkpoints may take longer in total.
    """

    def __init__(self, location: str, seconds: float) -> None:
        self.name = masked(location)
        self._seconds = seconds
        self._place: CheckpointPlace = self._asked(lambda: open_place(location))

    def write(self, name: str, content: bytes) -> None:
        """Store a file atomically."""
        self._asked(lambda: self._place.write(name, content))

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        return self._asked(lambda: self._place.read(name))

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist."""
        contents: dict[str, bytes] = {}
        for start in range(0, len(names), READ_AT_ONCE):
            some = names[start : start + READ_AT_ONCE]
            contents |= self._asked(partial(self._place.read_many, some))
        return contents

    def files(self, folder: str = "") -> list[StoredFile]:
        """List the files of one folder, without those of subfolders."""
        return self._asked(lambda: self._place.files(folder))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are no error."""
        for name in names:
            self._asked(partial(self._place.remove, [name]))

    def touch(self, name: str) -> None:
        """Record that a file was used, if the place can."""
        self._asked(lambda: self._place.touch(name))

    def now(self) -> float:
        """Return the time by the clock that dates the files."""
        return self._asked(self._place.now)

    def _asked(self, work: Callable[[], T]) -> T:
        try:
            return timely(work, self._seconds, lambda: None)
        except SilentError as error:
            raise SilentError(
                f"checkpoints at {self.name} cannot be reached: {error}. "
                "Check the address and the network."
            ) from None


class Lookups:
    """A tree for use by a training: after a missed deadline it is not asked again."""

    def __init__(
        self, tree: Tree, alive: Callable[[], None] = lambda: None, seconds: float = LOOKUP_SECONDS
    ) -> None:
        self._tree = tree
        self._alive = alive
        self._seconds = seconds
        self._silent = threading.Event()

    def heard_by(self, alive: Callable[[], None]) -> None:
        """Call `alive` during look-ups from now on."""
        self._alive = alive

    def longest(self, path: Sequence[str]) -> Stored | None:
        """Return the longest sound stored prefix of a path; None if there is no timely answer."""
        if not path:
            return None
        return self._asked(lambda: self._tree.longest(path), self._seconds)

    def known(self, keys: Sequence[str], seconds: float) -> set[str]:
        """Return those of the keys that are stored; none if there is no timely answer."""
        return self._asked(lambda: self._tree.known(keys), seconds) or set()

    def remove(self, keys: Sequence[str], owner: dict[str, str]) -> None:
        """Remove checkpoints of a trial; a failure only costs disk space."""
        self._asked(lambda: self._tree.remove(keys, owner), self._seconds)

    def condemn(self, key: str, why: str) -> None:
        """Warn once that a stored checkpoint cannot be used, and why."""
        self._tree.condemn(key, why)

    def _asked(self, work: Callable[[], T], seconds: float) -> T | None:
        if self._silent.is_set():
            return None
        self._silent.set()

        def answered() -> T:
            try:
                return work()
            finally:
                # Even if the caller has given up: the place answers, so ask it again from now on.
                self._silent.clear()

        try:
            return timely(answered, seconds, self._alive)
        except TunerError as error:
            logger.warning(
                "Checkpoints at %s are not used: %s. Training continues without them.",
                self._tree.name,
                str(error).rstrip("."),
            )
            return None
