"""What was read or computed for one page serves all pages, until the study changes.

Twenty tabs that look at a running study ask for the same things at the same moment: each is
computed once. What takes long (verdicts over all predictions) is shown as it was while a newer one
is computed.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tuner.errors import UserError

Value = TypeVar("Value")

logger = logging.getLogger(__name__)

REST = 4.0
"""A value is computed again at most every so many times what it took: a study that changes all the
time must not keep a processor busy."""


@dataclass(frozen=True)
class Kept(Generic[Value]):
    """A value, and whether it is that of the version which was asked for."""

    value: Value
    current: bool


@dataclass(frozen=True)
class _Result:
    """What came of a computation; replaced as a whole, so that readers need no lock."""

    version: Hashable
    value: Any
    error: Exception | None
    took: float
    ended: float

    def given(self) -> Any:
        """Return the value, or raise what was raised in its place."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass
class _Place:
    """One question with its last result, and the computation under way."""

    lock: threading.Lock
    result: _Result | None = None
    running: "Future[None] | None" = None


class Shelf:
    """Values by question, each with the version that it was computed from."""

    def __init__(self, most: int, threads: int = 1) -> None:
        self._most = most
        """How many values are kept; the one that was asked for least recently goes first."""
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answers")

    def close(self) -> None:
        """Begin nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def fresh(self, question: Hashable, version: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value for a version, computed now if need be; by one thread for all."""
        place = self._place(question)
        with place.lock:
            result = place.result
            if result is None or result.version != version:
                result = place.result = _computed(version, compute)
        value: Value = result.given()
        return value

    def recent(
        self,
        question: Hashable,
        version: Hashable,
        compute: Callable[[], Value],
        *,
        patience: float,
        ready: Callable[[], None],
    ) -> Kept[Value] | None:
        """Return the value for a version or, while that is computed, an older one or None.

        A few moments are waited for it. If it comes later, `ready` is called.
        """
        place = self._place(question)
        with self._lock:
            result = place.result
            if result is not None and result.version == version:
                return Kept(result.given(), current=True)
            resting = result is not None and time.monotonic() - result.ended < REST * result.took
            if place.running is None and not resting:
                place.running = self._pool.submit(self._run, place, version, compute, ready)
            running = place.running
        if running is not None:
            wait([running], timeout=patience)
        result = place.result
        return None if result is None else Kept(result.given(), result.version == version)

    def _run(
        self,
        place: _Place,
        version: Hashable,
        compute: Callable[[], Any],
        ready: Callable[[], None],
    ) -> None:
        try:
            place.result = _computed(version, compute)
        except Exception:
            # Such as a lost database. Pages keep what they have, and the next one asks again.
            logger.exception("an answer could not be computed")
            return
        finally:
            with self._lock:
                place.running = None
        ready()

    def _place(self, question: Hashable) -> _Place:
        with self._lock:
            place = self._places.get(question)
            if place is None:
                place = self._places[question] = _Place(threading.Lock())
            self._places.move_to_end(question)
            while len(self._places) > self._most:
                self._places.popitem(last=False)
            return place


def _computed(version: Hashable, compute: Callable[[], Any]) -> _Result:
    begun = time.monotonic()
    value, error = None, None
    try:
        value = compute()
    except UserError as refusal:
        # Such as: no trial is complete yet. It is the answer until something changes.
        error = refusal
    ended = time.monotonic()
    return _Result(version, value, error, ended - begun, ended)
