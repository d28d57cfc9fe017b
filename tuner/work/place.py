"""The place that an engine gives a worker, and whether working there has ever come to anything."""

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
    """Says why no worker is to work there any more; empty while one may."""
    shared: bool = False
    """Whether several workers have it at once."""


@dataclass
class Tenancy:
    """One worker's time on one study at its place."""

    database: Database
    post: Post
    place: EnginePlace
    earlier: Fruitless = field(default_factory=Fruitless)
    """What workers before it came to there."""
    has_progressed: bool = False

    def begin(self) -> None:
        """Refuse to work where working has been in vain too often."""
        with self.database.transaction() as connection:
            self.earlier = fruitless.count(connection, self.post.study_id, self.place.name)
        if reason := self.place.why_hopeless(self.earlier):
            raise UserError(reason)

    def progressed(self) -> None:
        """Take note that epochs were stored: the count begins anew. Called after every few.

        At a place of its own without a count there is nothing to note. At a shared one others may
        be counted later, while this worker trains.
        """
        if self.has_progressed:
            return
        counts = self.earlier.workers or self.place.shared
        self.has_progressed = not counts or self._note(fruitless.PROGRESS)

    def end(self, stop: StopRequest, active_seconds: float) -> None:
        """Count this worker if it was sent away with a trial, and without an epoch.

        One that was given no trial, because others have them all, has not failed at anything.
        """
        if stop.asked and active_seconds and not self.has_progressed:
            self._note(fruitless.LIVED if stop.lifetime_over else fruitless.TAKEN)

    def _note(self, kind: str) -> bool:
        try:
            with self.database.transaction() as connection:
                fruitless.note(
                    connection, self.post.study_id, self.place.name, self.post.worker_id, kind
                )
        # The count is no result: a worker that leaves in an outage is missing in it.
        except (DBAPIError, DatabaseError) as error:
            logger.warning("%s could not be noted: %s", kind, error)
            return False
        return True
