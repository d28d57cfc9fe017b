"""`tuner compare A B`: two searches, by the best value that each had after some epochs."""

from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo, echo_json
from tuner.errors import UserError
from tuner.files import check_output, contains, write_output
from tuner.pictures import MARK
from tuner.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from tuner.answers.searches import AtBudget, Searches
    from tuner.statistics.means import Mean

ENDINGS = (".svg", ".png", ".pdf")
POINTS = 64
"""Of a drawn course: as many as the terminal's picture has columns."""


def show_searches(
    settings: Settings,
    names: tuple[str, str],
    metric: str | None,
    picture: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two searches, print what was found, and draw it where a file is named."""
    from tuner.answers.plain import plain
    from tuner.answers.searches import compare_searches

    if picture is not None:
        if picture.suffix.lower() not in ENDINGS:
            raise UserError(f"--picture {picture}: a picture ends in {', '.join(ENDINGS)}.")
        check_output(picture, overwrite=overwrite, recognised=contains(MARK))
    with options.open_database(settings) as database, database.snapshot() as connection:
        compared = compare_searches(connection, *names, metric)
    if as_json:
        echo_json(plain(compared), allow_nan=False)
    else:
        _show(compared)
    if picture is not None:
        from tuner.pictures.searches import draw_searches

        drawn = draw_searches(compared)
        content = drawn.render(picture.suffix.lower().removeprefix("."))
        replaced = write_output(picture, content, overwrite=overwrite, recognised=contains(MARK))
        echo(f"{picture}{REPLACED * replaced}", err=True)


def _show(compared: "Searches") -> None:
    from tuner.cli.console import open_console, print_sentences
    from tuner.cli.drawing import chart

    console = open_console()
    console.print()
    common = compared.budgets[-1].epochs
    budgets = sorted({max(1, round(common * (place + 1) / POINTS)) for place in range(POINTS)})
    lines = [[one.at(budget) for budget in budgets] for one in compared.both]
    series = [
        (search.name, style, [None if mean is None else mean.value for mean in line])
        for search, line, style in zip(compared.both, lines, ("cyan", "bold"), strict=True)
    ]
    console.print(chart(f"best {compared.metric} so far", series, last=f"{common:,} epochs"))
    console.print()
    console.print(_table(compared))
    print_sentences(console, compared.sentences)
    console.print()


def _table(compared: "Searches") -> "RichTable":
    from tuner.cli.console import plain_table

    runs = [f"{one.name} ({len(one.courses)})" for one in compared.both]
    table = plain_table(f"Best {compared.metric} after the same number of epochs, 95 % intervals")
    for name in ("epochs", *runs, "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for budget in compared.budgets:
        table.add_row(*_row(budget))
    return table


def _row(budget: "AtBudget") -> list[str]:
    from tuner.answers import words

    difference = budget.difference
    apart = "–"
    if difference is not None:
        limits = f"{words.signed(difference.low, 4)} to {words.signed(difference.high, 4)}"
        apart = f"{words.signed(difference.value, 4)} ({limits})"
    return [f"{budget.epochs:,}", _mean(budget.one), _mean(budget.other), apart]


def _mean(mean: "Mean | None") -> str:
    from tuner.answers import words

    if mean is None:
        return "–"
    half = "" if mean.half_width is None else f" ± {words.fixed(mean.half_width, 4)}"
    return f"{words.fixed(mean.value, 4)}{half}"
