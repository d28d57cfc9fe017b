"""What a shell completes a study's name to: names that commands have seen, and study files.

A key press must not wait for a database, and must not start one. So every command that has
opened the database leaves the names that it holds in a file of the home, and completion reads
that file alone.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tuner.errors import TunerError
from tuner.home import write_private
from tuner.settings import Settings, from_environment
from tuner.spec.study_ref import StudyRef

NAMES = "names.json"


class StudyName(click.ParamType):  # type: ignore[type-arg]  # generic in later versions only
    """A study: NAME, NAME@VERSION or the path of its file, parsed to a `StudyRef`.

    Completed from the names that are stored; `files` adds those of study files.
    """

    name = "text"

    def __init__(self, *, files: bool = False) -> None:
        self._files = files

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> StudyRef:
        """Return which study a text means."""
        return value if isinstance(value, StudyRef) else StudyRef.parse(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names that begin as what was typed; a path is left to the shell."""
        if "/" in incomplete or incomplete.startswith("."):
            return [CompletionItem(incomplete, type="file")]
        names: list[str] = []
        # Nothing that goes wrong here may reach the line that somebody is typing.
        with contextlib.suppress(TunerError, OSError):
            names += stored_names(from_environment(os.environ))
        if self._files:
            from tuner.cli.options import study_folders

            names += [file.stem for folder in study_folders() for file in folder.glob("*.toml")]
        return [
            CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)
        ]


def parse_study(command: click.Command) -> None:
    """Let a command parse its study, and complete its name."""
    for parameter in command.params:
        if parameter.name in ("study", "other"):
            parameter.type = StudyName(files=command.name in ("launch", "run", "validate", "check"))


def stored_names(settings: Settings) -> list[str]:
    """Return the names that the last command saw in the database of these settings."""
    try:
        names = json.loads((settings.home / NAMES).read_text()).get(_key(settings), [])
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def remember_names(settings: Settings, names: Sequence[str]) -> None:
    """Keep the names that a database holds, where there is a home to keep them in."""
    path = settings.home / NAMES
    if not settings.home.is_dir() or stored_names(settings) == list(names):
        return
    with contextlib.suppress(TunerError, OSError):
        write_private(path, json.dumps({**_all(path), _key(settings): list(names)}))


def _all(path: Path) -> dict[str, object]:
    try:
        body = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _key(settings: Settings) -> str:
    """Return what tells databases apart, without an address or a password."""
    if settings.embedded:
        return "embedded"
    if settings.database_url is None:
        return "libpq"
    where = re.sub("//[^/]*@", "//", settings.database_url)
    return hashlib.sha256(where.encode()).hexdigest()[:16]
