"""What is stored at a location of checkpoints, for everybody who does not train; without torch."""

import logging
from collections.abc import Collection, Mapping
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
        files = [file for file in self._place.files() if manifests.key_of(file.name)]
        unread = [file.name for file in files if not self._is_read(file)]
        contents = self._place.read_many(unread)
        for file in files:
            if file.name in contents:
                self._take(file, contents[file.name])
        self._forget_all_but({file.name for file in files})
        return [_entry(file, self._read[file.name][1]) for file in files if file.name in self._read]

    def condemn(self, key: str, why: str) -> None:
        """Warn once that a stored checkpoint cannot be used, and why."""
        name = manifests.file_name(key)
        self._warn(name, f"The checkpoint {name} at {self.name} is not used: {why}.")

    def _is_read(self, file: StoredFile) -> bool:
        return file.name in self._read and self._read[file.name][0] == file.modified

    def _take(self, file: StoredFile, content: bytes) -> None:
        self._read.pop(file.name, None)
        try:
            self._read[file.name] = file.modified, manifests.read(file.name, content)
        except DamagedError as fault:
            self.condemn(file.name.removesuffix(".json"), str(fault))

    def _forget_all_but(self, names: Collection[str]) -> None:
        for name in set(self._read).difference(names):
            del self._read[name]

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
