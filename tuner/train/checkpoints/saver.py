"""Which states of a training are stored: regularly, and where other settings branch off."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.records import Job
from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.resume import resume
from tuner.train.checkpoints.space import Owner, owner
from tuner.train.checkpoints.timely import LOOKUP_SECONDS, Lookups, opened
from tuner.train.checkpoints.writer import WAITING, Offer, Writer, Written
from tuner.train.run import Run
from tuner.train.workbench import Workbench

AUTO_SECONDS = 2.0
"""Seconds of training that a crash may cost, if the study does not set `every`."""
AUTO_SHARE = 0.02
"""The share of a core that writing them may take then; if it takes more, a crash may cost more.
The thread that writes competes with training for the processor and for memory."""
EXPECTED_SECONDS = 5.0
"""How long to wait for a checkpoint that a peer has just trained."""


@dataclass(frozen=True)
class CheckpointPlan:
    """The supervisor's plan for one trial's checkpoints."""

    labels: Mapping[str, str]
    every: int | Literal["auto"] = "auto"
    keep: Literal["auto", "last", "none"] = "auto"
    branches: Collection[int] = field(default_factory=frozenset)
    """Epochs at which other settings of the study branch off or end."""
    expected: int = 0
    """Epochs that a peer has trained and is storing now."""
    until: int | None = None
    """The epoch at which the trial pauses; it does not start from a later state."""
    pauses: bool = False
    """Whether trials of its study pause: then its first state may be promised to an equal trial."""

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> "CheckpointPlan":
        """Parse a plan from a message."""
        return cls(
            labels=dict(body["labels"]),
            every=body["every"],
            keep=body["keep"],
            branches=frozenset(body["branches"]),
            expected=int(body["expected"]),
            until=body.get("until"),
            pauses=bool(body.get("pauses", False)),
        )


class Saver:
    """Stores the states of one or several trials in one tree."""

    def __init__(
        self,
        location: str,
        alive: Callable[[], None] = lambda: None,
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        """Open the place, waiting at most this many seconds; `alive` is called meanwhile."""
        self.tree = opened(location, lookup_seconds, alive)
        self.lookups = Lookups(self.tree, seconds=lookup_seconds)
        self.writer = Writer(self.tree, self._written)
        self._kept: dict[Owner, Keeping] = {}
        self._over: deque[Keeping] = deque()

    def begin(
        self,
        bench: Workbench,
        run: Run,
        job: Job,
        plan: CheckpointPlan,
        *,
        saved: Callable[[int], None] = lambda _: None,
        alive: Callable[[], None] = lambda: None,
    ) -> "Keeping":
        """Restore the longest stored prefix of a trial's path, and store its states from there.

        A place that does not answer is given up after a while; `alive` is called meanwhile.
        `saved` is called with the epoch of each stored state, on another thread.
        """
        keeping = Keeping(self, bench, job, plan, saved, alive, together=run.together)
        self._kept[keeping.owner] = keeping
        self._count()
        try:
            keeping.resume(run)
        except BaseException:
            self.over(keeping)
            raise
        return keeping

    def close(self, timeout: float) -> None:
        """Write the waiting states."""
        self.writer.close(timeout)

    def over(self, keeping: "Keeping") -> None:
        """Forget a trial that has ended, once none of its states is waiting to be written."""
        self._over.append(keeping)
        if len(self._over) > WAITING * (self.writer.room + 1):
            old = self._over.popleft()
            if self._kept.get(old.owner) is old:
                del self._kept[old.owner]
        self._count()

    def _count(self) -> None:
        ended = sum(self._kept.get(one.owner) is one for one in self._over)
        self.writer.trials = len(self._kept) - ended

    def _written(self, written: Written) -> None:
        if (keeping := self._kept.get(written.trial)) is not None:
            keeping.written(written)


class Keeping:
    """Decides which states of one trial are stored, and which are removed again."""

    def __init__(  # noqa: PLR0917
        self,
        saver: Saver,
        bench: Workbench,
        job: Job,
        plan: CheckpointPlan,
        saved: Callable[[int], None],
        alive: Callable[[], None],
        *,
        together: bool,
    ) -> None:
        self.owner = owner(plan.labels)
        self._saver, self._plan, self._tell, self._alive = saver, plan, saved, alive
        self._bench, self._job, self._code = bench, job, bench.code(job)
        self._base = bench.base(job, together=together)
        self._path = bench.path(job, together=together)
        self._lock = threading.Lock()
        self._saved = time.monotonic()
        self._last = 0
        self._stored: dict[str, int] = {}
        """Stored keys of this trial that may be removed, with their epochs."""
        self._written = 0
        """The epoch of the newest state that is stored for certain."""
        self.resumed = 0
        """How many epochs it started with."""

    def resume(self, run: Run) -> None:
        """Restore the longest stored prefix of the path."""
        if self._path:
            expected = self._plan.expected
            self._saver.lookups.heard_by(self._alive)
            self._await(self._path[expected - 1 :] if expected else [])
            labels = self._plan.labels
            path = self._path[: self._plan.until]
            self.resumed = resume(run, self._saver.lookups, path, labels)
            self._written = self.resumed
            if self.resumed and self._plan.keep == "none" and not self._plan.pauses:
                # It is an earlier attempt's, and is removed with the trial. Where trials pause, an
                # equal trial may be paused there; then tidying removes it in time.
                self._stored[self._path[self.resumed - 1]] = self.resumed

    def after(self, run: Run) -> None:
        """Store the state after an epoch, if it is due."""
        epoch = len(run.curve)
        branch = self._plan.keep == "auto" and epoch in self._plan.branches
        if not self._saver.writer.paused and (branch or self._due(epoch)):
            self._offer(run, keep=branch, yields=self._plan.pauses)

    def settle(self, run: Run, timeout: float) -> None:
        """Store the current state, between two epochs, and wait until it is written."""
        if len(run.curve) != self._last:
            self._offer(run, keep=False)
        self._saver.writer.flush(timeout)

    def pause(self, run: Run, timeout: float) -> str:
        """Store the state from which a paused trial resumes; return its key, or "" on failure.

        Nothing here removes it, not even once the trial has been resumed, because another paused
        trial may share it. Tidying does, once it is promised to no paused trial.
        """
        self.settle(run, timeout)
        epoch = len(run.curve)
        with self._lock:
            is_there = 0 < epoch <= len(self._path) and self._written == epoch
        return self._path[epoch - 1] if is_there else ""

    def end(self, run: Run) -> None:
        """Keep the last state of a trial that has ended, or none, as the plan says."""
        if self._plan.keep != "none":
            if len(run.curve) != self._last:
                self._offer(run, keep=True)
        else:
            self._saver.writer.flush(AUTO_SECONDS)
            with self._lock:
                keys, self._stored = list(self._stored), {}
            # A state that is not removed costs disk space, never the trial's result.
            self._saver.lookups.heard_by(self._alive)
            self._saver.lookups.remove(keys, dict(self._plan.labels))

    def written(self, written: Written) -> None:
        """Remove older states of the trial that no other needs; called on the writing thread."""
        with self._lock:
            passed = [key for key, epoch in self._stored.items() if epoch < written.epoch]
            for key in passed:
                del self._stored[key]
            current = written.key in self._path
            if current:
                self._written = written.epoch
        if current:
            self._tell(written.epoch)
        self._saver.tree.remove(passed, dict(self._plan.labels))

    def _await(self, keys: Sequence[str]) -> None:
        """Wait a moment for a checkpoint that a peer is storing in the background."""
        deadline = time.monotonic() + EXPECTED_SECONDS
        while keys and (left := deadline - time.monotonic()) > 0:
            if self._saver.lookups.known(keys, left):
                return
            time.sleep(0.1)

    def _due(self, epoch: int) -> bool:
        if self._plan.every == "auto":
            writer = self._saver.writer
            affordable = writer.trials * writer.processor_seconds / AUTO_SHARE
            return time.monotonic() - self._saved >= max(AUTO_SECONDS, affordable)
        return epoch % self._plan.every == 0

    def _offer(self, run: Run, *, keep: bool, yields: bool = False) -> None:
        epoch = len(run.curve)
        if not 0 < epoch <= len(self._path):
            return
        # If code was loaded during training, the keys do not cover the code that ran.
        if self._bench.code(self._job) != self._code:
            self._path = []
            return
        parent = self._path[epoch - 2] if epoch > 1 else ""
        description = Description(self._base, parent, dict(self._plan.labels))
        key = self._path[epoch - 1]
        self._saved, self._last = time.monotonic(), epoch
        with self._lock:
            if not keep:
                self._stored[key] = epoch
        self._saver.writer.offer(Offer(key, run.state(), description, keep, yields))
