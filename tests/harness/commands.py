"""The command line of `tuner`, called in this process if no separate one is needed."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.cli import main

ANSWERING = {
    "best",
    "compare",
    "confusion",
    "diff",
    "events",
    "export",
    "gap",
    "influence",
    "logs",
    "plot",
    "report",
    "show",
    "status",
    "studies",
    "table",
    "validate",
}
"""Commands that read and print. As a process each spends a second or two on imports."""


@dataclass(frozen=True)
class Done:
    """The result of a command: exit code and output."""

    code: int
    out: str
    err: str


def needs_a_process(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether a command trains, serves or writes, or depends on how Python starts."""
    starts_python = any(name.startswith(("PYTHON", "LANG", "LC_")) for name in environ)
    # Following a log ends only by a signal.
    follows = "--follow" in arguments or "-f" in arguments or "--watch" in arguments
    return arguments[0] not in ANSWERING or "--save" in arguments or follows or starts_python


def answer(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Done:
    """Run a reading command as a shell in a folder would, but in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    out, err = streams
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main.run(list(arguments))
    finally:
        os.environ.clear()
        os.environ.update(before)
    printed = []
    for stream in streams:
        stream.flush()
        printed.append(stream.detach().getvalue().decode())
    return Done(code, *printed)
