"""Each export format, read back by its own reader, gives what was written."""

import io
import json
import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from openpyxl import load_workbook
from pyarrow import parquet

from tuner.answers.columns import page
from tuner.answers.sheets import MEDIA
from tuner.answers.sheets.contents import Sheet
from tuner.answers.sheets.formats import BINARY, ENDINGS, FORMATS, format_of, write

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SHEET = Sheet(
    ("trial", "level", "value", "right", "reason", "ended"),
    [
        [0, "adam", 0.1 + 0.2, True, "", WHEN],
        [1, None, None, False, "=1+1 | 50% & _x_", WHEN],
        [2, 0.5, -1.5e-9, None, "a\x07b\nc", None],
    ],
)


def test_parquet_keeps_every_bit_and_kind() -> None:
    """Numbers, booleans and times are unchanged in Parquet; mixed columns become text."""
    frame = pd.read_parquet(io.BytesIO(write(SHEET, "parquet")))
    assert list(frame.columns) == list(SHEET.columns)
    assert frame.value[0] == 0.1 + 0.2
    assert math.isnan(frame.value[1])
    assert frame.trial.dtype == "int64"
    assert frame.ended[0] == WHEN
    assert list(frame.level.dropna()) == ["adam", "0.5"]
    assert frame.reason[1] == "=1+1 | 50% & _x_"


def test_excel_holds_texts_and_no_formula() -> None:
    """In Excel a text that begins with = stays a text; invalid characters are removed."""
    page_ = load_workbook(io.BytesIO(write(SHEET, "excel"))).active
    assert page_ is not None
    rows = list(page_.iter_rows(values_only=True))
    assert rows[0] == SHEET.columns
    assert rows[1][2] == pytest.approx(0.1 + 0.2, rel=1e-15)
    assert rows[2][4] == "=1+1 | 50% & _x_"
    assert page_["E3"].data_type == "s"
    assert rows[3][4] == "ab\nc"


def test_markdown_keeps_its_columns() -> None:
    """In Markdown a bar in a text does not open a column, and numbers are right-aligned."""
    lines = write(SHEET, "markdown").decode().splitlines()
    assert lines[0] == "| trial | level | value | right | reason | ended |"
    assert lines[1].startswith("| ---: | --- | ---: |")
    assert r"=1+1 \| 50% &amp; \_x\_" in lines[3]
    assert len(lines) == 5


def test_a_reason_that_is_not_there_is_null_everywhere() -> None:
    """A missing reason is null in JSON and in Parquet's text column, and an empty cell in CSV."""
    sheet = Sheet(("trial", "reason"), [[0, None], [1, None]])
    assert [row["reason"] for row in json.loads(write(sheet, "json"))] == [None, None]
    table = parquet.read_table(io.BytesIO(write(sheet, "parquet")))
    assert table.column("reason").to_pylist() == [None, None]
    assert str(table.schema.field("reason").type) == "string"
    assert write(sheet, "csv").decode().splitlines()[1] == "0,"


def test_people_read_a_minus_and_programs_a_hyphen() -> None:
    """Numbers have − in Markdown and LaTeX, and plain ASCII in CSV and JSON."""
    sheet = Sheet(("gap", "id"), [[-0.25, "img-7"]])
    assert "| −25 | img-7 |" in write(sheet, "markdown").decode()
    assert "$-$25 & img-7" in write(sheet, "latex").decode()
    assert "-0.25,img-7" in write(sheet, "csv").decode()
    assert '"gap": -0.25' in write(sheet, "json").decode()


def test_latex_is_a_booktabs_table_with_nothing_to_run() -> None:
    """Every character that LaTeX would interpret is escaped in the booktabs table."""
    text = write(SHEET, "latex").decode()
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert word in text
    assert r"=1+1 | 50\% \& \_x\_" in text
    evil = write(Sheet(("a",), [[r"\input{/etc/passwd}"]]), "latex").decode()
    assert r"\input" not in evil


@pytest.mark.parametrize("form", list(FORMATS))
def test_no_rows_are_a_sheet_too(form: str) -> None:
    """A study without trials exports only the columns."""
    written = write(Sheet(("alpha", "beta"), []), form)
    if form == "json":
        assert json.loads(written) == []  # its columns are the keys of rows, and there are no rows
    elif form == "excel":
        page_ = load_workbook(io.BytesIO(written)).active
        assert page_ is not None
        assert list(page_.iter_rows(values_only=True)) == [("alpha", "beta")]
    elif form == "parquet":
        table = parquet.read_table(io.BytesIO(written))
        assert (table.column_names, table.num_rows) == (["alpha", "beta"], 0)
    else:
        lines = [line for line in written.decode().splitlines() if "alpha" in line]
        assert len(lines) == 1
        assert "beta" in lines[0]


def test_names_say_the_format() -> None:
    """best.xlsx is Excel, table.tex LaTeX; an unknown ending gives no format."""
    for form, endings in ENDINGS.items():
        for ending in endings:
            assert format_of(f"some/where.v2/best.{ending.upper()}") == form
    assert format_of("best") is None
    assert format_of("best.txt") is None
    assert set(BINARY) < set(FORMATS)


def test_json_and_csv_are_read_back() -> None:
    """The two oldest formats, JSON and CSV, hold the same rows."""
    rows: Any = json.loads(write(SHEET, "json"))
    assert [row["trial"] for row in rows] == [0, 1, 2]
    frame = pd.read_csv(io.BytesIO(write(SHEET, "csv")))
    assert frame.value[0] == 0.1 + 0.2


def test_page_of_columns_is_current() -> None:
    """docs/columns.md is what `make docs` would write, and describes every column."""
    from pathlib import Path

    assert (Path(__file__).parents[2] / "docs" / "columns.md").read_text() == page()


def test_every_format_on_offer_can_be_written_and_has_an_ending() -> None:
    """Every format offered by commands and dashboard has a writer and a file ending."""
    assert set(MEDIA) == set(FORMATS) == set(ENDINGS)
