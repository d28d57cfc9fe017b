"""Lists the checkpoints at a location, without torch."""

import logging
from collections.abc import Mapping
from typing import Any

from tuner.train.checkpoints import manifest as manifests
from tuner.train.checkpoints.location import open_place
from tuner.train.checkpoints.manifest import DamagedError, Manifest
from tuner.train.checkpoints.place import CheckpointPlace, StoredFile
from tuner.train.checkpoints.space import StoredCheckpoint

logger = logging.getLogger(__name__)


class Catalogue:
    """The checkpoints at one location: a path, a URL that fsspec opens, or an open place."""

    def __init__(
        self, location: str | CheckpointPlace, options: Mapping[str, Any] | None = None
    ) -> None:
        self._place: CheckpointPlace = (
            open_place(location, options) if isinstance(location, str) else location
        )
        self._read: dict[str, tuple[float, Manifest]] = {}
        self._warned: set[str] = set()

    @property
    def name(self) -> str:
        """The location, for messages, without a password."""
        return self._place.name

    def listing(self) -> list[StoredCheckpoint]:
        """Return all checkpoints; an invalid file is left out with a warning."""
        files = {file.name: file for file in self._place.files() if manifests.key_of(file.name)}
        # Manifests are cached by name and modification time.
        for name, (modified, _) in list(self._read.items()):
            if name not in files or files[name].modified != modified:
                del self._read[name]
        contents = self._place.read_many([name for name in files if name not in self._read])
        for name, content in contents.items():
            try:
                self._read[name] = files[name].modified, manifests.read(name, content)
            except DamagedError as fault:
                self.condemn(name.removesuffix(".json"), str(fault))
        return [
            _entry(file, self._read[name][1]) for name, file in files.items() if name in self._read
        ]

    def condemn(self, key: str, why: str) -> None:
        """Warn once that a stored checkpoint cannot be used, and why."""
        name = manifests.file_name(key)
        self._warn(name, f"The checkpoint {name} at {self.name} is not used: {why}.")

    def _warn(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logger.warning(text)


def _entry(file: StoredFile, manifest: Manifest) -> StoredCheckpoint:
    return StoredCheckpoint(
        key=manifest.key,
        epoch=manifest.epoch,
        bytes=file.size + manifest.bytes(),
        last_used=file.modified,
        labels=dict(manifest.description.labels),
    )
