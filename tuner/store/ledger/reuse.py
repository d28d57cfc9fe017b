"""Sharing epochs between settings: what a trial may start from, and when it pays to wait.

Whether two settings share their first epochs is for training to say; the
ledger only asks, through the function that it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tuner.records import Job, Value
from tuner.spec.study import Spec

Shared = Callable[[Job, Job], int]
"""How many first epochs two jobs have in common."""

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

    def __init__(self, spec: Spec, shared: Shared) -> None:
        self._spec = spec
        self._shared = shared
        self._known: dict[tuple[int, int], int] = {}

    def epochs(self, one: int, other: int) -> int:
        """Return how many first epochs two configurations of the grid share."""
        pair = (min(one, other), max(one, other))
        if pair not in self._known:
            self._known[pair] = self._shared(self._job(pair[0]), self._job(pair[1]))
        return self._known[pair]

    def branches(self, configuration: int) -> list[int]:
        """Return the epochs of a configuration at which others branch off or end."""
        others = range(min(self._spec.configurations, BRANCHING))
        found = {self.epochs(configuration, one) for one in others if one != configuration}
        return sorted(found - {0})

    def stored(self, configuration: int, ended: Sequence[int]) -> int:
        """Return how many epochs of a configuration have been trained by others that ended."""
        return max((self.epochs(configuration, one) for one in ended), default=0)

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

    def _job(self, configuration: int) -> Job:
        chosen: Mapping[str, Value] = self._spec.grid[configuration]
        return self._spec.job(chosen, 0)
