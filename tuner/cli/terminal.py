"""Standard output and standard error. All printing goes through here or `console`.

Names, questions, reasons, classes, file names and logs come from study files,
images, trainers and the database. They are data: none of their control characters
may reach a terminal, which would obey them, and tags in them are not markup.
"""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from tuner import logs
from tuner.text import escape

UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and line feed, DEL, C1 (\x9b starts an escape)
    "\u200e\u200f\u2028-\u202e\u2066-\u2069"  # separators and marks that reorder a line
    "\ud800-\udfff"  # surrogates, which no encoding can write
    "]"
)
"""Characters that a terminal obeys instead of showing them."""


REPLACED = " (replaced)"
"""Printed after a file's name if an earlier file was replaced."""


def readable(text: str) -> str:
    r"""Return a text with every control character written out, e.g. ESC as \x1b."""
    return UNSAFE.sub(escape, text)


def echo(
    text: object = "", *, err: bool = False, bold: bool = False, fg: str | None = None
) -> None:
    """Print a line; colours only on a terminal."""
    shown = readable(str(text))
    if bold or fg:
        shown = click.style(shown, bold=bold or None, fg=fg)
    click.echo(shown, file=sys.stderr if err else sys.stdout)


def echo_json(
    body: Any,
    *,
    indent: int | None = 1,
    allow_nan: bool = True,
    default: Callable[[Any], Any] | None = None,
) -> None:
    """Print a value as JSON; control characters are escaped, so the value reads back unchanged."""
    encodes_all = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(
        body, ensure_ascii=not encodes_all, indent=indent, allow_nan=allow_nan, default=default
    )
    click.echo(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text), file=sys.stdout)


def write_bytes(content: bytes) -> None:
    """Write bytes to standard output unchanged."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def confirm(question: str) -> None:
    """Ask a question; abort the command unless the answer is yes."""
    click.confirm(readable(question), abort=True)


def prompt_password() -> str:
    """Ask twice for a password, which is not shown."""
    given: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    return given


def show_progress(what: str, done: int, total: int) -> None:
    """Show the progress of a long step, on one line of a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{readable(what)}: {done}/{total}")
        sys.stderr.flush()


def clear_progress() -> None:
    """Clear the line of progress."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


class ReadableFormatter(logging.Formatter):
    """Formats log records with every control character written out."""

    def __init__(self, layout: str = "%(asctime)s %(message)s") -> None:
        super().__init__(layout, datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text; tracebacks keep their lines."""
        return readable(logs.without_secrets(super().format(record)))


def use_log_format(name: str) -> None:
    """Write log records, and Python's warnings, as text or as JSON from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, ReadableFormatter | logs.JsonFormatter):
            handler.setFormatter(logs.JsonFormatter() if name == "json" else ReadableFormatter())
    logging.captureWarnings(name == "json")


def report(text: str, level: int = logging.INFO) -> None:
    """Print a status message; if logs are JSON, as a log record.

    Unattended programs then print nothing but JSON.
    """
    if any(isinstance(one.formatter, logs.JsonFormatter) for one in logging.getLogger().handlers):
        logging.getLogger("tuner").log(level, "%s", text)
    else:
        echo(text, err=level > logging.INFO)


def open_closed_streams() -> None:
    """Open standard streams that the caller closed (`>&-`) on the null device.

    Otherwise they are None, and a file opened later would get their descriptor.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def replace_unencodable() -> None:
    """Print `?` for characters that the terminal's encoding lacks (PYTHONIOENCODING=ascii)."""
    for stream in (sys.stdout, sys.stderr):
        _replace_unencodable(stream)


def _replace_unencodable(stream: IO[str]) -> None:
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="replace")
