"""The table of `tuner compare` that compares settings with the best one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.cli.console import as_rich, fits, print_sentences

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from tuner.answers.compare import Comparison, Row
    from tuner.answers.table import Table
    from tuner.results import Results

SHOWN = 20
"""The most settings shown; --json has all."""
NAME_WIDTH = 40
"""The least width of the column of settings' names."""
FIRST_DROPPED = ("done", "p", "n")
"""Columns that are left out one after another until the table fits; then the check on test."""


def show_settings(
    console: "Console",
    results: "Results",
    comparison: "Comparison",
    checked: "Comparison | None",
) -> None:
    """Print the comparison of settings with the best, the verdict, and the check on test."""
    from tuner.answers.setting_comparison import check_sentence

    what = "contenders over additional seeds" if comparison.factor == "contender" else "settings"
    title = f"{results.title}: {what} by {comparison.measure.name}, 95% intervals"
    console.print()
    print_combinations(console, results, comparison, title, checked)
    print_sentences(console, comparison.sentences)
    said = check_sentence(checked)
    if said:
        print_sentences(console, [said])


def print_combinations(
    console: "Console",
    results: "Results",
    comparison: "Comparison",
    title: str,
    checked: "Comparison | None" = None,
) -> None:
    """Print the best combinations of levels, in the fullest table that fits."""
    sign = -1.0 if comparison.measure.larger else 1.0
    rows = sorted(
        comparison.rows,
        key=lambda row: (row.mean is None, sign * row.mean.value if row.mean else 0.0),
    )
    console.print(_fitting(console, results, comparison, title, rows[:SHOWN], checked))
    if len(rows) > SHOWN:
        console.print(f"… and {len(rows) - SHOWN} more settings; --json has all of them.")


def _fitting(  # the content of the table, and the console that it has to fit
    console: "Console",
    results: "Results",
    comparison: "Comparison",
    title: str,
    rows: "Sequence[Row]",
    checked: "Comparison | None",
) -> "RichTable":
    """Return the fullest table that fits; if there is no room, all levels share one column."""
    from tuner.answers.words import level_name
    from tuner.results import combination_name

    factors = comparison.factor.split(",")
    names = [level_name(row.standing.level) for row in rows]
    apart: dict[str, list[str]] = {}
    if comparison.factor != "contender":
        levels = [{factor: row[factor] for factor in factors} for row in results.rows]
        values = {combination_name(level): level for level in levels}
        if len(factors) == 1:
            values = {level_name(level[factors[0]]): level for level in levels}
        apart = {factor: [level_name(values[name][factor]) for name in names] for factor in factors}
    figures = _figures(comparison, rows, checked)
    first = (*FIRST_DROPPED, *([] if checked is None else [_head(checked)]))
    kept = [
        {head: cells for head, cells in figures.items() if head not in first[:dropped]}
        for dropped in range(len(first) + 1)
    ]
    for columns in kept if apart else ():
        table = as_rich(_table(title, {**apart, **columns}))
        if fits(console, table):
            return table
    narrow = next(
        (one for one in kept if fits(console, as_rich(_table(title, one)), NAME_WIDTH)), kept[-1]
    )
    return as_rich(_table(title, {**narrow, "setting": names}))


def _figures(
    comparison: "Comparison", rows: "Sequence[Row]", checked: "Comparison | None"
) -> dict[str, list[str]]:
    """Return the columns of figures, by column head."""
    from tuner.answers.compare import cells as cells_of
    from tuner.answers.compare import table
    from tuner.answers.words import figure

    cells = [cells_of(comparison, row) for row in rows]
    against = "difference" if comparison.named else "vs best"
    columns = {against: 3, "interval": 4, "p": 5, "n": 6, "done": 7}
    found = {
        table(comparison).head[1]: [row[1] for row in cells],
        **{head: [row[at] for row in cells] for head, at in columns.items()},
    }
    if checked is not None:
        on_test = {row.standing.level: row.mean for row in checked.rows}
        tested = [on_test.get(row.standing.level) for row in rows]
        found[_head(checked)] = [
            figure(checked.measure.unit, None if mean is None else mean.value) for mean in tested
        ]
    return {**found, "": [row[8] for row in cells]}


def _head(checked: "Comparison") -> str:
    return checked.measure.name.replace("_", " ")


def _table(title: str, columns: Mapping[str, Sequence[str]]) -> "Table":
    from tuner.answers.table import Table

    heads = list(columns)
    return Table(
        tuple(heads),
        tuple(zip(*columns.values(), strict=True)),
        title,
        left=[place for place, head in enumerate(heads) if head in ("", "setting")],
        wrapped=[place for place, head in enumerate(heads) if head == "setting"],
    )
