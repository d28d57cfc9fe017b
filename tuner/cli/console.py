"""The console that tables are printed on, and how they look."""

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
"""Columns of what is not a terminal: a file or a pipe wraps nothing."""
PADDING = re.compile(r"[ \t]+$", re.MULTILINE)
"""What fills a line up to the width of its table."""


class DataConsole(Console):
    """A console on which every text is data: without markup, and with control characters shown."""

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
            # Rich would show each line in a notebook as a page of its own, whatever the file.
            force_jupyter=False,
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as rich lays it out: measured as it will be shown."""
        return super().render_str(readable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield what is shown; here also what came as a Text, which render_str does not see."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(readable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the command line, where it ends every command alike."""
        raise BrokenPipeError


class PlainConsole(DataConsole):
    """A console that is no terminal: nothing is wrapped, and no line ends in spaces."""

    def __init__(self) -> None:
        super().__init__(width=WIDE)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, without the spaces that fill its tables up."""
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(PADDING.sub("", captured.get()))


def open_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for any table elsewhere."""
    console = DataConsole()
    # A notebook's kernel asks for colours, which makes it look like a terminal of 80 columns.
    return console if console.is_terminal and not notebook_display() else PlainConsole()


def notebook_display() -> Callable[..., Any] | None:
    """Return IPython's `display` in a notebook; where IPython was not loaded this is none."""
    loaded = sys.modules.get("IPython")
    shell = None if loaded is None else loaded.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display: Callable[..., Any] = importlib.import_module("IPython.display").display
    return display


def plain_table(title: str | None = None) -> Table:
    """Return a table without lines, its title on the left."""
    return Table(
        # A title is often wider than its table; it stays on one line all the same.
        title=title and styled(title, "italic", no_wrap=True, overflow="ignore"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )


def as_rich(table: "AnswerTable") -> Table:
    """Return an answer's table as rich prints it."""
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
    """Return an answer's table so that no cell is cut.

    Settings go into one column where one for each parameter does not fit, and then as many of
    the other columns are dropped as it takes.
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
    """Return data as a text with a style, measured as it will be shown."""
    return Text(readable(text), style=style, **options)


def print_sentences(console: Console, sentences: Iterable[str]) -> None:
    """Print sentences below a table, moved in a little."""
    for sentence in sentences:
        console.print(Padding(sentence, (0, 0, 0, 2), expand=False))


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """Give a way to say what is being done; shown in place where somebody looks, else not."""
    console = DataConsole(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(text))
