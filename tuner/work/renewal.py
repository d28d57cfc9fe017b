"""The thread that renews leases on its own connection, and the state that it learns thereby."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from tuner.errors import DatabaseError
from tuner.settings import Timing
from tuner.store.database import Database, is_outage
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Lease, StudyState
from tuner.store.ledger.workers import Post
from tuner.store.spending import Used
from tuner.store.tallies import Tally
from tuner.work.load import Load

logger = logging.getLogger(__name__)


class Renewal:
    """Renews the held leases as long as the main loop ticks; survives any outage."""

    def __init__(
        self,
        database: Database,
        post: Post,
        timing: Timing,
        share: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._database = database
        self._post = post
        self._timing = timing
        self._lock = threading.Lock()
        self._held: tuple[Lease, ...] = ()
        self._share = share
        self._used = Used()
        self._counted = time.monotonic()
        self._ticked = time.monotonic()
        self._reachable_since: float | None = time.monotonic()
        self._answered = time.monotonic()
        self._lost: tuple[Lease, ...] = ()
        self._state: StudyState = "open"
        self._spent = ""
        self._wake = threading.Event()
        self._ended = False
        self.measure: Callable[[], Load] | None = None
        """Measures the worker's load; set before the thread starts."""
        self.load: Load | None = None
        """The last measurement."""
        self.tally = Tally()
        """The worker's counters for this study; stored with each renewal."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def end(self) -> None:
        """Stop renewing and wait for the thread."""
        self._ended = True
        self._wake.set()
        self._thread.join(timeout=5)

    def tick(self) -> None:
        """Show that the main loop is alive."""
        self._ticked = time.monotonic()

    def hold(self, lease: Lease) -> None:
        """Renew this lease as well from now on."""
        with self._lock:
            self._count()
            self._held = (*self._held, lease)

    def release(self, lease: Lease) -> None:
        """Stop renewing this lease."""
        with self._lock:
            self._count()
            self._held = tuple(other for other in self._held if other is not lease)
            self._lost = tuple(other for other in self._lost if other is not lease)

    def lost(self, lease: Lease) -> bool:
        """Return whether the database had another token for this lease."""
        return any(gone is lease for gone in self._lost)

    @property
    def held(self) -> int:
        """How many leases are renewed."""
        return len(self._held)

    @property
    def study_state(self) -> StudyState:
        """The study's state at the last renewal."""
        return self._state

    @property
    def spent(self) -> str:
        """Why the study could spend no more at the last renewal; empty if it could."""
        return self._spent

    @property
    def settled(self) -> bool:
        """Whether the database has answered for long enough that silent peers are really dead.

        After an outage all leases have expired, and each holder renews its own within a renewal
        interval; a worker that adopted at once would take them all. The same applies after this
        machine slept, because its other workers slept as well.
        """
        # Read before `_reachable_since`, which a renewal that ends a gap updates first.
        answered = self._answered
        since = self._reachable_since
        if since is None or time.monotonic() - answered > self._gap:
            return False
        return time.monotonic() - since >= self._timing.grace

    @property
    def _gap(self) -> float:
        # A peer that slept for at most half a lease still has it, unless its last renewal was late
        # by the other half. The second term keeps merely late renewals of our own from counting as
        # gaps.
        return max(self._timing.lease / 2, 2 * self._timing.renew)

    @property
    def used(self) -> Used:
        """How long this worker has held at least one trial, and its share of the device then."""
        with self._lock:
            self._count()
            return self._used

    def _count(self) -> None:
        """Add the time since the last call, if a trial was held; called with the lock held.

        When another worker joins or leaves the device, that counts from the last call on, at most
        one renewal interval ago.
        """
        now = time.monotonic()
        if self._held:
            since = now - self._counted
            before = self._used
            self._used = Used(
                before.active_seconds + since,
                before.device_seconds + since * self._share(),
            )
        self._counted = now

    def unreachable(self) -> None:
        """Record that the main loop could not reach the database."""
        self._reachable_since = None

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._pause())
            self._wake.clear()
            if not self._ended:
                self._renew_once()

    def _pause(self) -> float:
        # After a failure the lease may be about to expire, so try again soon.
        return self._timing.renew if self._reachable_since else min(1.0, self._timing.renew)

    def _load(self) -> dict[str, Any] | None:
        """Return the worker's load; None if it cannot be measured."""
        if self.measure is None:
            return None
        try:
            self.load = self.measure()
            return self.load.to_json()
        # Whatever fails (a driver being replaced, a process ending), leases must be renewed.
        except Exception:
            logger.warning("the load of this worker was not measured", exc_info=True)
            self.measure = self.load = None
            return None

    def _renew_once(self) -> None:
        with self._lock:
            leases = self._held
        if time.monotonic() - self._ticked > self._timing.lease:
            logger.warning("the main loop is stuck; its leases are not renewed")
            return
        load = self._load()
        try:
            with self._database.transaction() as connection:
                renewed = workers.renew(
                    connection,
                    self._post,
                    leases,
                    self._timing,
                    self.used,
                    load=load,
                    tally=self.tally.to_json(),
                )
        # If an unexpected answer ended this thread, all leases would be lost.
        except Exception as error:
            if not (is_outage(error) or isinstance(error, DatabaseError)):
                logger.exception("renewing leases failed")
            self.tally.retried()
            self._reachable_since = None
            return
        else:
            self._state, self._spent = renewed.study_state, renewed.spent
            with self._lock:
                # A lease that was released meanwhile no longer matters.
                lost = [
                    lease for lease in renewed.lost if any(lease is mine for mine in self._held)
                ]
                self._lost = (*self._lost, *lost)
        now = time.monotonic()
        if self._reachable_since is None or now - self._answered > self._gap:
            self._reachable_since = now
        self._answered = now
