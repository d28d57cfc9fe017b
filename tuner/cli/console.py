"""The console that prints tables, and their layout."""

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tuner.cli.terminal import readable

if TYPE_CHECKING:
    from tuner.answers.table import Table as AnswerTable

WIDE = 200
"""The width of a file or pipe, so that nothing is wrapped."""
PADDING = re.compile(r"[ \t]+$", re.MULTILINE)
"""Padding at the end of a line."""


class DataConsole(Console):
    """A console that treats every text as data: no markup, and control characters made visible."""

    def __init__(
        self,
        file: IO[str] | None = None,
        *,
        stderr: bool = False,
        width: int | None = None,
        force_terminal: bool | None = None,
    ) -> None:
        super().__init__(
            file=file,
            stderr=stderr,
            width=width,
            force_terminal=force_terminal,
            markup=False,
            emoji=False,
            highlight=False,
            # In a notebook, Rich would display each line as separate output, whatever the file.
            force_jupyter=False,
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text whose width is measured as it will be shown."""
        return super().render_str(readable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield the segments to show; also covers Text objects, which bypass render_str."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(readable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to `main`, which handles it for every command."""
        raise BrokenPipeError


class PlainConsole(DataConsole):
    """A console for files and pipes: nothing is wrapped, and no line ends in spaces."""

    def __init__(self) -> None:
        super().__init__(width=WIDE)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print without the spaces that pad Rich's tables."""
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(PADDING.sub("", captured.get()))


def open_console() -> Console:
    """Return a console as wide as the terminal; elsewhere, wide enough for any table."""
    console = DataConsole()
    # A notebook's kernel requests colours, so Rich would take it for a terminal of 80 columns.
    return console if console.is_terminal and not notebook_display() else PlainConsole()


def notebook_display() -> Callable[..., Any] | None:
    """Return IPython's `display` in a notebook; None elsewhere."""
    loaded = sys.modules.get("IPython")
    shell = None if loaded is None else loaded.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display: Callable[..., Any] = importlib.import_module("IPython.display").display
    return display


def plain_table(title: str | None = None) -> Table:
    """Return a table without lines and with its title on the left."""
    return Table(
        # A title is often wider than its table; it still stays on one line.
        title=title and styled(title, "italic", no_wrap=True, overflow="ignore"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )


def as_rich(table: "AnswerTable") -> Table:
    """Convert an answer's table to a Rich table."""
    shown = plain_table(table.title or None)
    for place, name in enumerate(table.head):
        side: Literal["left", "right"] = "left" if place in table.left else "right"
        if place in table.wrapped:
            shown.add_column(name, justify=side, overflow="fold")
        else:
            shown.add_column(name, justify=side, no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    return shown


def as_fitting(console: Console, table: "AnswerTable", dropped: Sequence[int] = ()) -> Table:
    """Convert an answer's table so that no cell is cut.

    If one column per parameter does not fit, settings get one column; then as many of
    the `dropped` columns are left out as necessary.
    """
    shown = as_rich(table)
    if table.setting and not fits(console, shown):
        return as_rich(table.folded)
    for count in range(1, len(dropped) + 1):
        if fits(console, shown):
            break
        shown = as_rich(table.without(dropped[:count]))
    return shown


def fits(console: Console, table: Table, beside: int = 0) -> bool:
    """Return whether a table fits on this console uncut, with this many columns to spare."""
    endless = console.options.update(max_width=10_000)
    return Measurement.get(console, endless, table).maximum <= console.width - beside


def styled(text: str, style: str = "", **options: Any) -> Text:
    """Return data as styled text, measured as it will be shown."""
    return Text(readable(text), style=style, **options)


def print_sentences(console: Console, sentences: Iterable[str]) -> None:
    """Print sentences below a table, indented."""
    for sentence in sentences:
        console.print(Padding(sentence, (0, 0, 0, 2), expand=False))


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """Give a function that reports progress in place; without a terminal, it prints nothing."""
    console = DataConsole(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(text))
