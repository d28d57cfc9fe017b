"""The folder in which tuner keeps its things: found, made, and private to its owner.

Root may work in another user's home (`sudo tuner ...`). What it makes there is handed to that
user, who could not go on otherwise. Only what this process has just made is ever handed over:
anything else may be a hard link or a folder that somebody put there to be given it.
"""

import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import MachineError

NAME = ".tuner"
_MARKS = frozenset((".gitignore", "postgres", "elsewhere"))
"""What a home has; another program may also have a folder `.tuner`."""


@dataclass(frozen=True)
class Found:
    """Which home a folder's commands use, and what a person should know of the choice."""

    home: Path
    notes: tuple[str, ...] = ()


def find(start: Path, *, stop: Path | None, uid: int, sudo_uid: int | None = None) -> Found:
    """Return the home of a folder: its own, or the nearest one above, or the one to be made here.

    As git does with `.git`, the search ends at the root of the file system that `start` is on,
    and at `stop` (the person's own folder) if `start` is below it. A home above that belongs to
    another user is passed over: in a shared folder anybody could have put it there. Under sudo
    the homes of the user who typed it count as one's own.
    """
    here = start / NAME
    if here.is_dir():
        owner = here.stat().st_uid
        told = (f"Using {here}, which belongs to {name_of(owner)}.",) if owner != uid else ()
        return Found(here, told)
    notes = []
    for folder in _above(start, stop):
        home = folder / NAME
        owners = _owners(home)
        if owners is None:
            continue
        if owners == {uid}:
            return Found(home)
        if sudo_uid is not None and owners == {sudo_uid}:
            return Found(home, (f"Using {home}, which belongs to {name_of(sudo_uid)}.",))
        names = " and ".join(sorted(name_of(owner) for owner in owners))
        notes.append(
            f"{home} belongs to {names} and is not used. Set TUNER_HOME={home} to use it anyway."
        )
    return Found(here, tuple(notes))


def make(home: Path) -> None:
    """Create the home, private and invisible to git, if it is missing."""
    try:
        if not home.is_dir():
            make_folder(home.parent, 0o777)
            # A bind mount's owner may be unknown here (a container), and PostgreSQL does not
            # run as a user without a name: then the home stays root's.
            owner = home.parent.stat().st_uid
            make_folder(home, to_owner=name_of(owner) != str(owner))
        ignore = home / ".gitignore"
        if not ignore.exists():
            with os.fdopen(open_private(ignore, os.O_WRONLY), "w") as file:
                file.write("*\n")
    except OSError as error:
        raise MachineError(
            f"The folder {home} cannot be used: {error.strerror}. Set TUNER_HOME to a folder that "
            "you can write to, or give a server with --database URL."
        ) from error


def make_cache(home: Path) -> None:
    """Create the home and its cache, before an objective makes it with permissions of its own."""
    make(home)
    make_folder(home / "cache")


def exposure(home: Path) -> str | None:
    """Return a warning if every user of this machine can look into an existing home."""
    try:
        mode = home.stat().st_mode & 0o777
    except OSError:
        return None
    if not mode & 0o007:
        return None
    return (
        f"Every user of this machine can look into {home} (mode {mode:o}): it holds decoded "
        f"images, logs and results. Make it private with:  chmod 700 {home}"
    )


def make_folder(path: Path, mode: int = 0o700, *, to_owner: bool = True) -> None:
    """Create a folder and its missing parents, as root for the owner of the folder it is in."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return  # another process was faster, and sees to its owner
    if to_owner and os.geteuid() == 0:
        _hand_over_folder(path)


def open_private(path: Path, flags: int) -> int:
    """Open a file below a home, made for its owner only; a symbolic link is refused.

    With O_EXCL a file that exists is a FileExistsError, as with `os.open`.
    """
    while True:
        try:
            # Created and opened are two calls, so that we know which it was: a file that was
            # there before may be a hard link to anything, and must not be given away.
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
        else:
            hand_over(fd, path.parent)
            return fd
        with suppress(FileNotFoundError):  # removed between the two calls: create it again
            return os.open(path, flags | os.O_NOFOLLOW)


def write_private(path: Path, content: str) -> None:
    """Write a file below a home, whole or not at all.

    Not by `files.whole_file`, which serves the person who names a file: it follows a link to
    where that person wants it and keeps the owner. Here nobody named the file, and root may write
    into another user's folder: a link there could lead anywhere, so it is replaced, and what is
    made is private and handed to the folder's owner.
    """
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with os.fdopen(open_private(draft, os.O_WRONLY | os.O_EXCL), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)


def hand_over(fd: int, folder: Path) -> None:
    """Give a file that this process has just created to the owner of its folder, as root."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if owner.st_uid != 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)


def name_of(uid: int) -> str:
    """Return the user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _hand_over_folder(path: Path) -> None:
    """Give a folder that we have just made to the owner of its parent."""
    owner = path.parent.stat()
    if owner.st_uid == 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # The parent's owner may have swapped the new folder for another one of root's. An
        # empty one is no loss, and only an empty one is handed over.
        if os.fstat(fd).st_uid == 0 and not any(os.scandir(fd)):
            os.fchown(fd, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)


def _above(start: Path, stop: Path | None) -> Iterator[Path]:
    """Yield the folders above `start` in which a home is looked for, the nearest first."""
    if start == stop:
        return
    device = start.stat().st_dev
    for folder in start.parents:
        if folder.stat().st_dev != device:
            return
        yield folder
        if folder == stop:
            return


def _owners(home: Path) -> set[int] | None:
    """Return who owns a home (and the link to it, if it is one); None if it is no home."""
    try:
        if _MARKS.isdisjoint(entry.name for entry in home.iterdir()):
            return None
        return {home.lstat().st_uid, home.stat().st_uid}
    except PermissionError:
        # A private home of somebody else: its inside cannot be seen, its owner can.
        return {home.lstat().st_uid}
    except OSError:
        return None
