"""The console that tables are printed on, and how they look."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDE = 200
"""Columns of what is not a terminal: a file or a pipe wraps nothing."""
PADDING = re.compile(r"[ \t]+$", re.MULTILINE)
"""What fills a line up to the width of its table."""


class PlainConsole(Console):
    """A console that is no terminal: nothing is wrapped, and no line ends in spaces."""

    def __init__(self) -> None:
        super().__init__(highlight=False, width=WIDE)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, without the spaces that fill its tables up."""
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(PADDING.sub("", captured.get()))


def open_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for any table elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else PlainConsole()


def plain_table(title: str | None = None) -> Table:
    """Return a table without lines, its title on the left."""
    return Table(
        # A title is often wider than its table; it stays on one line all the same.
        title=title and Text(title, style="italic", no_wrap=True, overflow="ignore"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )


def print_sentences(console: Console, sentences: Iterable[str]) -> None:
    """Print sentences below a table, moved in a little."""
    for sentence in sentences:
        console.print(Padding(Text(sentence), (0, 0, 0, 2), expand=False))


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """Give a way to say what is being done; shown in place where somebody looks, else not."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(text))
