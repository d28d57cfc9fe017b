"""Shell completion of study names: names that earlier commands saw, and study files.

A key press must not wait for a database or start one. So every command that opens the
database writes its study names to a file in the home, and completion only reads that file.
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

    Completed from stored names; `files` adds the names of study files.
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
        """Parse a text to the study it refers to."""
        return value if isinstance(value, StudyRef) else StudyRef.parse(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names that begin with what was typed; paths are left to the shell."""
        if "/" in incomplete or incomplete.startswith("."):
            return [CompletionItem(incomplete, type="file")]
        names: list[str] = []
        # No error may disturb the line that is being typed.
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
    """Return the study names that the last command saw in this database."""
    try:
        names = json.loads((settings.home / NAMES).read_text()).get(_key(settings), [])
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def remember_names(settings: Settings, names: Sequence[str]) -> None:
    """Store the study names of a database, if there is a home."""
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
    """Return a key that identifies the database without revealing address or password."""
    if settings.embedded:
        return "embedded"
    if settings.database_url is None:
        return "libpq"
    where = re.sub("//[^/]*@", "//", settings.database_url)
    return hashlib.sha256(where.encode()).hexdigest()[:16]
