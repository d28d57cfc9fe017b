"""Sheets in the formats that people and programs read: the same columns in each."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tuner.answers.sheets import markup
from tuner.answers.sheets.contents import Sheet
from tuner.answers.sheets.export import as_csv, as_json, json_cell
from tuner.errors import UserError

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


def write(sheet: Sheet, form: str) -> bytes:
    """Return a sheet in a format."""
    return FORMATS[form](sheet)


def format_of(path: str) -> str | None:
    """Return the format that a file's name asks for."""
    ending = path.rsplit(".", 1)[-1].lower() if "." in path else ""
    return {name: form for form, names in ENDINGS.items() for name in names}.get(ending)


def _csv(sheet: Sheet) -> bytes:
    return as_csv(sheet.columns, sheet.rows).encode()


def _json(sheet: Sheet) -> bytes:
    return as_json(sheet.columns, sheet.rows).encode()


def _markdown(sheet: Sheet) -> bytes:
    rows = [[_readable(cell) for cell in row] for row in sheet.rows]
    marks = [
        "---:" if all(_is_number(row[at]) for row in rows) and rows else "---"
        for at in range(len(sheet.columns))
    ]
    shown = [[_with_minus(cell) for cell in row] for row in rows]
    lines = [markup.row(line) for line in (sheet.columns, marks, *shown)]
    return ("\n".join(lines) + "\n").encode()


def _with_minus(cell: str) -> str:
    return cell.replace("-", "−") if _is_number(cell) else cell


def _latex(sheet: Sheet) -> bytes:
    """Return a table for the package booktabs."""
    rows = [[_readable(cell) for cell in row] for row in sheet.rows]
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
        line(sheet.columns),
        "\\midrule",
        *(line(row) for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _in_latex(text: str) -> str:
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
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


FORMATS: Mapping[str, Callable[[Sheet], bytes]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "markdown": _markdown,
    "latex": _latex,
    "excel": _excel,
}
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
