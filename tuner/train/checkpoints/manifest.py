"""The readable description beside a checkpoint's parts, checked before any of it is used.

A manifest is written last and names its parts with sizes and hashes, so a sound
manifest guarantees a complete checkpoint. Nothing here loads torch.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tuner.records import OWN, Epoch
from tuner.train.checkpoints.keys import FORMAT, Base

KEY = re.compile(r"[0-9a-f]{64}")
PART_FILE = re.compile(r"parts/[0-9a-f]{64}-[0-9a-f]{32}\.(weights|best_weights|optimizer)")
PARTS = ("weights", "best_weights", "optimizer")
LARGEST = 64 << 20
"""Bytes; our manifests are much smaller, but a foreign file may have any size."""


class DamagedError(Exception):
    """A stored checkpoint cannot be used; the text says why. It costs time, never a training."""


class NewerError(DamagedError):
    """A checkpoint of a newer format: unusable here, but not ours to remove."""


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Description:
    """What is written beside a state so that a person can read what it is."""

    base: Base
    parent: str
    labels: Mapping[str, str]
    """The owner: study and trial, or other labels by which the caller identifies trials."""


@dataclass(frozen=True)
class Manifest:
    """One checkpoint's description."""

    key: str
    description: Description
    best_epoch: int
    curve: tuple[Epoch, ...]
    parts: Mapping[str, CheckpointFile]
    """By the names in PARTS; two names may refer to the same file."""

    @property
    def epoch(self) -> int:
        """How many epochs were trained."""
        return len(self.curve)

    @property
    def files(self) -> tuple[CheckpointFile, ...]:
        """The files of the checkpoint, each once."""
        return tuple({part.file: part for part in self.parts.values()}.values())

    def bytes(self) -> int:
        """Return the total size of the parts."""
        return sum(part.bytes for part in self.files)


def file_name(key: str) -> str:
    """Return the file name of a key's manifest."""
    return f"{key}.json"


def key_of(name: str) -> str | None:
    """Return the key of the manifest with this file name, or None if it is another file."""
    key = name.removesuffix(".json")
    return key if KEY.fullmatch(key) and name == file_name(key) else None


def write(manifest: Manifest) -> bytes:
    """Return a manifest as readable JSON, with a hash of itself."""
    description = manifest.description
    body: dict[str, Any] = {
        "format": FORMAT,
        "key": manifest.key,
        "parent": description.parent,
        "epoch": manifest.epoch,
        "best_epoch": manifest.best_epoch,
        "labels": dict(description.labels),
        "base": description.base.plain(),
        "parts": {name: asdict(manifest.parts[name]) for name in PARTS},
        "curve": [_plain_epoch(epoch) for epoch in manifest.curve],
    }
    return json.dumps({**body, "sha256": _digest(body)}, indent=1, allow_nan=False).encode()


def read(name: str, content: bytes) -> Manifest:
    """Parse the manifest stored under a name; raise DamagedError if it was altered."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError("its manifest is not valid JSON") from error
    _expect(isinstance(body, dict), "its manifest is not a table")
    _check_format(body.get("format"))
    claimed = body.pop("sha256", None)
    _expect(claimed == _digest(body), "its manifest was altered")
    _expect(
        key_of(name) is not None and body.get("key") == key_of(name),
        "its name does not fit its key",
    )
    try:
        manifest = _manifest(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"its manifest is incomplete ({error})") from error
    _check(manifest, body)
    return manifest


def _check_format(found: object) -> None:
    if type(found) is int and found > FORMAT:
        raise NewerError(f"a newer tuner wrote it (format {found}, supported here: {FORMAT})")
    _expect(found == FORMAT, f"its format is {found!r}, not {FORMAT}")


def _manifest(body: Mapping[str, Any]) -> Manifest:
    # Without further metrics they are left out.
    written = {"metrics": (), **body["base"]}
    base = {field.name: written[field.name] for field in fields(Base)}
    base["metrics"] = tuple(base["metrics"])
    labels = {str(name): str(value) for name, value in body["labels"].items()}
    return Manifest(
        key=body["key"],
        description=Description(Base(**base), str(body["parent"]), labels),
        best_epoch=body["best_epoch"],
        curve=tuple(_read_epoch(plain) for plain in body["curve"]),
        parts={name: CheckpointFile(**body["parts"][name]) for name in PARTS},
    )


def _check(manifest: Manifest, body: Mapping[str, Any]) -> None:
    numbers = [epoch.epoch for epoch in manifest.curve]
    _expect(
        bool(numbers) and numbers == list(range(1, len(numbers) + 1)) == _counted(body["epoch"]),
        "its curve has gaps",
    )
    _expect(
        type(manifest.best_epoch) is int and 1 <= manifest.best_epoch <= manifest.epoch,
        "its best epoch is not in its curve",
    )
    for part in manifest.parts.values():
        # A name is used as a path, so it must be one of ours and belong to this key.
        _expect(
            isinstance(part.file, str)
            and PART_FILE.fullmatch(part.file) is not None
            and part.file.startswith(f"parts/{manifest.key}-")
            and type(part.bytes) is int
            and part.bytes >= 0
            and isinstance(part.sha256, str),
            "it names parts of another checkpoint",
        )


def _counted(epochs: object) -> list[int]:
    return list(range(1, epochs + 1)) if type(epochs) is int and epochs < LARGEST else []


def _plain_epoch(epoch: Epoch) -> dict[str, object]:
    plain = {name: _plain(value) for name, value in asdict(epoch).items()}
    return {**plain, OWN: {name: _plain(value) for name, value in epoch.own.items()}}


def _plain(value: object) -> object:
    # JSON has no NaN or infinity; other floats are restored exactly.
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else repr(value)


def _read_epoch(plain: Mapping[str, object]) -> Epoch:
    values: dict[str, object] = {}
    for field in fields(Epoch):
        if field.name == OWN:
            continue
        wanted = {"epoch": int, "reused": bool}.get(field.name, float)
        values[field.name] = _read_value(field.name, plain[field.name], wanted)
    own = plain.get(OWN, {})
    if not isinstance(own, dict):
        raise TypeError(f"{OWN} of an epoch is {own!r}")
    values[OWN] = {str(name): _read_value(name, value, float) for name, value in own.items()}
    return Epoch(**values)  # type: ignore[arg-type]  # kinds were compared above


def _read_value(name: str, value: object, wanted: type) -> object:
    if wanted is float and value in ("nan", "inf", "-inf"):
        value = float(str(value))
    if type(value) is not wanted:
        raise TypeError(f"{name} of an epoch is {value!r}")
    return value


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _expect(sound: bool, why: str) -> None:
    if not sound:
        raise DamagedError(why)


def sha256(content: bytes) -> str:
    """Return the hash that identifies a part."""
    return hashlib.sha256(content).hexdigest()


def mark_reused(curve: Sequence[Epoch]) -> tuple[Epoch, ...]:
    """Return a curve with all epochs marked as trained by another trial."""
    return tuple(Epoch(**{**asdict(epoch), "reused": True}) for epoch in curve)
