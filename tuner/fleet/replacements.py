"""Which workers are replaced, and when an engine gives up: one rule for all engines.

A worker that ended on purpose is not replaced: the study is done, or its error would meet the next
worker too. One that crashed or was killed is. Where workers die young, one after the other, more of
them would only load the machine or annoy the cluster's administrators: after a few in a row no more
are started, and the reason is told.

A place that is taken away says nothing about its worker, and a cluster may take it every hour for
weeks: it is replaced even where others have died young. But a worker that had a trial and was sent
away before its first epoch has done nothing. Where that happens again and again, epochs do not fit
into the time that workers get there. Only workers know it, since clusters requeue, restart and
replace without us: they keep count in the study's history, by the name of their place
(`work/place.py`), and refuse to work there in the end.
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
"""A worker that ends before this age has not done anything yet."""
HOPELESS = 5
"""So many early deaths or unexpected errors in a row, and workers are no longer replaced."""
FRUITLESS = 20
"""So many workers in a row sent away from a place before their first epoch end it. Where half of
them are, by a partition that is preempted at random, that happens once in a million."""
FRUITLESS_LIVES = 5
"""So many that had their whole lifetime for it: chance does not explain that."""


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended."""

    code: int | None
    """Its exit status, negative for a signal; None if nobody knows, as when its machine died."""
    seconds: float
    """How long it ran, without the time for which it waited for room."""
    taken: bool = False
    """Whether the engine took its place away: preempted, drained, time limit. That says nothing
    about the worker, so it counts for nothing."""


@dataclass
class Replacements:
    """The accidents of one place, or of a whole crew where its workers have no places."""

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
        """Why no more workers are started, for people; empty while they are."""
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
        """Take note of an end, and return whether that worker is replaced.

        Ends are told once each, in the order in which they were noticed.
        """
        if end.taken:
            # Of a crew: it was not one of those that died early, and others may have been.
            return True
        if end.code in DELIBERATE:
            return False
        self.last = end
        # A bug of ours may also hit every replacement, even after a long time.
        counts = end.seconds < self.young_seconds or end.code == EXIT_UNEXPECTED
        self.accidents = self.accidents + 1 if counts else 0
        return not self.given_up


def why_hopeless(fruitless: int, lives: int, workers: int = 1) -> str:
    """Say why no more workers run at a place, or at one that several share; empty while they do.

    `fruitless` workers in a row had a trial there and stored no epoch; so many of them had their
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
