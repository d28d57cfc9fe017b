"""Sharing epochs between settings: what a trial can start from, and when waiting pays.

Only the training code can say whether two settings share their first epochs; the ledger asks it
through the function passed in.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuner.records import Job, Value
from tuner.spec.study import Spec

Marks = Callable[[Job], Sequence[str]]
"""Returns a mark for each epoch of a job. Two jobs share the epochs up to the last equal mark:
a mark covers everything before it, so marks after a difference are never equal."""

BRANCHING = 5_000
"""At most this many settings of a grid are searched for branches; others keep only their last
checkpoint."""


@dataclass(frozen=True)
class Runner:
    """A trial in training."""

    configuration: int
    seed: int
    done: int
    """Epochs recorded."""
    seconds_per_epoch: float | None


class Sharing:
    """The epochs that settings of one grid share; nothing is shared across seeds."""

    def __init__(self, spec: Spec, marks: Marks) -> None:
        self._spec = spec
        self._marks = marks
        self._paths: dict[int, Sequence[str]] = {}
        self._families: dict[str, frozenset[int]] = {}
        """The known configurations that share a first epoch, by its mark."""

    def prepare(self, configurations: Iterable[int]) -> None:
        """Compute the marks of configurations before taking a lock, so they are cheap under it."""
        for configuration in configurations:
            self._path(configuration)

    def relatives(self, configuration: int) -> frozenset[int]:
        """Return the known configurations that share a first epoch with this one, and itself."""
        path = self._path(configuration)
        return self._families[path[0]] if path else frozenset()

    def epochs(self, configuration: int, other: int) -> int:
        """Return how many first epochs two configurations of the grid share."""
        mine, theirs = self._path(configuration), self._path(other)
        both = range(min(len(mine), len(theirs)))
        return bisect_left(both, True, key=lambda place: mine[place] != theirs[place])

    def branches(self, configuration: int) -> list[int]:
        """Return the epochs of a configuration at which others branch off or end."""
        path = self._path(configuration)
        # How many settings share each of its epochs. If fewer share the next one, a setting
        # branched off or ended. The configuration itself always counts.
        passing = [self._passing[mark] for mark in path]
        itself = 1 if configuration < min(self._spec.configurations, BRANCHING) else 0
        after = [*passing[1:], itself]
        return [
            epoch
            for epoch, (here, then) in enumerate(zip(passing, after, strict=True), 1)
            if here > then
        ]

    def reached(self, configurations: Iterable[int]) -> set[str]:
        """Return the marks of all epochs of these configurations."""
        return {mark for index in configurations for mark in self._path(index)}

    def stored(self, configuration: int, reached: Collection[str]) -> int:
        """Return how many first epochs of a configuration are among the marks reached."""
        path = self._path(configuration)
        return bisect_left(range(len(path)), True, key=lambda place: path[place] not in reached)

    def waits(
        self, configuration: int, stored: int, running: Sequence[Runner], mean_seconds: float | None
    ) -> bool:
        """Return whether to wait for a peer's epochs rather than train them here.

        Waiting pays if the peer gets there sooner than training from the stored epochs would.
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
        """How many settings of the grid share each epoch."""
        searched = range(min(self._spec.configurations, BRANCHING))
        return Counter(mark for index in searched for mark in self._path(index))

    def _path(self, configuration: int) -> Sequence[str]:
        if configuration not in self._paths:
            chosen: Mapping[str, Value] = self._spec.grid[configuration]
            path = self._paths[configuration] = self._marks(self._spec.job(chosen, 0))
            if path:
                family = self._families.get(path[0], frozenset())
                self._families[path[0]] = family | {configuration}
        return self._paths[configuration]
