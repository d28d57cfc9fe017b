"""A folder that appears whole or not at all, and never in the place of somebody's files."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.errors import MachineError, UserError
from tuner.files import sync_folder
from tuner.winner import document


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a place where something is that may not be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise UserError(f"{target} is not a folder; name one that is new or empty.")
    held = sorted(path.name for path in target.iterdir())
    if not held:
        return
    others = [name for name in held if name not in document.MAY_HOLD]
    if others or document.NAME not in held:
        raise UserError(
            f"The folder {target} holds files that are not a saved model "
            f"({(others or held)[0]}); name a folder that is new or empty."
        )
    if not overwrite:
        raise UserError(
            f"The folder {target} already contains a saved model; --overwrite replaces it, or name "
            "another folder."
        )


@contextmanager
def written_whole(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into, which becomes the target if all goes well."""
    target = target.absolute()
    check_target(target, overwrite=overwrite)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    with _told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    try:
        yield aside
        with _told(target):
            _sync(aside)
            # Asked again: training may have taken hours, and the place may be taken now.
            check_target(target, overwrite=overwrite)
            _put(aside, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put(aside: Path, target: Path) -> None:
    """Rename a folder over another; in between, readers find the old one or none."""
    if not target.exists() or not any(target.iterdir()):
        # Takes the place of an empty folder at once, and of no other: a file that is
        # written there between the look and this makes it fail, and loses nothing.
        aside.replace(target)
        return
    old = aside.with_name(f"{aside.name}.old")
    target.rename(old)
    try:
        aside.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as held:
            os.fsync(held.fileno())
    sync_folder(folder)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"{target} cannot be written: {error.strerror}.") from None
