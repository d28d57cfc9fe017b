"""`tuner plot`: a study as plots."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo
from tuner.errors import UserError
from tuner.files import check_output, contains, write_output
from tuner.pictures import GO_WITH, MARK, misplaced
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.pictures import Subject
    from tuner.records import SplitName
    from tuner.results import Results

ALL = "all"
SHOWN = {
    "curves": "loss and accuracy by epoch, with a band over seeds",
    "schedules": "the learning rate by epoch",
    "effects": "each level's mean with its interval",
    "val-test": "test against validation accuracy",
    "gap": "the gap of each setting",
    "influence": "how much each parameter matters",
    "parallel": "trials as lines through their parameters",
    "history": "the metric trial by trial, with pruning",
    "confusion": "the confusion matrix of a trial",
    "roc": "the ROC curve of a trial",
    "reliability": "accuracy against predicted confidence for one trial",
}
"""The kinds of plots; listed here so that `--help` does not load Matplotlib."""
ENDINGS = (".svg", ".png", ".pdf")


@click.command(
    epilog="\b\nKinds:\n"
    + "".join(f"  {name:12} {shows}\n" for name, shows in SHOWN.items())
    + f"  {ALL:12} every applicable kind, written to a folder\n\n"
    + options.examples(
        "tuner plot lr_sched curves --by scheduler -o curves.pdf",
        "tuner plot lr_sched roc --trial 12 -o roc.svg",
        "tuner plot lr_sched all -o figures/",
    )
)
@click.argument("study")
@click.argument("kind", type=click.Choice([*SHOWN, ALL]), metavar="KIND")
@click.option("--by", metavar="FACTOR", help="Factor to colour lines or points by.")
@click.option("--metric", metavar="NAME", help="Metric to plot, e.g. test_acc, val_loss or gap.")
@click.option(
    "--trial",
    type=click.IntRange(0),
    help="Trial to draw; by default the best setting's median seed.",
)
@click.option("--split", type=click.Choice(["val", "test"]), help="Which images; test by default.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write: .svg, .png or .pdf; by default STUDY-KIND.svg.",
)
@click.option("--bare", is_flag=True, help="Omit title and note (for use with your own caption).")
@options.overwrite_option
@click.pass_obj
def plot(
    settings: Settings,
    /,
    study: StudyRef,
    kind: str,
    output: Path | None,
    bare: bool,
    overwrite: bool,
    **wishes: str | int | None,
) -> None:
    """Plot a study; the title of each plot states its result.

    Plots are readable in print and for the colour-blind: levels differ in
    colour, marker and line. The file is written atomically. A plot that tuner
    wrote is replaced; any other file only with --overwrite.
    """
    if kind != ALL and (option := misplaced(kind, wishes)) is not None:
        drawn = ", ".join(GO_WITH[option])
        raise UserError(f"--{option} applies only to {drawn}, not to {kind}.")
    if output is not None:
        _check_target(kind, output)

    with options.open_results(settings, study) as results:
        usual = f"{results.title}-figures" if kind == ALL else f"{results.title}-{kind}.svg"
        target = output or Path(usual)
        for file in [target / f"{name}.svg" for name in SHOWN] if kind == ALL else [target]:
            check_output(file, overwrite=overwrite, recognised=contains(MARK))
        if kind == ALL:
            _draw_all(results, target, wishes, bare=bare, overwrite=overwrite)
        else:
            _draw_one(_subject(results, wishes), kind, target, bare=bare, overwrite=overwrite)


def _check_target(kind: str, output: Path) -> None:
    """Refuse a target that is not a file of a picture or, with `all`, a folder."""
    if kind == ALL:
        if output.suffix.lower() in ENDINGS or output.is_file():
            raise UserError(f"-o {output}: 'all' writes several files; specify a folder.")
        return
    if output.is_dir():
        raise UserError(f"-o {output} is a folder; specify a file in it.")
    if output.suffix.lower() not in ENDINGS:
        raise UserError(f"-o {output}: unsupported file type; use {', '.join(ENDINGS)}.")


def _subject(results: "Results", wishes: dict[str, str | int | None]) -> "Subject":
    from tuner.pictures import Subject

    return Subject(
        results,
        by=cast("str | None", wishes["by"]),
        metric=cast("str | None", wishes["metric"]),
        trial=cast("int | None", wishes["trial"]),
        split=cast("SplitName | None", wishes["split"]),
    )


def _draw_one(subject: "Subject", kind: str, target: Path, *, bare: bool, overwrite: bool) -> None:
    from tuner.pictures import draw

    picture = draw(kind, subject)
    content = picture.render(target.suffix.lower().removeprefix("."), bare=bare)
    replaced = write_output(target, content, overwrite=overwrite, recognised=contains(MARK))
    echo(f"{picture.title}.\n{target}{REPLACED * replaced}", err=True)


def _draw_all(
    results: "Results",
    folder: Path,
    wishes: dict[str, str | int | None],
    *,
    bare: bool,
    overwrite: bool,
) -> None:
    """Draw every kind; those that the study does not allow are reported and skipped."""
    drawn = 0
    for kind in SHOWN:
        fitting = {name: value if kind in GO_WITH[name] else None for name, value in wishes.items()}
        try:
            file = folder / f"{kind}.svg"
            _draw_one(_subject(results, fitting), kind, file, bare=bare, overwrite=overwrite)
            drawn += 1
        except UserError as error:
            echo(f"Skipped {kind}: {error}", err=True)
    if not drawn:
        raise UserError(f"Nothing of {results.title} can be plotted yet.")
