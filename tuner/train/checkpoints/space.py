"""Which checkpoints to remove for space: the least useful first. Pure, and without torch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

DEFAULT_LIMIT = 10 * 10**9
"""Total size of checkpoints, in bytes, above which the least useful are removed."""

Owner = tuple[tuple[str, str], ...]
"""A trial's labels, sorted; they identify the trial."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """One stored checkpoint, with its size and its last use."""

    key: str
    epoch: int
    bytes: int
    last_used: float
    """Seconds since 1970 by the location's clock; on object stores, when it was written."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> Owner:
        """The trial it belongs to."""
        return owner(self.labels)


class Use(IntEnum):
    """What a checkpoint is good for, the least useful first."""

    PASSED = 0
    """Its trial has a later one or keeps none, and no other setting branches off here."""
    FINISHED = 1
    """The last one of a trial that is not running: useful if the trial is extended."""
    BRANCH = 2
    """Another setting of a study branches off or ends here."""
    RUNNING = 3
    """The newest one of a running trial: needed after a crash."""


def owner(labels: Mapping[str, str]) -> Owner:
    """Return the identity of the trial with these labels."""
    return tuple(sorted(labels.items()))


def uses(
    entries: Iterable[StoredCheckpoint],
    running: Collection[Owner],
    branches: Collection[str],
    leaving: Collection[Owner] = (),
) -> dict[str, Use]:
    """Return the use of every checkpoint; `branches` are keys.

    `leaving` are trials that have ended and keep no checkpoint.
    """
    stored = list(entries)
    newest: dict[Owner, int] = {}
    for entry in stored:
        newest[entry.owner] = max(entry.epoch, newest.get(entry.owner, 0))

    def use(entry: StoredCheckpoint) -> Use:
        last = entry.epoch == newest[entry.owner]
        if last and entry.owner in running:
            return Use.RUNNING
        if entry.key in branches:
            return Use.BRANCH
        return Use.FINISHED if last and entry.owner not in leaving else Use.PASSED

    return {entry.key: use(entry) for entry in stored}


def removals(
    entries: Sequence[StoredCheckpoint],
    limit: int,
    running: Collection[Owner] = (),
    branches: Collection[str] = (),
    promised: Collection[str] = (),
    *,
    leaving: Collection[Owner] = (),
) -> list[StoredCheckpoint]:
    """Return the checkpoints to remove so that the rest take at most `limit` bytes.

    Those under `promised` keys always stay, since paused trials resume from them, and do not count
    towards the limit. All others of `leaving` trials are removed.

    Useless ones are always removed; then the less useful before the more useful, and among equals
    the longest unused first.
    """
    use = uses(entries, running, branches, leaving)
    free = [entry for entry in entries if entry.key not in promised]
    queue = sorted(free, key=lambda e: (use[e.key], e.last_used, e.epoch, e.key))
    taken = sum(entry.bytes for entry in free)
    removed = []
    for entry in queue:
        if use[entry.key] > Use.PASSED and taken <= limit:
            break
        removed.append(entry)
        taken -= entry.bytes
    return removed
