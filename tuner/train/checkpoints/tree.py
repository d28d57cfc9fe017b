"""The stored checkpoints of all trainings: looking them up by path, writing, listing, removing.

Any number of processes on any machines may use one tree at once. Every writer's parts
have unique names, and the manifest, written last, names one writer's parts. If two
write the same checkpoint, the second replaces the first one's manifest by an
equivalent one. Parts that lose such a race, or whose writer died, are swept after an
hour.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.errors import MachineError
from tuner.train.checkpoints import manifest as manifests
from tuner.train.checkpoints.catalogue import Catalogue
from tuner.train.checkpoints.manifest import (
    CheckpointFile,
    DamagedError,
    Description,
    Manifest,
    NewerError,
)
from tuner.train.checkpoints.place import TEMPORARY, StoredFile
from tuner.train.checkpoints.space import Owner, StoredCheckpoint, removals

if TYPE_CHECKING:
    from tuner.train.state import TrainingState

PARTS_FOLDER = "parts"
KEY_END = len(f"{PARTS_FOLDER}/") + 64
ORPHAN_SECONDS = 3600.0
"""A younger part that no manifest names may belong to a writer at work."""


@dataclass(frozen=True)
class Stored:
    """A state found in the tree, and its owner."""

    key: str
    epoch: int
    state: "TrainingState"
    description: Description


class Tree(Catalogue):
    """All checkpoints at one location: a path, a URL that fsspec opens, or an open place."""

    def has(self, key: str) -> bool:
        """Return whether a checkpoint is stored under a key, without checking its parts."""
        return self._place.read(manifests.file_name(key)) is not None

    def is_anothers(self, key: str, labels: Mapping[str, str]) -> bool:
        """Return whether a checkpoint of a trial with other labels is stored under a key."""
        name = manifests.file_name(key)
        if (content := self._place.read(name)) is None:
            return False
        try:
            return manifests.read(name, content).description.labels != dict(labels)
        except DamagedError:
            return False

    def known(self, keys: Collection[str]) -> set[str]:
        """Return those of the keys that are stored, by one listing."""
        return self._keys().intersection(keys)

    def longest(self, path: Sequence[str]) -> Stored | None:
        """Return the longest sound stored prefix of a path of keys after epochs 1, 2, ….

        A damaged checkpoint, or a location that cannot be read, is skipped with a warning:
        both cost only time.
        """
        try:
            keys = self.known(path)
        except MachineError as error:
            self._warn(self.name, f"{error} Until then, trainings start from their first epoch.")
            return None
        wanted = ((epoch, key) for epoch, key in enumerate(path, 1) if key in keys)
        for epoch, key in sorted(wanted, reverse=True):
            stored = self._sound(key, epoch)
            if stored is not None:
                return stored
        return None

    def store(self, key: str, state: "TrainingState", description: Description) -> int:
        """Write a state atomically under its key and return its size in bytes."""
        from tuner.train.checkpoints.parts import encode

        contents = encode(state)
        parts = _name_parts(key, contents)
        written = Manifest(key, description, state.best_epoch, tuple(state.curve), parts)
        try:
            for name, content in contents.items():
                self._place.write(parts[name].file, content)
            self._place.write(manifests.file_name(key), manifests.write(written))
        except MachineError:
            # On a full disk, remove what was written of this state.
            with suppress(MachineError):
                self._place.remove(part.file for part in written.files)
            raise
        return written.bytes()

    def remove(self, keys: Iterable[str], owner: Mapping[str, str] | None = None) -> None:
        """Remove checkpoints: the manifest first, so that none is ever seen without its parts.

        With `owner`, the labels of a trial, only checkpoints of that trial: another trial,
        of this database or another, may have stored the same state since, and need it.
        """
        for key in keys:
            name = manifests.file_name(key)
            content = self._place.read(name)
            if owner is not None and not _is_of(name, content, owner):
                continue
            self._place.remove([name])
            with suppress(DamagedError):
                if content is not None:
                    self._place.remove(part.file for part in manifests.read(name, content).files)

    def trim(
        self,
        limit: int,
        running: Collection[Owner] = (),
        branches: Collection[str] = (),
        dry: bool = False,
    ) -> list[StoredCheckpoint]:
        """Remove the least useful checkpoints until the rest take at most `limit` bytes.

        Returns what it removed; `dry` only returns it.
        """
        chosen = removals(self.listing(), limit, running, branches)
        if not dry:
            self.remove(entry.key for entry in chosen)
        return chosen

    def sweep(self, dry: bool = False) -> list[StoredFile]:
        """Remove files left by dead or overtaken writers; return them (`dry`: only return them)."""
        # List parts before manifests: a manifest written in between can only make a
        # listed part owned, never an orphan.
        parts = self._place.files(PARTS_FOLDER)
        top = self._place.files()
        owned = self._owned(top)
        loose = [
            f for f in (*parts, *top) if _is_ours(f) and not {f.name, f.name[:KEY_END]} & owned
        ]
        if not loose:
            return []
        limit = self._place.now() - ORPHAN_SECONDS
        orphans = [file for file in loose if file.modified < limit]
        if not dry:
            self._place.remove(file.name for file in orphans)
        return orphans

    def _keys(self) -> set[str]:
        keys = (manifests.key_of(file.name) for file in self._place.files())
        return {key for key in keys if key is not None}

    def _sound(self, key: str, epoch: int) -> Stored | None:
        name = manifests.file_name(key)
        try:
            content = self._place.read(name)
            if content is None:
                return None
            manifest = manifests.read(name, content)
            if manifest.epoch != epoch:
                raise DamagedError(
                    f"it is from epoch {manifest.epoch}, but epoch {epoch} is expected"
                )
            state = self._state(manifest)
        except (DamagedError, MachineError) as fault:
            # It may have been removed or replaced while we read it.
            if not self._is_gone(name):
                self.condemn(key, str(fault))
            return None
        self._place.touch(name)
        return Stored(key, epoch, state, manifest.description)

    def _state(self, manifest: Manifest) -> "TrainingState":
        from tuner.train.checkpoints.parts import decode

        contents = self._place.read_many([part.file for part in manifest.files])
        for part in manifest.files:
            _check_part(part, contents.get(part.file))
        return decode(
            manifest, {name: contents[part.file] for name, part in manifest.parts.items()}
        )

    def _is_gone(self, name: str) -> bool:
        try:
            return self._place.read(name) is None
        except MachineError:
            return False

    def _owned(self, files: Iterable[StoredFile]) -> set[str]:
        """Return the parts named by manifests; for an unreadable one the prefix of its key."""
        names = [file.name for file in files if manifests.key_of(file.name)]
        owned: set[str] = set()
        for name, content in self._place.read_many(names).items():
            try:
                owned.update(part.file for part in manifests.read(name, content).files)
            except NewerError:
                owned.add(f"{PARTS_FOLDER}/{manifests.key_of(name)}")
            except DamagedError:
                continue
        return owned


def _name_parts(key: str, contents: Mapping[str, bytes]) -> dict[str, CheckpointFile]:
    writer = uuid.uuid4().hex
    parts = {
        name: CheckpointFile(
            f"{PARTS_FOLDER}/{key}-{writer}.{name}", len(content), manifests.sha256(content)
        )
        for name, content in contents.items()
    }
    return {"best_weights": parts["weights"], **parts}


def _check_part(part: CheckpointFile, content: bytes | None) -> None:
    if content is None:
        raise DamagedError(f"its part {part.file} is missing")
    if len(content) != part.bytes:
        raise DamagedError(f"its part {part.file} has {len(content)} of {part.bytes} bytes")
    if manifests.sha256(content) != part.sha256:
        raise DamagedError(f"its part {part.file} was altered")


def _is_of(name: str, content: bytes | None, owner: Mapping[str, str]) -> bool:
    try:
        return content is None or manifests.read(name, content).description.labels == dict(owner)
    except DamagedError:
        return False


def _is_ours(file: StoredFile) -> bool:
    base = file.name.rpartition("/")[2]
    return base.startswith(TEMPORARY) or manifests.PART_FILE.fullmatch(file.name) is not None
