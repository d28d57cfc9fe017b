"""Where a study was launched from: what one must know to launch it again."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tuner import __version__

PACKAGES = ("torch", "torchvision", "optuna", "numpy", "sqlalchemy")


def provenance() -> dict[str, Any]:
    """Describe this launch: versions, machine, and the state of the git checkout, if it is one."""
    return {
        "tuner": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
        "git": _git(),
        "launched": datetime.now(UTC).isoformat(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    commit = _output("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_output("status", "--porcelain"))}


def _output(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
