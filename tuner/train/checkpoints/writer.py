"""Writes checkpoints on a background thread, so that training never waits for a disk.

Training hands over a state, which must not change any more, and goes on. At most one
state of each trial waits: a newer one replaces one whose writing has not begun,
unless that one must be kept. Any failure here pauses checkpoints for a while, but
never training.
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
"""How long to pause after a failure, so that a full disk is not tried again every epoch."""

WAITING = 5
"""How many states may wait per trial in training, to bound memory if the disk is slow."""

logger = logging.getLogger(__name__)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Offer:
    """A state to be stored under its key."""

    key: str
    state: "TrainingState"
    description: Description
    keep: bool = False
    """Whether a newer state of the same trial must not replace it, because it is a branch point."""
    yields: bool = False
    """Whether an equal state that another trial stored is left as that trial's."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that was stored."""

    key: str
    epoch: int
    bytes: int
    trial: Owner


Slot = tuple[Owner, str]


class Writer:
    """A thread that stores the newest offered states, trial by trial."""

    def __init__(
        self,
        tree: Tree,
        written: Callable[[Written], None] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`written` is called on the writing thread after each stored checkpoint."""
        self._tree = tree
        self._written = written
        self._clock = clock
        self._waiting: OrderedDict[Slot, Offer] = OrderedDict()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self.processor_seconds = 0.0
        """The processor's time that the last state took to be written."""
        self.trials = 1
        """How many trials are in training."""
        self._most = 1
        """The largest number in training since the queue was last empty."""
        self._paused_until: float | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    @property
    def paused(self) -> bool:
        """Whether checkpoints are paused, so that a state is not worth copying."""
        return self._paused_until is not None and self._clock() < self._paused_until

    @property
    def room(self) -> int:
        """For how many trials states may wait; it shrinks only when the queue is empty."""
        self._most = max(1, self.trials, self._most if self._waiting else 0)
        return self._most

    def offer(self, offer: Offer) -> None:
        """Queue a state to be stored and return at once; the state must not change any more."""
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
        """Wait up to `timeout` seconds until everything is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float) -> bool:
        """Close the queue and write the rest; return whether all was written in time."""
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
            # Free it as soon as it is written: it is as large as the model and its optimizer.
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
        begun = time.thread_time()
        try:
            labels = offer.description.labels
            # A trial may be paused there. Under our labels, we would remove it later. If it pauses
            # between our look and our write, it is lost all the same, which costs its epochs.
            size = 0
            if not (offer.yields and self._tree.is_anothers(offer.key, labels)):
                size = self._tree.store(offer.key, offer.state, offer.description)
            self._written(Written(offer.key, len(offer.state.curve), size, owner(labels)))
        # No checkpoint is worth a failed training: whatever fails here, training goes on.
        except Exception as error:  # noqa: BLE001
            self._pause(error)
        else:
            self.processor_seconds = time.thread_time() - begun
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
