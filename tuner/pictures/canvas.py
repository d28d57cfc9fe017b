"""The sheet that all pictures are drawn on: size, type, colours, title and note, and its files."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.typing import RcKeyType

from tuner.pictures import MARK

Dash = tuple[float, Sequence[float]]

FORMATS = ("svg", "png", "pdf")
WIDTH = 7.2
"""In inches: the text width of a page, so that type keeps its size in print."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
"""Distinguishable with all common colour vision deficiencies (Okabe and Ito)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[Dash, ...] = ((0, ()), (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
GREY = "#6b6b6b"
FAINT = "#c8c8c8"
_TITLE, _KEY, _NOTE = 11.0, 8.5, 8.0
"""Points."""
_LINE = 1.36
"""Height of a line of text, in its type size."""
_POINTS = 72.0

_STYLE: Mapping[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that every machine draws the same
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": _KEY,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "svg.hashsalt": "tuner",  # equal pictures are equal files
    "svg.fonttype": "path",  # a page without this font would break the lines elsewhere
    "pdf.fonttype": 42,  # text in a PDF can be searched and edited
    "axes.unicode_minus": True,
    # A dollar in a study's name or a class is a dollar, not the beginning of a formula.
    "text.parse_math": False,
}


@dataclass
class Canvas:
    """A figure with its axes, row by row, and a key for its lines."""

    figure: Figure
    axes: list[Axes]
    key: list[tuple[Artist, str]] = field(default_factory=list)

    def explain(self, artist: Artist, label: str) -> None:
        """Add an entry to the key under the axes."""
        self.key.append((artist, label))

    def explain_labelled(self, axes: Axes) -> None:
        """Add everything drawn with a label to the key."""
        for artist, label in zip(*axes.get_legend_handles_labels(), strict=True):
            self.explain(artist, label)


@dataclass(frozen=True)
class Picture:
    """A drawn sheet with its title and note."""

    sheet: Canvas
    title: str
    """What is seen."""
    note: str
    """What is drawn: which trials, and the meaning of lines and bands."""

    def render(self, form: str, *, bare: bool = False) -> bytes:
        """Return the file's content; `bare` omits title and note, for a page that has its own."""
        figure = self.sheet.figure
        width, height = map(float, figure.get_size_inches())
        with _styled():
            added = _lay_out(self.sheet, *(("", "") if bare else (self.title, self.note)))
            try:
                return _saved(figure, form)
            finally:
                # Restored, so that it can be rendered again in another format.
                figure.set_size_inches(width, height)
                for artist in added:
                    artist.remove()


@contextmanager
def sheet(
    rows: int = 1,
    columns: int = 1,
    *,
    height: float = 3.2,
    width: float = WIDTH,
    heights: Sequence[float] | None = None,
) -> Iterator[Canvas]:
    """Give a sheet with this many axes, to be drawn on inside the context."""
    with _styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
        yield Canvas(figure, list(axes.flat))


def colour(place: int) -> str:
    """Return the colour of the level at this position."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """Return the marker of the level at this position, so that colour is never needed."""
    return MARKERS[place % len(MARKERS)]


def dash(place: int) -> Dash:
    """Return the line style of the level at this position; it changes when colours repeat."""
    return DASHES[place // len(COLOURS) % len(DASHES)]


def percent(axes: Axes, which: str = "y", digits: int = 0) -> None:
    """Show an axis of fractions in per cent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axis.get_view_interval()
    narrow = high - low < 0.03
    axis.set_major_formatter(PercentFormatter(1.0, decimals=1 if narrow else digits, symbol="%"))


def whole_numbers(axis: Axis) -> None:
    """Mark an axis of counts at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True))


def plain_log(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with labels such as 0.001 instead of powers."""
    axes.set_yscale("log")
    axis = axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _lay_out(sheet: Canvas, title: str, note: str) -> list[Artist]:
    """Extend the sheet by title, key and note; return the added artists."""
    figure = sheet.figure
    width, height = figure.get_size_inches()
    above = textwrap.wrap(title, int(width * 10.8))
    below = textwrap.wrap(note, int(width * 15.6))
    columns, rows = _key_shape(sheet, width)
    top = (len(above) * _TITLE * _LINE + 6) / _POINTS if above else 0.02
    foot = (len(below) * _NOTE * _LINE + 6) / _POINTS if below else 0.02
    bottom = foot + (rows * _KEY * 1.75 + 6) / _POINTS * bool(rows)
    whole = height + top + bottom
    figure.set_size_inches(width, whole)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "sheets are laid out by constraints"
    engine.set(rect=(0.004, bottom / whole, 0.986, height / whole))
    edge = 2 / _POINTS / whole
    added: list[Artist] = [
        figure.text(
            0.01, 1 - edge, "\n".join(above), va="top", size=_TITLE, weight="bold", linespacing=1.15
        ),
        figure.text(
            0.01, edge, "\n".join(below), va="bottom", size=_NOTE, color=GREY, linespacing=1.15
        ),
    ]
    if sheet.key:
        artists, labels = zip(*sheet.key, strict=True)
        legend = figure.legend(
            artists, labels, loc="lower center", ncols=columns, borderaxespad=0, borderpad=0.2,
            bbox_to_anchor=(0.5, foot / whole),
        )  # fmt: skip
        legend.set_in_layout(False)
        added.append(legend)
    return added


def _key_shape(sheet: Canvas, width: float) -> tuple[int, int]:
    """Return how many columns of the key fit, and the resulting number of rows."""
    if not sheet.key:
        return 1, 0
    widest = max(len(label) for _, label in sheet.key)
    columns = max(1, min(len(sheet.key), int(width * 13.5 / (widest + 8))))
    return columns, -(-len(sheet.key) // columns)


def _saved(figure: Figure, form: str) -> bytes:
    assert form in FORMATS
    # No date: the same study drawn twice is the same file.
    metadata: dict[str, dict[str, str | None]] = {
        "svg": {"Date": None, "Creator": MARK},
        "pdf": {"CreationDate": None, "Creator": MARK},
        "png": {"Software": MARK},
    }
    target = io.BytesIO()
    figure.savefig(target, format=form, dpi=200, metadata=metadata[form], facecolor="white")
    return target.getvalue()


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(dict(_STYLE)):
        yield
