"""Which workers are replaced, and when an engine gives up: one rule for all engines.

A worker that ended on purpose is not replaced: the study is done, or the next worker would meet the
same error. One that crashed or was killed is replaced. If workers die early one after the other,
more of them would only load the machine or annoy the cluster's administrators: after a few in a row
no more are started, and the reason is reported.

If the engine takes a place away (preemption, say), that says nothing about the worker, and may
happen every hour for weeks: it is replaced even if others have died early. But a worker that had a
trial and had to leave before its first epoch has achieved nothing. If that keeps happening, epochs
do not fit into the time that workers get there. Only workers can notice, since clusters requeue,
restart and replace without us. So they count it in the study's history, by the name of their place
(`work/place.py`), and finally refuse to work there.
"""

from dataclasses import dataclass

from tuner.errors import (
    EXIT_DONE,
    EXIT_FAILURES,
    EXIT_MACHINE,
    EXIT_UNEXPECTED,
    EXIT_USER,
)

DELIBERATE = frozenset({EXIT_DONE, EXIT_FAILURES, EXIT_USER, EXIT_MACHINE})
"""Exit codes of workers that ended on purpose; any other end is an accident."""
YOUNG_SECONDS = 20.0
"""A worker that ends sooner has died early."""
HOPELESS = 5
"""After this many early deaths or unexpected errors in a row, workers are no longer replaced."""
FRUITLESS = 20
"""A place is given up after this many workers in a row without an epoch. If half of the workers are
preempted before their first epoch at random, that happens once in a million."""
FRUITLESS_LIVES = 5
"""The same for workers that had their whole lifetime, which chance does not explain."""


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended."""

    code: int | None
    """Its exit status, negative for a signal; None if unknown, as when its machine died."""
    seconds: float
    """How long it ran, without waiting for room."""
    taken: bool = False
    """Whether the engine took its place away (preempted, drained, time limit). That says nothing
    about the worker, so it is not counted."""


@dataclass
class Replacements:
    """The accidents of one place, or of a whole crew if its workers have no places."""

    limit: int = HOPELESS
    young_seconds: float = YOUNG_SECONDS
    accidents: int = 0
    """Early deaths and unexpected errors in a row."""
    last: WorkerEnd | None = None

    @property
    def given_up(self) -> bool:
        """Whether no more workers are started."""
        return self.accidents >= self.limit

    @property
    def reason(self) -> str:
        """Why no more workers are started, as a sentence; empty while they are."""
        if not self.given_up or self.last is None:
            return ""
        code = self.last.code
        how = (
            "without an exit code"
            if code is None
            else f"by signal {-code}"
            if code < 0
            else f"with exit code {code}"
        )
        return (
            f"{self.accidents} workers in a row died early or by an unexpected error, the last "
            f"{how} after {self.last.seconds:.0f} s; no more are started."
        )

    def replaces(self, end: WorkerEnd) -> bool:
        """Record the end of a worker, and return whether to replace it.

        Called once for each end, in the order in which they are noticed.
        """
        if end.taken:
            # In a crew others may have died early, but not this worker.
            return True
        if end.code in DELIBERATE:
            return False
        self.last = end
        # A bug of ours may affect every replacement, even after a long time.
        counts = end.seconds < self.young_seconds or end.code == EXIT_UNEXPECTED
        self.accidents = self.accidents + 1 if counts else 0
        return not self.given_up


def why_hopeless(fruitless: int, lives: int, workers: int = 1) -> str:
    """Return why a place, perhaps shared by several workers, is given up; empty if it is not.

    `fruitless` workers in a row had a trial there and stored no epoch; `lives` of them had their
    whole lifetime.
    """
    if fruitless < FRUITLESS * workers and lives < FRUITLESS_LIVES * workers:
        return ""
    return (
        f"The last {fruitless} workers here had to leave before they had stored a single epoch of "
        f"their trial ({lives} of them at the end of their whole lifetime), so no more work here. "
        "Epochs take longer than workers get: ask for a longer time limit or for a place that is "
        "not preempted, make epochs shorter, and launch again."
    )
