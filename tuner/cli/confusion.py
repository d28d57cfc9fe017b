"""`tuner confusion`: a trial's confusion matrix."""

from typing import TYPE_CHECKING, cast

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json

if TYPE_CHECKING:
    from tuner.answers.confusion import Confusion
    from tuner.records import Moment, SplitName
    from tuner.results import Predicted, Results
    from tuner.store.studies import Study


@click.command(epilog=options.examples("tuner confusion digits --trial 3 --split val"))
@options.answering
@click.option(
    "--trial", type=int, metavar="N", help="Which trial; by default the best setting's median seed."
)
@click.option(
    "--split",
    type=click.Choice(["val", "test"]),
    help="Which images; by default test, or val if there is no test set.",
)
@click.option(
    "--at",
    type=click.Choice(["best", "last"]),
    help="Epoch whose weights to use; by default the one the study reports.",
)
def confusion(
    results: "Results",
    trial: int | None,
    split: str | None,
    at: str | None,
    *,
    as_json: bool,
) -> None:
    """Show a trial's confusion matrix.

    Rows are true classes, columns are predicted classes. Recall is the
    proportion of a class's images that are predicted as that class; precision
    is the proportion of the images predicted as a class that belong to it.
    """
    from tuner.answers.confusion import confusion as count
    from tuner.answers.plain import plain

    number = results.best if trial is None else trial
    predicted = results.predicted(
        number, cast("SplitName | None", split), cast("Moment | None", at)
    )
    counted = count(predicted)
    if as_json:
        body = {"study": results.title, **plain(predicted), **plain(counted)}
        echo_json(body, indent=None)
    else:
        _show(results.study, predicted, counted)


def _show(study: "Study", predicted: "Predicted", counted: "Confusion") -> None:
    from tuner.answers import words
    from tuner.answers.confusion import table
    from tuner.cli.console import as_rich, open_console

    console = open_console()
    total = sum(counted.images)
    console.print()
    console.print(
        f"{study.title}: trial {predicted.trial}, {predicted.split} images, "
        f"{predicted.at} epoch {predicted.epoch}; rows: true class, columns: predicted class"
    )
    console.print(as_rich(table(counted)))
    clusters = predicted.clusters
    what = words.sampled(total, 0 if clusters is None else clusters.patients)
    console.print(
        f"{counted.right} of {what} classified correctly "
        f"(accuracy {words.percent(counted.accuracy)})."
    )
    if any(counted.undecided):
        console.print(f"{sum(counted.undecided)} images have NaN predictions and count as errors.")
    console.print()
