"""Sharing epochs between settings: what a trial may start from, and when it pays to wait.

Whether two settings share their first epochs is for training to say; the
ledger only asks, through the function that it is given.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuner.records import Job, Value
from tuner.spec.study import Spec

Marks = Callable[[Job], Sequence[str]]
"""Returns a mark after each epoch of a job. Two jobs share the epochs up to the last equal mark:
a mark stands for all that came before it, so that no two are equal behind a difference."""

BRANCHING = 5_000
"""Settings of a grid that are looked through for branches; beyond, only ends are kept."""


@dataclass(frozen=True)
class Runner:
    """A trial that somebody is training."""

    configuration: int
    seed: int
    done: int
    """Epochs recorded."""
    seconds_per_epoch: float | None


class Sharing:
    """Which epochs the settings of one grid have in common; nothing is shared across seeds."""

    def __init__(self, spec: Spec, marks: Marks) -> None:
        self._spec = spec
        self._marks = marks
        self._paths: dict[int, Sequence[str]] = {}

    def prepare(self, configurations: Iterable[int]) -> None:
        """Mark the epochs of configurations before a lock is held; later each costs nothing."""
        for configuration in configurations:
            self._path(configuration)

    def epochs(self, one: int, other: int) -> int:
        """Return how many first epochs two configurations of the grid share."""
        mine, theirs = self._path(one), self._path(other)
        both = range(min(len(mine), len(theirs)))
        return bisect_left(both, True, key=lambda place: mine[place] != theirs[place])

    def branches(self, configuration: int) -> list[int]:
        """Return the epochs of a configuration at which others branch off or end."""
        path = self._path(configuration)
        # This many settings go through each of its epochs; where there are fewer after one than
        # before, somebody left. It goes through them itself, also if it was not counted.
        passing = [self._passing[mark] for mark in path]
        itself = 1 if configuration < min(self._spec.configurations, BRANCHING) else 0
        after = [*passing[1:], itself]
        return [
            epoch
            for epoch, (here, then) in enumerate(zip(passing, after, strict=True), 1)
            if here > then
        ]

    def reached(self, configurations: Iterable[int]) -> set[str]:
        """Return the marks of all epochs that any of these configurations has trained."""
        return {mark for one in configurations for mark in self._path(one)}

    def stored(self, configuration: int, reached: Collection[str]) -> int:
        """Return how many epochs of a configuration were trained by others, given their marks."""
        path = self._path(configuration)
        return bisect_left(range(len(path)), True, key=lambda place: path[place] not in reached)

    def waits(
        self, configuration: int, stored: int, running: Sequence[Runner], mean_seconds: float | None
    ) -> bool:
        """Tell whether to wait for a peer's epochs rather than to train them here.

        Waiting pays if the peer gets there sooner than training from what is stored.
        """
        for peer in running:
            shared = self.epochs(configuration, peer.configuration)
            if shared <= max(stored, peer.done):
                continue
            if peer.seconds_per_epoch is None or mean_seconds is None:
                return True
            waiting = (shared - peer.done) * peer.seconds_per_epoch
            if waiting <= (shared - stored) * mean_seconds:
                return True
        return False

    @cached_property
    def _passing(self) -> Counter[str]:
        """How many settings of the grid go through each epoch."""
        some = range(min(self._spec.configurations, BRANCHING))
        return Counter(mark for one in some for mark in self._path(one))

    def _path(self, configuration: int) -> Sequence[str]:
        if configuration not in self._paths:
            chosen: Mapping[str, Value] = self._spec.grid[configuration]
            self._paths[configuration] = self._marks(self._spec.job(chosen, 0))
        return self._paths[configuration]
