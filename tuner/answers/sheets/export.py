"""Rows as CSV and JSON, piece by piece: a row is discarded once it is written."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

__all__ = ["as_csv", "json_cell"]

PIECE = 1 << 16
"""Characters that are collected before they are yielded."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""The first characters of a text that a spreadsheet would run as a formula."""


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV: full precision, empty cells for unknown values, no formulas."""
    return "".join(csv_pieces(columns, rows))


def csv_pieces(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield the same, piece by piece."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_csv_cell(column) for column in columns])
    for row in rows:
        writer.writerow([_csv_cell(cell) for cell in row])
        if text.tell() >= PIECE:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def as_json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as a JSON list of objects; numbers that are not finite are null."""
    return "".join(json_pieces(columns, rows))


def json_pieces(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield the same, piece by piece."""
    kept, size, before = ["["], 0, "\n"
    for row in rows:
        cells = {column: json_cell(cell) for column, cell in zip(columns, row, strict=True)}
        lines = json.dumps(cells, indent=1, ensure_ascii=False, allow_nan=False)
        # Line feeds within texts are escaped, so all of these belong to the layout.
        kept.append((before + lines).replace("\n", "\n "))
        before = ",\n"
        size += len(kept[-1])
        if size >= PIECE:
            yield "".join(kept)
            kept, size = [], 0
    yield "".join(kept) + ("]\n" if before == "\n" else "\n]\n")


def json_cell(cell: Any) -> Any:
    """Return a cell as a JSON value."""
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    return cell.isoformat() if isinstance(cell, datetime) else cell


def _csv_cell(cell: Any) -> Any:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return repr(cell)
    if isinstance(cell, datetime):
        return cell.isoformat()
    if isinstance(cell, str):
        # A leading apostrophe makes every spreadsheet treat the cell as text.
        guarded = f"'{cell}" if cell.startswith(FORMULA) else cell
        # The csv module quotes a line feed but not a lone carriage return.
        return guarded.replace("\r\n", "\n").replace("\r", "\n")
    return cell
