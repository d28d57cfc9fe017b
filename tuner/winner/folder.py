"""Creates a folder atomically, and never replaces other files."""

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
    """Refuse a target that exists and may not be replaced."""
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
    """Give a temporary folder, which becomes the target on success."""
    target = target.absolute()
    check_target(target, overwrite=overwrite)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    with _write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    try:
        yield aside
        with _write_errors(target):
            _sync(aside)
            # Checked again: training may have taken hours, and the target may exist now.
            check_target(target, overwrite=overwrite)
            _put(aside, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put(aside: Path, target: Path) -> None:
    """Replace a folder by another; meanwhile, readers find the old one or none."""
    if not target.exists() or not any(target.iterdir()):
        # Atomically replaces an empty folder, but no other: if a file is written there after the
        # check, this fails, and nothing is lost.
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
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"{target} cannot be written: {error.strerror}.") from None
