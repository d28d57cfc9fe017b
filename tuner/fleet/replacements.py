"""Which workers are replaced, and when an engine gives up: one rule for all engines.

A worker that ended on purpose is not replaced: the study is done, or its error would meet the next
worker too. One that crashed or was killed is. Where workers die young, one after the other, more of
them would only load the machine or annoy the cluster's administrators: after a few in a row no more
are started, and the reason is told.
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
            return not self.given_up
        if end.code in DELIBERATE:
            return False
        self.last = end
        # A bug of ours may also hit every replacement, even after a long time.
        counts = end.seconds < self.young_seconds or end.code == EXIT_UNEXPECTED
        self.accidents = self.accidents + 1 if counts else 0
        return not self.given_up
