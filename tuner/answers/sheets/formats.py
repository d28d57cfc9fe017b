"""Sheets in the formats that people and programs read: the same columns in each."""

import io
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tuner.answers.columns import unit_of
from tuner.answers.sheets import markup
from tuner.answers.sheets.contents import MeanCell, Sheet
from tuner.answers.sheets.export import as_csv, as_json, json_cell
from tuner.answers.words import figure, fixed
from tuner.errors import UserError
from tuner.records import NUMBER, Unit

__all__ = ["BINARY", "ENDINGS", "TYPESET", "Layout", "format_of", "write"]

EXCEL_ROWS = 1_048_575
"""Rows that a sheet of Excel holds below its header."""
# Bytes that no XML may hold, and so no cell of Excel.
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
DIGITS = 6
"""Significant digits in tables that people read; files for programs keep every bit."""


@dataclass(frozen=True)
class Layout:
    """How a table looks that people read; files for programs heed the digits alone."""

    digits: int | None = None
    """After the decimal point of figures; None for as many as a figure usually has."""
    exact: Collection[str] = ()
    """Columns whose numbers are no figures: parameters, and what is given in few digits anyway."""
    plain_heads: bool = False
    """Whether heads are words: `val loss` for val_loss."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    """Of columns that have none by their name: a mean that is compared, an objective's metric."""
    caption: str | None = None
    label: str | None = None

    def unit(self, column: str) -> Unit | None:
        """Return the unit that people read a column in."""
        return self.units.get(column) or unit_of(column)

    def text(self, column: str, cell: Any) -> str:
        """Return a cell as people read it."""
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
        """Return what stands above a column."""
        name = column.replace("_", " ") if self.plain_heads else column
        unit = self.unit(column)
        if column in self.exact or unit is None or unit.scale == 1:
            return name
        return f"{name} ({unit.label})"

    def rounded(self, sheet: Sheet) -> Sheet:
        """Return a sheet for programs, its figures rounded where digits were asked for."""
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
    chosen = layout or Layout()
    if form in TYPESET:
        return TYPESET[form](sheet, chosen)
    return FORMATS[form](chosen.rounded(sheet))


def format_of(path: str) -> str | None:
    """Return the format that a file's name asks for."""
    ending = path.rsplit(".", 1)[-1].lower() if "." in path else ""
    return {name: form for form, names in ENDINGS.items() for name in names}.get(ending)


def _csv(sheet: Sheet) -> bytes:
    return as_csv(sheet.columns, sheet.rows).encode()


def _json(sheet: Sheet) -> bytes:
    return as_json(sheet.columns, sheet.rows).encode()


def _markdown(sheet: Sheet, layout: Layout) -> bytes:
    rows = _texts(sheet, layout)
    marks = [
        "---:" if all(_is_number(row[at]) for row in rows) and rows else "---"
        for at in range(len(sheet.columns))
    ]
    shown = [[_with_minus(cell) for cell in row] for row in rows]
    heads = [layout.head(name) for name in sheet.columns]
    lines = [markup.row(line) for line in (heads, marks, *shown)]
    return ("\n".join(lines) + "\n").encode()


def _texts(sheet: Sheet, layout: Layout) -> list[list[str]]:
    names = sheet.columns
    return [
        [layout.text(name, cell) for name, cell in zip(names, row, strict=True)]
        for row in sheet.rows
    ]


def _with_minus(cell: str) -> str:
    return cell.replace("-", "−") if _is_number(cell) else cell


def _latex(sheet: Sheet, layout: Layout) -> bytes:
    """Return a table for the package booktabs; with a caption it is one that floats."""
    rows = _texts(sheet, layout)
    sides = "".join(
        "r" if all(_is_number(row[at]) for row in rows) and rows else "l"
        for at in range(len(sheet.columns))
    )

    def line(cells: Sequence[str]) -> str:
        return " & ".join(_in_latex(cell) for cell in cells) + r" \\"

    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{sides}}}",
        "\\toprule",
        line([layout.head(name) for name in sheet.columns]),
        "\\midrule",
        *(line(row) for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    if layout.caption is not None:
        # A label names the number that the caption before it has got.
        label = [] if layout.label is None else [f"\\label{{{layout.label}}}"]
        caption = f"\\caption{{{_in_latex(layout.caption)}}}"
        head = [lines[0], "\\begin{table}", "\\centering", caption, *label]
        lines = [*head, *lines[1:], "\\end{table}"]
    return ("\n".join(lines) + "\n").encode()


def _in_latex(text: str) -> str:
    if "±" in text and _is_number(text):
        return f"${text.replace('±', chr(92) + 'pm')}$"
    if _is_number(text):
        return text.replace("-", "$-$")
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _parquet(sheet: Sheet) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    columns = list(zip(*sheet.rows, strict=True)) or [()] * len(sheet.columns)
    arrays = [_column(*column) for column in zip(sheet.columns, columns, strict=True)]
    file = io.BytesIO()
    parquet.write_table(pa.table(arrays, names=list(sheet.columns)), file, compression="zstd")
    return file.getvalue()


def _column(name: str, values: Sequence[Any]) -> Any:
    """Return one typed column; values of several kinds, as some parameters have, are texts."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values), pa.string() if name in TEXTS else pa.float64())
    if kinds <= {int, float} and float in kinds:
        return pa.array([None if one is None else float(one) for one in values], pa.float64())
    if len(kinds) > 1:
        return pa.array([None if one is None else str(one) for one in values], pa.string())
    return pa.array(values)


def _excel(sheet: Sheet) -> bytes:
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
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _in_excel(page: Any, value: Any) -> Any:
    from openpyxl.cell import WriteOnlyCell

    plain = json_cell(value)
    if not isinstance(plain, str):
        return plain
    cell = WriteOnlyCell(page, value=UNPRINTABLE.sub("", plain))
    # A text that begins with = would be a formula; a text it stays.
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
    """Tell whether a cell's text is a number, or a mean with its ±."""
    try:
        for part in (text or "0").split(" ± "):
            float(part)
    except ValueError:
        return False
    return True


FORMATS: Mapping[str, Callable[[Sheet], bytes]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "markdown": lambda sheet: _markdown(sheet, Layout()),
    "latex": lambda sheet: _latex(sheet, Layout()),
    "excel": _excel,
}
TYPESET: Mapping[str, Callable[[Sheet, Layout], bytes]] = {"markdown": _markdown, "latex": _latex}
"""Formats for people, which have a layout."""
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "csv": ("csv",),
    "json": ("json",),
    "parquet": ("parquet", "pq"),
    "markdown": ("md", "markdown"),
    "latex": ("tex",),
    "excel": ("xlsx",),
}
TEXTS = ("reason", "device")
"""Columns of texts, also where all of their cells are empty."""
BINARY = ("parquet", "excel")
"""Formats that no terminal shows."""
