"""Loads an objective's images from the source that the keys of [data] name.

Class names are sorted, and their positions in that order are the labels: `normal`
is 0 and `pneumonia` 1. Nothing here loads torch.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Data, Progress
from tuner.train.sources.arrays import read_npy, read_npz
from tuner.train.sources.assemble import assemble
from tuner.train.sources.folder import read_folder
from tuner.train.sources.manifest import read_manifest
from tuner.train.sources.pool import Pool

_APART = "patients are not kept together when images are split"
NO_PATIENTS: Mapping[str, str] = {
    "npy": f"Arrays name no patients: {_APART}.",
    "npz": f"Arrays name no patients: {_APART}.",
    "folder": f"The folder names no patients: {_APART}.",
    "manifest": f"The table has no column patient: {_APART}.",
}
"""Notes for sources that do not say which images are from the same patient."""


def load(kind: str, keys: Mapping[str, Value], cache: Path, progress: Progress) -> Data:
    """Return the splits of a source; `kind` is one of `declared.KINDS`."""
    pool = _read(kind, keys, cache, progress)
    if not pool.patients:
        pool = replace(pool, notes=(*pool.notes, NO_PATIENTS[kind]))
    return assemble(pool, keys, cache)


def _read(kind: str, keys: Mapping[str, Value], cache: Path, progress: Progress) -> Pool:
    written = str(keys["path"])
    if not written:
        raise DataError(f"source = {kind!r} needs data.path, the path of the images")
    path = Path(written)
    if kind == "npy":
        return read_npy(path, keys, progress)
    if kind == "npz":
        return read_npz(path, keys, progress)
    if kind == "folder":
        return read_folder(path, keys, cache, progress)
    assert kind == "manifest", f"unknown source {kind}"
    return read_manifest(path, keys, cache, progress)
