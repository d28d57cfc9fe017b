"""The console that tables are printed on."""

from rich.console import Console

WIDE = 200
"""Columns of what is not a terminal: a file or a pipe wraps nothing."""


def open_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for any table elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)
