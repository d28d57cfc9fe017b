"""Checkpoints in anything that fsspec opens, as s3://bucket/folder or memory://folder.

An object store shows an object only when it has arrived completely. Elsewhere a
truncated file is recognised by its hash.
"""

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from tuner.errors import MachineError, UserError
from tuner.text import masked
from tuner.train.checkpoints.place import TEMPORARY, StoredFile, below, errors_named

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")

S3_PATIENCE = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}
"""A store that does not answer must not block a trainer for minutes."""


class RemotePlace:
    """A folder in anything that fsspec opens and that writes files atomically."""

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        self.name = masked(location)
        self._system, self._root = _open_system(location, self.name, options)
        # In an object store a missing folder is a missing bucket, which we do not create.
        self._has_folders = location.partition("://")[0] not in OBJECT_STORES

    def write(self, name: str, content: bytes) -> None:
        """Store a file in one call."""
        with errors_named(self.name, "written"):
            path = self._path(name)
            if self._has_folders:
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, content)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        with errors_named(self.name, "read"), suppress(FileNotFoundError):
            content: bytes = self._system.cat_file(self._path(name))
            return content
        return None

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist, fetched in parallel."""
        if not names:
            return {}
        paths = {self._path(name): name for name in names}
        with errors_named(self.name, "read"):
            contents = self._system.cat(list(paths), on_error="return")
            return {
                paths[path]: content for path, content in contents.items() if _is_there(content)
            }

    def files(self, folder: str = "") -> list[StoredFile]:
        """List the files of one folder in one call, bypassing cached listings."""
        listed: list[StoredFile] = []
        with errors_named(self.name, "listed"), suppress(FileNotFoundError):
            self._system.invalidate_cache()
            path = self._path(folder) if folder else self._root
            for info in self._system.ls(path, detail=True):
                if info["type"] == "file":
                    name = below(folder, str(info["name"]).rpartition("/")[2])
                    listed.append(StoredFile(name, int(info["size"] or 0), _modified(info)))
        return listed

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are no error."""
        with errors_named(self.name, "cleaned"):
            for name in names:
                with suppress(FileNotFoundError):
                    self._system.rm_file(self._path(name))

    def touch(self, name: str) -> None:
        """Leave the file as it is: an object's date cannot be moved without writing it again."""

    def now(self) -> float:
        """Return the modification time that a file written now gets."""
        probe = f"{TEMPORARY}{uuid.uuid4().hex}"
        self.write(probe, b"")
        try:
            with errors_named(self.name, "cleaned"):
                self._system.invalidate_cache()
                return _modified(self._system.info(self._path(probe)))
        finally:
            self.remove([probe])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _open_system(location: str, shown: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    import fsspec

    protocol = location.partition("://")[0]
    chosen = dict(options)
    if protocol in ("s3", "s3a"):
        chosen["config_kwargs"] = S3_PATIENCE | dict(chosen.get("config_kwargs", {}))
    try:
        system, root = fsspec.core.url_to_fs(location, **chosen)
    except ImportError as error:
        raise UserError(
            f"checkpoints cannot be stored at {shown}: {error}. "
            "Install what it needs (for s3: pip install 'tuner[s3]'), or choose a path."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{shown} is not a place for checkpoints: {masked(str(error))}; "
            "expected a path, or a URL that fsspec opens, such as s3://bucket/folder"
        ) from None
    # Some systems connect when they are opened, and raise their own libraries' errors.
    except Exception as error:  # noqa: BLE001  # each system has errors of its own
        raise MachineError(
            f"checkpoints at {shown} cannot be opened: {type(error).__name__}: "
            f"{masked(str(error))}. Check the address, credentials and network."
        ) from None
    return system, str(root).rstrip("/")


def _is_there(content: bytes | Exception) -> bool:
    if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
        raise content
    return isinstance(content, bytes)


def _modified(info: Mapping[str, Any]) -> float:
    for field in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(field)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    # A file without a date counts as the newest, so that it is never swept by mistake.
    return math.inf
