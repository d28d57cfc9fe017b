"""Selecting and sorting rows, and tables for people."""

from datetime import UTC, datetime

import pytest

from tuner.answers.sheets.contents import MeanCell, Sheet
from tuner.answers.sheets.formats import Layout, write
from tuner.errors import UserError
from tuner.results import read_condition

EARLY, LATE = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
SHEET = Sheet(
    ("trial", "model", "lr", "nesterov", "gap", "ended"),
    [
        [0, "ann", 1e-3, True, 0.02, LATE],
        [1, "cnn", 1e-2, False, None, EARLY],
        [2, "cnn", 1e-3, True, float("nan"), None],
        [3, "100", 10.0, True, -0.5, EARLY],
    ],
)


def trials(*conditions: str) -> list[int]:
    """Return which trials fulfil the conditions."""
    return [row[0] for row in SHEET.where([read_condition(text) for text in conditions]).rows]


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (("model=cnn",), [1, 2]),
        (("model = cnn", "lr<0.01"), [2]),
        (("model!=cnn",), [0, 3]),
        (("model=100",), [3]),
        (("model='cnn'",), [1, 2]),
        (("lr=1e-3",), [0, 2]),
        (("lr==0.001",), [0, 2]),
        (("lr>=0.01",), [1, 3]),
        (("gap<1",), [0, 3]),
        (("gap=",), [1, 2]),
        (("gap!=", "gap!=-0.5"), [0]),
        (("nesterov=true",), [0, 2, 3]),
        (("nesterov=1",), []),
        (("trial>0", "trial<=2"), [1, 2]),
        (("model>1",), []),
    ],
)
def test_a_condition_keeps_the_rows_it_holds_for(
    conditions: tuple[str, ...], left: list[int]
) -> None:
    """Numbers are compared by value, texts and booleans as written; empty cells never match."""
    assert trials(*conditions) == left


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modle=cnn", "Did you mean model?"),
        ("colour=red", "It has trial, model, lr, nesterov, gap, ended."),
        ("model", "is not a comparison such as model=cnn"),
        ("=cnn", "is not a comparison"),
        ("lr<high", "'high' is not a number, so nothing is below it"),
    ],
)
def test_a_condition_that_cannot_be_is_told(text: str, told: str) -> None:
    """A misspelt column is refused with the nearest name, any other with all names."""
    with pytest.raises(UserError, match=told.replace("?", r"\?")):
        trials(text)


def test_rows_are_sorted_with_empty_ones_last() -> None:
    """Rows are sorted stably in either order, with empty cells last and numbers before texts."""

    def order(by: str) -> list[int]:
        return [row[0] for row in SHEET.sorted(by).rows]

    assert order("gap") == [3, 0, 1, 2]
    assert order("-gap") == [0, 3, 1, 2]
    assert order("lr") == [0, 2, 1, 3]
    assert order("-model") == [1, 2, 0, 3]
    assert order("ended") == [1, 3, 0, 2]
    with pytest.raises(UserError, match="no column 'lrr'"):
        order("-lrr")


def test_digits_are_of_figures_alone() -> None:
    """Digits apply to figures only: a learning rate of 0.001 keeps its digits in every format."""
    layout = Layout(digits=1, exact={"lr"})
    sheet = Sheet(("lr", "acc", "n"), [[0.00123456, 0.96, 3], [0.1, None, 4]])
    assert write(sheet, "csv", layout).decode() == "lr,acc,n\n0.00123456,1.0,3\n0.1,,4\n"
    assert "| 0.00123456 | 1.0 | 3 |" in write(sheet, "markdown", layout).decode()
    assert '"acc": 1.0' in write(sheet, "json", layout).decode()
    assert "0.001235" not in write(sheet, "latex", layout).decode()


def test_a_caption_makes_a_table_that_floats_and_runs_nothing() -> None:
    """A LaTeX caption stands before its label, signs are escaped, intervals in math mode."""
    sheet = Sheet(
        ("weight_decay", "gap"), [[0.1, MeanCell(-0.0123, 0.0045)], [0.2, MeanCell(1.0, None)]]
    )
    layout = Layout(
        exact={"weight_decay"}, plain_heads=True, caption=r"50% of A_B \input{x}", label="tab:a_b"
    )
    lines = write(sheet, "latex", layout).decode().splitlines()
    assert lines == [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        r"\caption{50\% of A\_B \textbackslash{}input\{x\}}",
        r"\label{tab:a_b}",
        r"\begin{tabular}{rr}",
        r"\toprule",
        r"weight\_decay & gap (points) \\",
        r"\midrule",
        r"0.1 & $-1.2 \pm 0.5$ \\",
        r"0.2 & 100.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert "| 0.1 | −1.2 ± 0.5 |" in write(sheet, "markdown", layout).decode()
