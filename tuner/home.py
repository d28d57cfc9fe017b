"""Finds and creates tuner's home folder, private to its owner.

Root may work in another user's home (`sudo tuner ...`). The files that it creates there are given
to that user, who could not continue otherwise. Only files that this process has just created are
given away: anything else may be a hard link or a folder planted there in order to be handed over.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import MachineError
from tuner.files import write_whole

NAME = ".tuner"
_MARKS = frozenset((".gitignore", "postgres", "elsewhere"))
"""Content by which a home is recognised; another program may also have a folder `.tuner`."""


@dataclass(frozen=True)
class FoundHome:
    """The home that commands in a folder use, and notes on the choice."""

    home: Path
    notes: tuple[str, ...] = ()


def find(start: Path, *, stop: Path | None, uid: int, sudo_uid: int | None = None) -> FoundHome:
    """Return the home of a folder: its own, or the nearest one above, or a new one here.

    Like git's search for `.git`, the search ends at the root of the file system that `start` is
    on, and at `stop` (the user's home directory) if `start` is below it. A home above that belongs
    to another user is skipped: in a shared folder anyone could have put it there. Under sudo the
    homes of the user who ran sudo count as our own.
    """
    here = start / NAME
    if here.is_dir():
        owner = here.stat().st_uid
        told = (f"Using {here}, which belongs to {name_of(owner)}.",) if owner != uid else ()
        return FoundHome(here, told)
    notes = []
    for folder in _above(start, stop):
        home = folder / NAME
        owners = _owners(home)
        if owners is None:
            continue
        if owners == {uid}:
            return FoundHome(home)
        if sudo_uid is not None and owners == {sudo_uid}:
            return FoundHome(home, (f"Using {home}, which belongs to {name_of(sudo_uid)}.",))
        names = " and ".join(sorted(name_of(owner) for owner in owners))
        notes.append(
            f"{home} belongs to {names} and is not used. Set TUNER_HOME={home} to use it anyway."
        )
    return FoundHome(here, tuple(notes))


def make(home: Path) -> None:
    """Create the home, private and invisible to git, if it is missing."""
    try:
        if not home.is_dir():
            make_folder(home.parent, 0o777)
            # In a container, the owner of a bind mount may be unknown, and PostgreSQL does not
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
    """Create the home and its cache, before an objective creates it with other permissions."""
    make(home)
    make_folder(home / "cache")


def exposure(home: Path) -> str | None:
    """Return a warning if every user of this machine can read an existing home."""
    try:
        mode = home.stat().st_mode & 0o777
    except OSError:
        return None
    if not mode & 0o007:
        return None
    return (
        f"Every user of this machine can read {home} (mode {mode:o}), which contains decoded "
        f"images, logs and results. Make it private with:  chmod 700 {home}"
    )


def make_folder(path: Path, mode: int = 0o700, *, to_owner: bool = True) -> None:
    """Create a folder and its missing parents; as root, owned by the parent's owner."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return  # another process was faster, and sets its owner
    if to_owner and os.geteuid() == 0:
        _hand_over_folder(path)


NEW = os.O_WRONLY | os.O_EXCL
"""Flags of `open_private` for a file that must not exist yet."""


def open_private(path: Path, flags: int) -> int:
    """Open a file below a home, readable by its owner only; symbolic links are refused.

    With O_EXCL a file that exists is a FileExistsError, as with `os.open`.
    """
    while True:
        try:
            # Creating and opening are separate calls, so that we know whether we created the
            # file: an existing one may be a hard link to anything, and must not be given away.
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
    """Write a file below a home whole.

    Root may be writing into another user's folder, where a link could lead anywhere: so links are
    replaced, not followed, and the new file is private and given to the folder's owner.
    """
    make_folder(path.parent)
    try:
        write_whole(path, content.encode(), lambda draft: open_private(draft, NEW))
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}.") from None


def hand_over(fd: int, folder: Path) -> None:
    """As root, give a file that this process has just created to the owner of its folder."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if owner.st_uid != 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)


def name_of(uid: int) -> str:
    """Return the user's name, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _hand_over_folder(path: Path) -> None:
    """Give a folder that we have just created to the owner of its parent."""
    owner = path.parent.stat()
    if owner.st_uid == 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # The parent's owner may have swapped the new folder for another folder of root's. So
        # give away only an empty one, which is no loss.
        if os.fstat(fd).st_uid == 0 and not any(os.scandir(fd)):
            os.fchown(fd, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)


def _above(start: Path, stop: Path | None) -> Iterator[Path]:
    """Yield the folders above `start` to search for a home, the nearest first."""
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
    """Return the owners of a home (and of the link to it, if any); None if it is not a home."""
    try:
        if _MARKS.isdisjoint(entry.name for entry in home.iterdir()):
            return None
        return {home.lstat().st_uid, home.stat().st_uid}
    except PermissionError:
        # Another user's private home: we see its owner, but not its content.
        return {home.lstat().st_uid}
    except OSError:
        return None
