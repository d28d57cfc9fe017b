"""The provenance of a launch: what is needed to launch the study again."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tuner import __version__
from tuner.settings import git_environment, person
from tuner.version import version_of

PACKAGES = ("torch", "torchvision", "optuna", "numpy", "sqlalchemy")


def provenance() -> dict[str, Any]:
    """Describe this launch: versions, machine, and the state of the git checkout, if it is one."""
    return {
        "tuner": __version__,
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "host": platform.node(),
        "who": person(),
        "platform": platform.platform(),
        "git": _git(),
        "launched": datetime.now(UTC).isoformat(),
    }


def _git() -> dict[str, Any] | None:
    commit = _output("rev-parse", "HEAD")
    if commit is None:
        return None
    # Submodules have their own configuration, which could run programs, so git skips them.
    changes = _output("status", "--porcelain", "--ignore-submodules=dirty", more=_filters_off())
    return {"commit": commit, "dirty": bool(changes)}


_QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-optional-locks")
"""Switches off programs named in the checkout's own configuration, which is not trusted."""


def _filters_off() -> dict[str, str]:
    """Return an environment that switches off the filters of the checkout's configuration.

    `git status` runs the clean filter of a file that may have changed. Without the filter, such
    a file counts as changed, which only marks the launch as dirty.
    """
    pattern = r"^filter\..*\.(clean|smudge|process|required)$"
    names = _output("config", "--null", "--name-only", "--get-regexp", pattern) or ""
    settings = {name: "" for name in names.split("\0") if name}
    settings |= {name: "false" for name in settings if name.endswith(".required")}
    environment = {"GIT_CONFIG_COUNT": str(len(settings))}
    for place, (name, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{place}": name, f"GIT_CONFIG_VALUE_{place}": value}
    return environment


def _output(*arguments: str, more: Mapping[str, str] | None = None) -> str | None:
    try:
        done = subprocess.run(
            ["git", *_QUIET, *arguments],
            env={**git_environment(), **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
