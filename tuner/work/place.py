"""The place that an engine gives a worker, and whether workers there get any epochs done."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from tuner.errors import DatabaseError, UserError
from tuner.store import fruitless
from tuner.store.database import Database
from tuner.store.fruitless import Fruitless
from tuner.store.ledger.workers import Post
from tuner.work.stopping import StopRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnginePlace:
    """A place by its engine's name, and the rule by which it is given up."""

    name: str
    why_hopeless: Callable[[Fruitless], str]
    """Returns why no worker should work there any more; empty while they may."""
    shared: bool = False
    """Whether several workers occupy it at once."""


@dataclass
class Tenancy:
    """One worker's time on one study at its place."""

    database: Database
    post: Post
    place: EnginePlace
    earlier: Fruitless = field(default_factory=Fruitless)
    """How many workers before it were fruitless there."""
    has_progressed: bool = False

    def begin(self) -> None:
        """Refuse to work at a place where too many workers in a row were fruitless."""
        with self.database.transaction() as connection:
            self.earlier = fruitless.count(connection, self.post.study_id, self.place.name)
        if reason := self.place.why_hopeless(self.earlier):
            raise UserError(reason)

    def progressed(self) -> None:
        """Reset the count, because epochs have been stored; called after every few epochs.

        Without a count there is nothing to reset, except at a shared place, where others may be
        counted later while this worker trains.
        """
        if self.has_progressed:
            return
        counts = self.earlier.workers or self.place.shared
        self.has_progressed = not counts or self._note(fruitless.PROGRESS)

    def end(self, stop: StopRequest, active_seconds: float) -> None:
        """Count this worker if it had to leave with a trial and without an epoch.

        A worker that got no trial, because others have them all, does not count.
        """
        if stop.asked and active_seconds and not self.has_progressed:
            self._note(fruitless.LIVED if stop.lifetime_over else fruitless.TAKEN)

    def _note(self, kind: str) -> bool:
        try:
            with self.database.transaction() as connection:
                fruitless.note(
                    connection, self.post.study_id, self.place.name, self.post.worker_id, kind
                )
        # The count is not a result, so it may lack a worker that leaves during an outage.
        except (DBAPIError, DatabaseError) as error:
            logger.warning("%s could not be noted: %s", kind, error)
            return False
        return True
