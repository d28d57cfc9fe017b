"""The checkpoints of a trial that are stored on the dashboard's machine."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from tuner.errors import MachineError
from tuner.settings import Settings
from tuner.store.checkpoints import checkpoint_place, labels
from tuner.store.studies import Study
from tuner.text import masked
from tuner.train.checkpoints.catalogue import Catalogue
from tuner.train.checkpoints.space import owner


@dataclass(frozen=True)
class KeptCheckpoint:
    """One checkpoint."""

    epoch: int
    bytes: int
    written: datetime
    """When it was written or last used."""


@dataclass(frozen=True)
class TrialCheckpoints:
    """The checkpoints of one trial."""

    place: str
    """Where they are stored; "" if the study keeps none."""
    kept: tuple[KeptCheckpoint, ...]
    """Sorted by epoch."""
    remark: str = ""
    """Why none are listed, if known."""

    @property
    def bytes(self) -> int:
        """Their total size."""
        return sum(one.bytes for one in self.kept)


class CheckpointFinder:
    """Lists checkpoints in their folders. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalogues: dict[str, Catalogue] = {}
        self._lock = threading.Lock()

    def of(self, study: Study, number: int) -> TrialCheckpoints:
        """Return a trial's checkpoints."""
        place = checkpoint_place(self._settings, study.spec)
        if place is None:
            return TrialCheckpoints("", (), "Checkpoints are turned off.")
        if "://" in place:
            # The address comes from the database: nobody who can write there may choose which
            # servers the dashboard connects to, with the credentials of whoever started it.
            where = masked(place)
            remark = f"Checkpoints at {where} cannot be listed from this machine."
            return TrialCheckpoints(where, (), remark)
        mine = owner(labels(study, number))
        with self._lock:
            # The tree caches the manifests that it has read.
            catalogue = self._catalogues.setdefault(place, Catalogue(place))
            try:
                entries = [entry for entry in catalogue.listing() if entry.owner == mine]
            except MachineError as error:
                return TrialCheckpoints(place, (), str(error))
        return TrialCheckpoints(
            place,
            tuple(
                KeptCheckpoint(
                    entry.epoch, entry.bytes, datetime.fromtimestamp(entry.last_used, UTC)
                )
                for entry in sorted(entries, key=lambda entry: entry.epoch)
            ),
            "" if entries else "None are stored on this machine.",
        )
