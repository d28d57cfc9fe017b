"""`tuner confusion`: which classes a trial takes for which."""

from typing import TYPE_CHECKING, cast

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

    from tuner.answers.confusion import Confusion
    from tuner.records import Moment, SplitName
    from tuner.results import Predicted, Results
    from tuner.store.studies import Study

ROOM = 50
"""Characters of all class names together above which columns are headed by numbers instead."""


@click.command(epilog="\b\nExample:\n  tuner confusion digits --trial 3 --split val")
@options.answering
@click.option("--trial", type=int, metavar="N", help="Which trial; by default the best one.")
@click.option(
    "--split",
    type=click.Choice(["val", "test"]),
    help="Which images; by default test, or val where there is no test set.",
)
@click.option(
    "--at",
    type=click.Choice(["best", "last"]),
    help="Weights of which epoch; by default those that the study is judged at.",
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

    Rows are true classes, columns what images are taken for. Recall is the
    share of a class's images that is found, precision the share of the images
    taken for a class that are of it.
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
    from tuner.cli.console import open_console

    console = open_console()
    total = sum(counted.images)
    console.print()
    console.print(
        f"{study.title}: trial {predicted.trial}, {predicted.split} images, "
        f"{predicted.at} epoch {predicted.epoch}; rows are true, columns predicted"
    )
    console.print(_table(counted))
    clusters = predicted.clusters
    what = words.sampled(total, 0 if clusters is None else clusters.patients)
    console.print(f"{counted.right} of {what} are right: accuracy {counted.accuracy:.4f}.")
    if any(counted.undecided):
        console.print(
            f"{sum(counted.undecided)} images have no prediction that is a number; they are wrong."
        )
    console.print()


def _table(counted: "Confusion") -> "RichTable":
    from rich.table import Table

    from tuner.cli.console import styled

    numbered = sum(map(len, counted.classes)) > ROOM
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    for place, name in enumerate(counted.classes):
        table.add_column(str(place) if numbered else name, justify="right", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("recall", justify="right", no_wrap=True)
    rows = zip(counted.classes, counted.counts, counted.images, counted.recall, strict=True)
    for place, (name, row, images, recall) in enumerate(rows):
        cells = [_cell(count, diagonal=place == column) for column, count in enumerate(row)]
        head = styled(f"{place} {name}" if numbered else name, "bold", overflow="ellipsis")
        table.add_row(head, *cells, str(images), _share(recall))
    table.add_row("precision", *(_share(share, digits=2) for share in counted.precision))
    return table


def _cell(count: int, *, diagonal: bool) -> "RenderableType":
    if diagonal:
        from tuner.cli.console import styled

        return styled(str(count), "bold")
    return str(count) if count else "·"


def _share(share: float | None, digits: int = 3) -> str:
    return "–" if share is None else f"{share:.{digits}f}"
