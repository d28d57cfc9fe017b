"""The context shared by the statements of one ledger transaction, and the locks that they take."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tuner.settings import Timing
from tuner.store import tables as t
from tuner.store.ledger.assignments import Existing
from tuner.store.ledger.leases import Lease, LeaseLostError
from tuner.store.ledger.locks import lock_study
from tuner.store.ledger.reuse import Sharing
from tuner.store.studies import Study

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@dataclass
class Past:
    """A worker's cache of its study's trials, so that a claim reads only the newest.

    Trials that ended a while ago change only if they are reopened, which the study counts.
    Only committed rows are cached, so a rollback cannot make the cache wrong.
    """

    reopenings: int = 0
    floor: int = 0
    """Trials with lower numbers are cached."""
    trials: list[Existing] = field(default_factory=list)
    """By number."""
    kind: tuple[str, ...] = ()
    """The options that determined how their values were read."""
    seen: int = 0
    """Trials with lower numbers have their configurations in `begun`."""
    begun: set[int] = field(default_factory=set)
    _full: tuple[int, int] = (0, 0)
    """How many configurations the study had, and how many first cells had trials then."""

    def first_free(self, configurations: int) -> int:
        """Return the place before which every cell has a trial, with this many configurations."""
        return self._full[1] if self._full[0] == configurations else 0

    def keep_first_free(self, place: int, configurations: int) -> None:
        """Cache that every cell before a place has a trial; trials are never removed."""
        self._full = configurations, place

    def heed(self, reopenings: int, kind: tuple[str, ...]) -> None:
        """Empty the cache if trials were reopened or the study's metric has changed."""
        if (self.reopenings, self.kind) != (reopenings, kind):
            self.reopenings, self.kind = reopenings, kind
            self.floor, self.trials = 0, []


@dataclass(frozen=True)
class Transaction:
    """An open transaction: our connection, and Optuna's storage bound to it when it is needed."""

    connection: sa.Connection
    bind: "Callable[[], BaseStorage]"
    """Binds Optuna's storage to the connection until the transaction ends."""
    study: Study
    worker_id: int
    timing: Timing = field(default_factory=Timing)
    sharing: Sharing | None = None
    """Which epochs settings share, for grids that keep checkpoints."""
    past: Past = field(default_factory=Past)
    who: str = ""
    """The person who acts, if it is not a worker."""

    @cached_property
    def storage(self) -> "BaseStorage":
        """Optuna's storage, every write of which is part of this transaction."""
        return self.bind()

    def lock_study(self) -> None:
        """Block other claims and the brake of this study until this transaction ends."""
        lock_study(self.connection, self.study.study_id)

    def hold(self, lease: Lease, *, pausing: bool = False) -> str:
        """Check the fencing token and lock its row until commit; return the lease's state.

        That is held or ended; when `pausing`, it may also be paused already.
        """
        return str(self.hold_row(lease, pausing=pausing).state)

    def hold_row(self, lease: Lease, *, pausing: bool = False) -> Any:
        """Do as `hold`; return the lease's state, setbacks and granted epochs.

        The row lock is the fence: an adopter must update this row to issue a new token, so it
        cannot do so between this check and our commit. A worker that slept through its lease finds
        another token here and writes nothing.
        """
        row = self.connection.execute(
            sa.select(
                t.lease.c.token,
                t.lease.c.state,
                t.lease.c.worker_id,
                t.lease.c.strikes,
                t.lease.c.interruptions,
                t.lease.c.granted,
            )
            .where(t.lease.c.trial_id == lease.trial_id)
            .with_for_update()
        ).one_or_none()
        if row is None or row.token != lease.token or row.worker_id != self.worker_id:
            raise LeaseLostError(f"trial {lease.number} has another holder")
        if row.state == "released":
            raise LeaseLostError(f"trial {lease.number} was given back")
        if row.state == "paused" and not pausing:
            raise LeaseLostError(f"trial {lease.number} was paused")
        return row

    def has_event(self, kind: str, text: str, trial_id: int) -> bool:
        """Return whether the history has this line since the trial was last claimed."""
        claimed = sa.select(t.lease.c.claimed).where(t.lease.c.trial_id == trial_id)
        rows = self.connection.execute(
            sa.select(t.event.c.event_id).where(
                t.event.c.trial_id == trial_id,
                t.event.c.kind == kind,
                t.event.c.text == text,
                t.event.c.happened >= claimed.scalar_subquery(),
            )
        )
        return rows.first() is not None

    def add_event(self, kind: str, text: str = "", trial_id: int | None = None) -> None:
        """Add a line to the study's history."""
        self.connection.execute(self.event(kind, text, trial_id))

    def event(self, kind: str, text: str = "", trial_id: int | None = None) -> sa.Insert:
        """Return the statement that adds a line to the study's history."""
        return sa.insert(t.event).values(self.line(kind, text, trial_id))

    def line(self, kind: str, text: str = "", trial_id: int | None = None) -> dict[str, Any]:
        """Return a line of the study's history by column."""
        return {
            "study_id": self.study.study_id,
            "trial_id": trial_id,
            "worker_id": self.worker_id,
            "kind": kind,
            "text": text,
            "who": self.who,
        }


def in_seconds(seconds: float) -> sa.ColumnElement[object]:
    """Return the server's time this many seconds from now; workers' clocks are never used."""
    span = sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return sa.func.clock_timestamp() + span
