"""`tuner gap`: how far test falls behind validation, how sure that is, and why."""

from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json
from tuner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table as RichTable

    from tuner.answers.gap import Gap
    from tuner.store.studies import Study


@click.command(epilog="\b\nExample:\n  tuner gap lr_sched\n  tuner gap lr_sched --json")
@click.argument("study")
@click.option(
    "--best",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="K",
    help="How many configurations the table shows, the best on validation first.",
)
@options.json_option
@click.pass_obj
def gap(settings: Settings, study: str, best: int, *, as_json: bool) -> None:
    """Say how large the gap between validation and test accuracy is, and why there is one.

    The gap is validation minus test accuracy, over seeds and over the images of
    both splits. Beside it: whether a better validation result means a better
    test result here at all, how much of the best trial's figure is
    selection bias, and whether training and test images can be told apart.
    """
    from tuner.answers.gap import gap as measure_gap
    from tuner.answers.gap import sentences
    from tuner.answers.plain import plain
    from tuner.results.results import Results

    with options.open_database(settings) as database, database.snapshot() as connection:
        results = Results.of(connection, study)
        found, measured = results.study, measure_gap(results)
    if as_json:
        echo_json({"study": found.title, **plain(measured)})
        return
    from tuner.cli.console import open_console, print_sentences

    console = open_console()
    console.print()
    console.print(_table(measured, found, best))
    print_sentences(console, sentences(measured))
    console.print()


def _table(gap: "Gap", study: "Study", best: int) -> "RichTable":
    from tuner.cli.console import plain_table

    shown = gap.settings[:best]
    of = f"{len(shown)} of {len(gap.settings)}" if len(shown) < len(gap.settings) else "all"
    table = plain_table(f"{study.title}: {of} configurations, by validation accuracy")
    for name in (*study.spec.varied, "val acc", "test acc", "gap", "95 % interval", "n"):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for row in _rows(gap, best):
        table.add_row(*row)
    return table


def _rows(gap: "Gap", best: int) -> "Iterator[list[str]]":
    from tuner.answers.words import fixed, level_name, signed

    for setting in gap.settings[:best]:
        ends = f"{signed(setting.gap.low * 100, 1)} to {signed(setting.gap.high * 100, 1)}"
        yield [
            *(level_name(value) for value in setting.values.values()),
            fixed(setting.val_acc, 3),
            fixed(setting.test_acc, 3),
            signed(setting.gap.value * 100, 1),
            ends,
            str(len(setting.trials)),
        ]
