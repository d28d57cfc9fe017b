"""Which checkpoints of a trial are kept where the dashboard runs."""

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
    """Where they go; "" where the study keeps none."""
    kept: tuple[KeptCheckpoint, ...]
    """The earliest epoch first."""
    remark: str = ""
    """Why none are listed, where that is known."""

    @property
    def bytes(self) -> int:
        """Their size together."""
        return sum(one.bytes for one in self.kept)


class CheckpointFinder:
    """Looks at the folders of checkpoints. May be called by several threads at once."""

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
            # The address stands in the database: nobody who can write there shall choose which
            # servers the dashboard connects to, with the credentials of whoever started it.
            where = masked(place)
            remark = f"Checkpoints at {where} cannot be listed from this machine."
            return TrialCheckpoints(where, (), remark)
        mine = owner(labels(study, number))
        with self._lock:
            # It remembers the manifests that it has read.
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
