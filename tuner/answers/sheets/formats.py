"""Sheets in the formats that people and programs read, with the same columns in each.

Rows are iterated once and not kept. If the first line depends on the last row (which columns are
numbers), or the file has its index at the end, a temporary file is used.
"""

import json
import math
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import IO, Any

from tuner.answers.columns import unit_of
from tuner.answers.sheets import markup
from tuner.answers.sheets.contents import MeanCell, Sheet
from tuner.answers.sheets.export import PIECE, csv_pieces, json_cell, json_pieces
from tuner.answers.words import figure, fixed
from tuner.errors import UserError
from tuner.records import NUMBER, Unit

__all__ = ["BINARY", "ENDINGS", "TYPESET", "Layout", "format_of", "pieces", "write"]

EXCEL_ROWS = 1_048_575
"""The most rows below the header of an Excel sheet."""
# Bytes that are not allowed in XML, and so not in a cell of Excel.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
GROUP_CELLS = 500_000
"""Cells per row group of a Parquet file; a group is built in memory."""
DIGITS = 6
"""Significant digits in tables for people; files for programs keep every bit."""


@dataclass(frozen=True)
class Layout:
    """The look of a table for people; files for programs use only `digits`."""

    digits: int | None = None
    """Decimals of figures; None for the usual number of each figure."""
    exact: Collection[str] = ()
    """Columns that are not rounded: parameters, and those that have few digits anyway."""
    plain_heads: bool = False
    """Whether heads of figures are words: `val loss` for val_loss."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    """Units of columns whose name does not tell: compared means, an objective's metrics."""
    caption: str | None = None
    label: str | None = None

    def unit(self, column: str) -> Unit | None:
        """Return the unit of a column."""
        return self.units.get(column) or unit_of(column)

    def text(self, column: str, cell: Any) -> str:
        """Return a cell formatted for people."""
        if isinstance(cell, MeanCell):
            half = "" if cell.half is None else f" ± {self.text(column, cell.half)}"
            return self.text(column, cell.value) + half
        if not isinstance(cell, float):
            return _readable(cell)
        if column in self.exact or not math.isfinite(cell):
            return _readable(cell)
        if column == "p" and (self.plain_heads or self.digits is not None):
            return f"{cell:.2g}"
        unit = self.unit(column) or NUMBER
        shown = cell * unit.scale
        if self.digits is not None:
            return fixed(shown, self.digits).replace("−", "-")
        if not self.plain_heads or unit.significant:
            return _readable(shown)
        return figure(replace(unit, mark="", signed=False), cell).replace("−", "-")

    def head(self, column: str) -> str:
        """Return the head of a column."""
        if column in self.exact:
            return column
        name = column.replace("_", " ") if self.plain_heads else column
        unit = self.unit(column)
        if unit is None or unit.scale == 1:
            return name
        return f"{name} ({unit.label})"

    def rounded(self, sheet: Sheet) -> Sheet:
        """Return a sheet for programs, with its figures rounded if `digits` is set."""
        if self.digits is None:
            return sheet
        digits = self.digits

        def number(column: str, cell: Any) -> Any:
            return (
                round(cell, digits)
                if isinstance(cell, float) and column not in (*self.exact, "p")
                else cell
            )

        rows = (
            [number(name, cell) for name, cell in zip(sheet.columns, row, strict=True)]
            for row in sheet.rows
        )
        return Sheet(sheet.columns, list(rows) if isinstance(sheet.rows, list) else rows)


def write(sheet: Sheet, form: str, layout: Layout | None = None) -> bytes:
    """Return a sheet in a format."""
    return b"".join(pieces(sheet, form, layout))


def pieces(sheet: Sheet, form: str, layout: Layout | None = None) -> Iterator[bytes]:
    """Yield a sheet in a format, piece by piece."""
    chosen = layout or Layout()
    if form in TYPESET:
        return TYPESET[form](sheet, chosen)
    return FORMATS[form](chosen.rounded(sheet))


def format_of(path: str) -> str | None:
    """Return the format that a file name implies."""
    ending = path.rsplit(".", 1)[-1].lower() if "." in path else ""
    return {name: form for form, names in ENDINGS.items() for name in names}.get(ending)


def _csv(sheet: Sheet) -> Iterator[bytes]:
    return (piece.encode() for piece in csv_pieces(sheet.columns, sheet.rows))


def _json(sheet: Sheet) -> Iterator[bytes]:
    return (piece.encode() for piece in json_pieces(sheet.columns, sheet.rows))


def _markdown(sheet: Sheet, layout: Layout) -> Iterator[bytes]:
    def line(cells: Sequence[str]) -> str:
        return markup.row([cell.replace("-", "−") if _is_number(cell) else cell for cell in cells])

    with tempfile.TemporaryFile() as body:
        numbers = _write_lines(body, sheet, layout, line)
        heads = [layout.head(name) for name in sheet.columns]
        marks = ["---:" if number else "---" for number in numbers]
        yield f"{markup.row(heads)}\n{markup.row(marks)}\n".encode()
        yield from _read_again(body)


def _write_lines(
    file: IO[bytes], sheet: Sheet, layout: Layout, line: Callable[[Sequence[str]], str]
) -> list[bool]:
    """Write the rows of a table for people, and return which of its columns are numbers."""
    numbers, any_row = [True] * len(sheet.columns), False
    for row in sheet.rows:
        texts = [layout.text(name, cell) for name, cell in zip(sheet.columns, row, strict=True)]
        numbers = [kept and _is_number(text) for kept, text in zip(numbers, texts, strict=True)]
        file.write(f"{line(texts)}\n".encode())
        any_row = True
    return [any_row and number for number in numbers]


def _read_again(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what has been written to a file."""
    file.seek(0)
    while piece := file.read(PIECE):
        yield piece


def _latex(sheet: Sheet, layout: Layout) -> Iterator[bytes]:
    """Yield a table for the package booktabs; with a caption, a floating one."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(_in_latex(cell) for cell in cells) + r" \\"

    floats = []
    if layout.caption is not None:
        # In LaTeX, a label refers to the number of the \\caption before it.
        label = [] if layout.label is None else [f"\\label{{{layout.label}}}"]
        caption = f"\\caption{{{_in_latex(layout.caption)}}}"
        floats = ["\\begin{table}", "\\centering", caption, *label]
    with tempfile.TemporaryFile() as body:
        numbers = _write_lines(body, sheet, layout, line)
        sides = "".join("r" if number else "l" for number in numbers)
        head = [
            "% \\usepackage{booktabs}",
            *floats,
            f"\\begin{{tabular}}{{{sides}}}",
            "\\toprule",
            line([layout.head(name) for name in sheet.columns]),
            "\\midrule",
        ]
        yield ("\n".join(head) + "\n").encode()
        yield from _read_again(body)
        tail = ["\\bottomrule", "\\end{tabular}", *(["\\end{table}"] if floats else [])]
        yield ("\n".join(tail) + "\n").encode()


def _in_latex(text: str) -> str:
    if "±" in text and _is_number(text):
        return f"${text.replace('±', chr(92) + 'pm')}$"
    if _is_number(text):
        return text.replace("-", "$-$")
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _parquet(sheet: Sheet) -> Iterator[bytes]:
    """Yield a Parquet file of typed columns, whose types depend on all of their values.

    rows ── walked once ──> lines of a file, and the kinds of each column's values
    lines ── some thousand at a time, by these types ──> row groups of the Parquet file
    """
    import pyarrow as pa
    from pyarrow import parquet

    with tempfile.TemporaryFile() as spool, tempfile.TemporaryFile() as file:
        examples: list[dict[type, Any]] = [{} for _ in sheet.columns]
        for row in sheet.rows:
            for seen, value in zip(examples, row, strict=True):
                if value is not None:
                    seen.setdefault(type(value), value)
            spool.write(json.dumps(list(row), default=_spooled).encode() + b"\n")
        types = [_type(*column) for column in zip(sheet.columns, examples, strict=True)]
        schema = pa.schema(list(zip(sheet.columns, types, strict=True)))
        spool.seek(0)
        rows = (json.loads(line) for line in spool)
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            size = max(1, GROUP_CELLS // len(types))
            while group := list(islice(rows, size)):
                columns = zip(types, zip(*group, strict=True), strict=True)
                arrays = [pa.array(_typed(kind, values), kind) for kind, values in columns]
                writer.write_table(pa.table(arrays, schema=schema))
        yield from _read_again(file)


def _type(name: str, examples: Mapping[type, Any]) -> Any:
    """Return a column's type, given an example of each Python type among its values.

    Values of several types, as some parameters have, become texts.
    """
    import pyarrow as pa

    kinds = set(examples)
    if not kinds:
        return pa.string() if name in TEXTS else pa.float64()
    if kinds <= {int, float} and float in kinds:
        return pa.float64()
    return pa.string() if len(kinds) > 1 else pa.array(list(examples.values())).type


def _spooled(value: Any) -> Any:
    """Convert a value that JSON cannot hold: a time, or a NumPy number."""
    return {"time": value.isoformat()} if isinstance(value, datetime) else value.item()


def _typed(kind: Any, values: Iterable[Any]) -> list[Any]:
    """Convert spooled values to a column's type."""
    import pyarrow as pa

    read: list[Any] = [
        datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value
        for value in values
    ]
    if kind == pa.float64():
        return [None if value is None else float(value) for value in read]
    if kind == pa.string():
        return [None if value is None else str(value) for value in read]
    return read


def _excel(sheet: Sheet) -> Iterator[bytes]:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    book = Workbook(write_only=True)
    page = book.create_sheet("tuner")
    page.freeze_panes = "A2"
    head = []
    for name in sheet.columns:
        cell = WriteOnlyCell(page, value=name)
        cell.font = Font(bold=True)
        head.append(cell)
    page.append(head)
    for at, row in enumerate(sheet.rows):
        if at >= EXCEL_ROWS:
            raise UserError(
                f"Excel holds {EXCEL_ROWS:,} rows a sheet, and there are more; take --best, or "
                "--format parquet or csv."
            )
        page.append([_in_excel(page, cell) for cell in row])
    with tempfile.TemporaryFile() as file:
        book.save(file)
        yield from _read_again(file)


def _in_excel(page: Any, value: Any) -> Any:
    from openpyxl.cell import WriteOnlyCell

    plain = json_cell(value)
    if not isinstance(plain, str):
        return plain
    cell = WriteOnlyCell(page, value=UNPRINTABLE.sub("", plain))
    # A text that begins with = would become a formula; it is written as text.
    cell.data_type = "s"
    return cell


def _readable(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return f"{cell:.{DIGITS}g}"
    return cell.isoformat() if isinstance(cell, datetime) else str(cell)


def _is_number(text: str) -> bool:
    """Return whether a cell's text is a number, or a mean with its ±."""
    try:
        for part in (text or "0").split(" ± "):
            float(part)
    except ValueError:
        return False
    return True


FORMATS: Mapping[str, Callable[[Sheet], Iterator[bytes]]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "markdown": lambda sheet: _markdown(sheet, Layout()),
    "latex": lambda sheet: _latex(sheet, Layout()),
    "excel": _excel,
}
TYPESET: Mapping[str, Callable[[Sheet, Layout], Iterator[bytes]]] = {
    "markdown": _markdown,
    "latex": _latex,
}
"""Formats for people, which use a layout."""
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "csv": ("csv",),
    "json": ("json",),
    "parquet": ("parquet", "pq"),
    "markdown": ("md", "markdown"),
    "latex": ("tex",),
    "excel": ("xlsx",),
}
TEXTS = ("reason", "device")
"""Columns that are texts even if all their cells are empty."""
BINARY = ("parquet", "excel")
"""Binary formats, which a terminal cannot show."""
