"""`tuner influence`: how much each parameter matters."""

from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json

if TYPE_CHECKING:
    from tuner.answers.influence import Influence
    from tuner.results import Results


@click.command(
    epilog=options.examples("tuner influence everything", "tuner influence depth --metric test_auc")
)
@options.answering
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Metric to explain; repeatable. By default val_loss, test_acc and gap.",
)
def influence(results: "Results", metrics: tuple[str, ...], *, as_json: bool) -> None:
    """Report how much each parameter matters.

    By default, this is reported for validation loss, test accuracy and the
    gap. For a complete grid, the variance over settings is decomposed exactly
    (functional ANOVA): each parameter alone, each two-way interaction, and the
    rest. Noise from seeds and images is subtracted, and the intervals cover
    both. Otherwise PED-ANOVA is used: it measures which parameters
    distinguish the best 10% of trials from the rest. One parameter is said to
    matter more than another only if their difference is significant. This can
    happen even if the intervals of their shares overlap.
    """
    from tuner.answers.influence import influence as measure
    from tuner.answers.plain import plain

    measured = measure(results, metrics)
    if as_json:
        echo_json({"study": results.title, "influences": plain(measured)})
        return
    _show(measured)


def _show(measured: "list[Influence]") -> None:
    from tuner.answers.influence import basis, table
    from tuner.cli.console import as_rich, open_console, print_sentences

    console = open_console()
    for influence in measured:
        console.print()
        console.print(as_rich(table(influence)))
        print_sentences(
            console, filter(None, (influence.verdict, influence.note, basis(influence)))
        )
    console.print()
