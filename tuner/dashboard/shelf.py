"""A cache: what was read or computed for one page serves all pages until the study changes.

Twenty tabs of a running study ask for the same values at the same moment; each is computed once.
For slow values (verdicts over all predictions), the old one is shown while the new one is computed.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tuner.errors import MachineError, UserError
from tuner.store.database import is_outage

Value = TypeVar("Value")

logger = logging.getLogger(__name__)

FAILED = "This could not be computed; see the server's log."
QUEUE = 64
REST = 4.0
"""After a computation, a value rests this many times as long as it took: a study that changes all
the time must not keep a core busy."""
SHARE = 3.0
"""All values together also rest after each one's computation, this many times as long as it took:
twenty running studies must leave time for the pages themselves."""


@dataclass(frozen=True)
class Kept(Generic[Value]):
    """A value, and whether it is of the requested version."""

    value: Value
    current: bool
    age: float = 0.0
    """Seconds since it was computed."""


@dataclass(frozen=True)
class _Result:
    """The result of a computation; replaced as a whole, so readers need no lock."""

    version: Hashable
    value: Any
    error: Exception | None
    took: float
    ended: float

    def given(self) -> Any:
        """Return the value, or raise the computation's error."""
        if self.error is not None:
            # Without the frames of earlier callers, which would otherwise be kept for ever.
            raise self.error.with_traceback(None)
        return self.value


@dataclass
class _Place:
    """One question with its last result, and the running computation."""

    lock: threading.Lock
    result: _Result | None = None
    running: "Future[None] | None" = None
    resting: threading.Timer | None = None
    """Ends the rest after a computation, if a newer version was requested meanwhile."""
    asked: "tuple[Hashable, Callable[[], Any], Callable[[], None]] | None" = None
    """The newest request: the version, the computation, and the callback."""


class Shelf:
    """Values by question, each with the version that it was computed from."""

    def __init__(
        self, most: int, threads: int = 1, queue: int = QUEUE, *, older_at_once: bool = False
    ) -> None:
        self._older_at_once = older_at_once
        """Whether an older value is returned without waiting for the newer one."""
        self._most = most
        """The most values that are kept; the least recently used is dropped first."""
        self._queue = queue
        """The most computations that run or wait for a thread."""
        self._begun = 0
        self._postponed: deque[_Place] = deque(maxlen=queue)
        """Places whose computation was postponed because too many are running; the longest
        postponed are dropped until somebody asks again. Otherwise one person's filters, each a
        separate question, would fill memory and keep a core busy long after they have left."""
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()
        self._lock = threading.Lock()
        self._taken = 0.0
        """The time until which the budget for recomputing is used up."""
        self._closed = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answers")

    def close(self) -> None:
        """Start no more computations."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def fresh(self, question: Hashable, version: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value for a version; if necessary, one thread computes it for all."""
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

        It is waited for up to `patience` seconds. If it is ready later, `ready` is called.
        """
        place = self._place(question)
        with self._lock:
            result = place.result
            if result is not None and result.version == version:
                return Kept(result.given(), current=True)
            place.asked = (version, compute, ready)
            self._begin(place)
            running = place.running
        if running is not None and (result is None or not self._older_at_once):
            wait([running], timeout=patience)
        result = place.result
        if result is None:
            return None
        age = time.monotonic() - result.ended
        return Kept(result.given(), result.version == version, age)

    def _begin(self, place: _Place, *, rested: bool = False) -> None:
        """Compute the newest request, at once or after a rest. The caller holds the lock."""
        if place.running is not None or place.resting is not None or self._closed:
            return
        result = place.result
        # A first value does not wait.
        if result is not None and not rested:
            now = time.monotonic()
            at = max(now, result.ended + REST * result.took, self._taken)
            self._taken = at + SHARE * result.took
            if at > now:
                # Otherwise, a study's last change would wait until somebody asks again.
                place.resting = threading.Timer(at - now, self._rested, (place,))
                place.resting.daemon = True
                place.resting.start()
                return
        if self._begun >= self._queue:
            self._postponed.append(place)
            return
        self._begun += 1
        place.running = self._pool.submit(self._run, place)

    def _rested(self, place: _Place) -> None:
        with self._lock:
            place.resting = None
            self._begin(place, rested=True)

    def _run(self, place: _Place) -> None:
        with self._lock:
            assert place.asked is not None
            version, compute, ready = place.asked
        try:
            place.result = _computed(version, compute)
        except Exception as error:
            if self._closed:
                return  # the server is stopping, and the database connection is closed
            if is_outage(error):
                logger.warning("an answer was not computed: the database does not answer")
            else:
                # It would fail again, so it is only retried after a change.
                logger.exception("an answer could not be computed")
                failure = MachineError(FAILED)
                place.result = _Result(version, None, failure, 0.0, time.monotonic())
        finally:
            with self._lock:
                place.running = None
                self._begun -= 1
                self._begin_postponed()
        ready()

    def _begin_postponed(self) -> None:
        """Start postponed computations, newest first. The caller holds the lock."""
        while self._postponed and self._begun < self._queue:
            place = self._postponed.pop()
            # It may have been requested again, and computed, since then.
            asked = None if place.asked is None else place.asked[0]
            if place.result is None or place.result.version != asked:
                self._begin(place, rested=True)

    def _place(self, question: Hashable) -> _Place:
        with self._lock:
            place = self._places.get(question)
            if place is None:
                place = self._places[question] = _Place(threading.Lock())
            self._places.move_to_end(question)
            for old in list(self._places)[: max(0, len(self._places) - self._most)]:
                # A place that is being computed has callers that wait for it, so it is kept.
                if self._places[old].running is None and old != question:
                    del self._places[old]
            return place


def _computed(version: Hashable, compute: Callable[[], Any]) -> _Result:
    begun = time.monotonic()
    value, error = None, None
    try:
        value = compute()
    except UserError as refusal:
        # Such as "no trial is complete yet", which is the answer until something changes.
        error = refusal
    ended = time.monotonic()
    return _Result(version, value, error, ended - begun, ended)
