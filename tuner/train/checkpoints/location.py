"""Opens the place that a setting names: a path, or a URL that fsspec opens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.train.checkpoints.local import LocalPlace
from tuner.train.checkpoints.place import CheckpointPlace
from tuner.train.checkpoints.remote import RemotePlace


def open_place(location: str, options: Mapping[str, Any] | None = None) -> CheckpointPlace:
    """Open a path or an fsspec URL; nothing is created before the first write."""
    protocol, mark, rest = location.partition("://")
    if not mark:
        return LocalPlace(Path(location).expanduser().absolute())
    if protocol in ("file", "local"):
        return LocalPlace(Path(rest))
    return RemotePlace(location, options or {})
