"""Writes checkpoints on a thread of its own, so that training never waits for a disk.

Training hands over a state that nobody changes any more and goes on. Of each
trial one state waits at most: a newer one takes the place of one whose writing
has not begun, unless that one was asked to be kept. Whatever goes wrong here
stops checkpoints for a while, and training never.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.space import Owner, owner
from tuner.train.checkpoints.tree import Tree

if TYPE_CHECKING:
    from tuner.train.state import TrainingState

PAUSE_SECONDS = 60.0
"""After a failure nothing is tried for so long: a full disk is not asked again each epoch."""

WAITING = 5
"""States that may wait at a time for each trial in training: memory is bounded whatever the disk
does."""

logger = logging.getLogger(__name__)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Offer:
    """One state to be stored under its key."""

    key: str
    state: "TrainingState"
    description: Description
    keep: bool = False
    """Whether a newer state of the same trial must not take its place: a branch point."""


@dataclass(frozen=True)
class Written:
    """One checkpoint that was stored."""

    key: str
    epoch: int
    bytes: int
    trial: Owner


Slot = tuple[Owner, str]


class Writer:
    """A thread that stores the newest states it was offered, in the order of their trials."""

    def __init__(
        self,
        tree: Tree,
        written: Callable[[Written], None] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`written` is called on the writing thread after each checkpoint that was stored."""
        self._tree = tree
        self._written = written
        self._clock = clock
        self._waiting: OrderedDict[Slot, Offer] = OrderedDict()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self.trials = 1
        """How many are in training."""
        self._most = 1
        """How many were, since anything waits that has not been written."""
        self._paused_until: float | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    @property
    def paused(self) -> bool:
        """Whether checkpoints are stopped for a while: a state is then not worth copying."""
        return self._paused_until is not None and self._clock() < self._paused_until

    @property
    def room(self) -> int:
        """For how many trials states may wait: those that end together shrink it last."""
        self._most = max(1, self.trials, self._most if self._waiting else 0)
        return self._most

    def offer(self, offer: Offer) -> None:
        """Take a state to be stored, and return at once; nobody may change the state any more."""
        with self._changed:
            if self._closed or self.paused:
                return
            trial = owner(offer.description.labels)
            self._waiting.pop((trial, ""), None)
            self._waiting[trial, offer.key if offer.keep else ""] = offer
            mine = [slot for slot in self._waiting if slot[0] == trial]
            if len(mine) > WAITING:
                del self._waiting[mine[0]]
            while len(self._waiting) > WAITING * self.room:
                self._waiting.popitem(last=False)
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until everything is written; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float) -> bool:
        """Take no more, write what waits, and say whether all was written in this many seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        done = self.flush(timeout)
        if done:
            self._thread.join(timeout)
        return done

    def _work(self) -> None:
        while (offer := self._next()) is not None:
            self._store(offer)
            # Held no longer than it is written: it is as large as the model and its optimizer.
            del offer

    def _next(self) -> Offer | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._busy = True
            return self._waiting.popitem(last=False)[1]

    def _store(self, offer: Offer) -> None:
        try:
            size = self._tree.store(offer.key, offer.state, offer.description)
            trial = owner(offer.description.labels)
            self._written(Written(offer.key, len(offer.state.curve), size, trial))
        # No checkpoint is worth a training: whatever fails here, training goes on.
        except Exception as error:  # noqa: BLE001
            self._pause(error)
        else:
            self._go_on()

    def _pause(self, error: Exception) -> None:
        with self._changed:
            first = self._paused_until is None
            self._paused_until = self._clock() + PAUSE_SECONDS
            self._waiting.clear()
        if first:
            logger.warning(
                "No checkpoints are written until this is fixed; training continues without. %s",
                error,
            )

    def _go_on(self) -> None:
        with self._changed:
            again, self._paused_until = self._paused_until is not None, None
        if again:
            logger.warning("Checkpoints at %s are written again.", self._tree.name)
