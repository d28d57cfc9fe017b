"""`tuner gap`: the gap between validation and test accuracy, and its cause."""

from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json

if TYPE_CHECKING:
    from tuner.results import Results


@click.command(epilog=options.examples("tuner gap lr_sched", "tuner gap lr_sched --json"))
@options.answering
@click.option(
    "--best",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="K",
    help="Number of settings to show, best on validation first.",
)
def gap(results: "Results", best: int, *, as_json: bool) -> None:
    """Report the size and cause of the validation-to-test gap.

    The gap is validation minus test accuracy, over seeds and over the images
    of both splits. Also reports whether a better validation result means a
    better test result here, how much of the best result is selection bias,
    and whether a classifier can distinguish training from test images.
    """
    from tuner.answers.gap import gap as measure_gap
    from tuner.answers.gap import sentences, table
    from tuner.answers.plain import plain

    measured = measure_gap(results)
    if as_json:
        echo_json({"study": results.title, **plain(measured)})
        return
    from tuner.cli.console import as_fitting, open_console, print_sentences

    console = open_console()
    console.print()
    console.print(as_fitting(console, table(measured, results.title, best)))
    print_sentences(console, sentences(measured))
    console.print()
