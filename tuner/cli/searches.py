"""`tuner compare A B`: two searches, by their best values after the same epochs."""

from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo, echo_json
from tuner.errors import UserError
from tuner.files import check_output, contains, write_output
from tuner.pictures import MARK
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.answers.searches import Searches

ENDINGS = (".svg", ".png", ".pdf")
POINTS = 64
"""Points of a drawn course: as many as the chart in the terminal has columns."""


def show_searches(
    settings: Settings,
    names: tuple[str, str],
    metric: str | None,
    picture: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two searches, print the result, and plot it if a file is given."""
    from tuner.answers.plain import plain
    from tuner.answers.searches import compare_searches

    if picture is not None:
        if picture.suffix.lower() not in ENDINGS:
            raise UserError(
                f"--picture {picture}: unsupported file type; use one of {', '.join(ENDINGS)}."
            )
        check_output(picture, overwrite=overwrite, recognised=contains(MARK))
    with options.open_database(settings) as database, database.snapshot() as connection:
        compared = compare_searches(connection, *names, metric)
    if as_json:
        echo_json(plain(compared), allow_nan=False)
    else:
        _show(compared)
    if picture is not None:
        from tuner.pictures import draw_searches

        drawn = draw_searches(compared)
        content = drawn.render(picture.suffix.lower().removeprefix("."))
        replaced = write_output(picture, content, overwrite=overwrite, recognised=contains(MARK))
        echo(f"{picture}{REPLACED * replaced}", err=True)


def _show(compared: "Searches") -> None:
    from tuner.answers.searches import table
    from tuner.cli.console import as_rich, open_console, print_sentences
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
    console.print(as_rich(table(compared)))
    print_sentences(console, compared.sentences)
    console.print()
