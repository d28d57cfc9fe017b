"""Disk space for checkpoints: where they are, which trials own them, and which can be removed."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.settings import Settings
from tuner.spec.study import Checkpoints
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.checkpoints import NOWHERE, checkpoint_place, labels
from tuner.store.database import Database
from tuner.store.ledger.reuse import Sharing
from tuner.store.studies import Study
from tuner.train.checkpoints.keys import marks
from tuner.train.checkpoints.space import Owner, StoredCheckpoint, owner, removals
from tuner.train.checkpoints.tree import Tree

TIDY_SECONDS = 60.0
END_SECONDS = 10.0
"""How long the end of a study waits for tidying."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """The checkpoints of a place, and which of them can be removed."""

    entries: Sequence[StoredCheckpoint]
    removable: Sequence[StoredCheckpoint]
    foreign: Sequence[StoredCheckpoint]
    """Checkpoints of studies that are not in this database: of another database, or deleted."""
    running: frozenset[Owner]
    """The owners whose trials have not ended."""
    promised: frozenset[str]
    """The keys from which paused trials resume; a trial that has ended may have stored the same."""

    @property
    def taken(self) -> int:
        """Size of all checkpoints in bytes."""
        return sum(entry.bytes for entry in self.entries)

    @property
    def freed(self) -> int:
        """How many bytes removing the removable ones would free."""
        return sum(entry.bytes for entry in self.removable)


def places(settings: Settings, database: Database) -> dict[str, int]:
    """Return the places of all studies' checkpoints, each with the largest limit of its studies."""
    with database.transaction() as connection:
        stored = studies.listing(connection)
    home = settings.checkpoints or str(settings.home / "checkpoints")
    limits = {} if home == NOWHERE else {home: Checkpoints().limit_bytes}
    for study in stored:
        place = checkpoint_place(settings, study.spec)
        if place is not None:
            limits[place] = max(limits.get(place, 0), study.spec.checkpoints.limit_bytes)
    return limits


def survey(tree: Tree, database: Database, limit: int) -> Room:
    """List the checkpoints of a place and find which are still needed."""
    with database.transaction() as connection:
        stored = studies.listing(connection)
        trials = {study.study_id: _trials(connection, study) for study in stored}
        promised = set(connection.execute(_promised()).scalars())
    running: set[Owner] = set()
    leaving: set[Owner] = set()
    owners: dict[Owner, tuple[Study, int]] = {}
    for study in stored:
        for number, (configuration, runs) in trials[study.study_id].items():
            whose = owner(labels(study, number))
            owners[whose] = (study, configuration)
            if runs:
                running.add(whose)
            elif study.spec.checkpoints.keep == "none":
                leaving.add(whose)
    entries = tree.listing()
    # We cannot know whether another database's trial is still running, so its checkpoints are
    # neither counted nor removed. `tuner clean --foreign` removes them on request.
    foreign = [entry for entry in entries if entry.owner not in owners]
    ours = [entry for entry in entries if entry.owner in owners]
    branches = _branches(ours, owners)
    removable = removals(ours, limit, running, branches, promised, leaving=leaving)
    return Room(entries, removable, foreign, frozenset(running), frozenset(promised))


def remove(
    tree: Tree, database: Database, entries: Sequence[StoredCheckpoint]
) -> list[StoredCheckpoint]:
    """Remove checkpoints that a survey found removable; return them, without those needed since.

    A trial may have been paused since the survey where an ended one left the same state. One
    that is paused between our look and the removal has written the state under its own labels
    just before, and then the owner that the survey found does not match.
    """
    removed = []
    for entry in entries:
        # Asked anew each time: on a slow place, removing thousands takes minutes.
        with database.transaction() as connection:
            mine = _promised().where(t.lease.c.checkpoint == entry.key).limit(1)
            if connection.execute(mine).first() is not None:
                continue
        tree.remove([entry.key], entry.labels)
        removed.append(entry)
    return removed


def _promised() -> sa.Select[str]:
    """Select the keys of the checkpoints that trials go on from which have not ended."""
    return sa.select(t.lease.c.checkpoint).where(
        t.lease.c.state != "ended", t.lease.c.checkpoint.is_not(None)
    )


def forget(tree: Tree, study: Study) -> int:
    """Remove the checkpoints of a deleted study; return how many were removed."""
    whose = labels(study, 0)
    keys = [
        entry.key for entry in tree.listing() if {**entry.labels, "trial": whose["trial"]} == whose
    ]
    tree.remove(keys)
    return len(keys)


class Tidier:
    """Trims a place to its limit from time to time, in a background thread of a worker."""

    def __init__(self, place: str, database: Database, limit: int) -> None:
        self._place = place
        self._database = database
        self._limit = limit
        self._tidied = time.monotonic()
        self._thread: threading.Thread | None = None

    def after_trial(self) -> None:
        """Start tidying unless that was done recently; returns at once."""
        busy = self._thread is not None and self._thread.is_alive()
        if busy or time.monotonic() - self._tidied < TIDY_SECONDS:
            return
        self._start()

    def after_study(self) -> None:
        """Tidy once more, and wait a while for it: otherwise nobody may do it for days."""
        if self._thread is not None:
            self._thread.join(END_SECONDS)
        self._start().join(END_SECONDS)

    def _start(self) -> threading.Thread:
        self._tidied = time.monotonic()
        self._thread = threading.Thread(target=self._tidy, daemon=True)
        self._thread.start()
        return self._thread

    def _tidy(self) -> None:
        try:
            tree = Tree(self._place)
            room = survey(tree, self._database, self._limit)
            remove(tree, self._database, room.removable)
            tree.sweep()
        # Tidying is optional: no trial may fail because a disk or the database is away.
        except Exception as error:  # noqa: BLE001
            logger.warning("checkpoints were not tidied: %s", error)


def _trials(connection: sa.Connection, study: Study) -> dict[int, tuple[int, bool]]:
    """Return each trial's configuration, and whether it is unfinished, by number."""
    rows = connection.execute(
        sa.select(t.trial.c.number, t.trial.c.configuration, t.lease.c.state)
        .select_from(t.trial.join(t.lease))
        .where(t.trial.c.study_id == study.study_id)
    )
    return {row.number: (row.configuration, row.state != "ended") for row in rows}


def _branches(
    entries: Sequence[StoredCheckpoint], owners: dict[Owner, tuple[Study, int]]
) -> set[str]:
    """Return the keys at which another setting of the same study branches off or ends."""
    sharings: dict[int, Sharing] = {}
    keys: set[str] = set()
    for entry in entries:
        if entry.owner not in owners:
            continue
        study, configuration = owners[entry.owner]
        if study.spec.search.sampler != "grid" or study.spec.checkpoints.keep != "auto":
            continue
        sharing = sharings.setdefault(study.study_id, Sharing(study.spec, marks))
        if entry.epoch in sharing.branches(configuration):
            keys.add(entry.key)
    return keys
