"""`tuner export`: what a study found, as files for programs and for papers."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo, write_bytes
from tuner.errors import UserError
from tuner.names import meant
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.answers.sheets.contents import Sheet
    from tuner.results.results import Results

FORMATS = ("csv", "json", "parquet", "markdown", "latex", "excel")


@click.command(
    epilog="\b\nExample:\n  tuner export --study lr_sched --best 10 --format csv -o best.csv\n"
    "  tuner export --study lr_sched --comparisons -o table.tex\n"
    "  tuner export --study lr_sched --columns trial,lr,val_acc,test_acc,gap -o table.md\n"
    "  tuner export --study lr_sched --predictions --best 1 -o predictions.parquet"
)
@click.option("--study", required=True, help="Study to export.")
@click.option(
    "--best",
    type=click.IntRange(1),
    metavar="K",
    help="Only the K best complete trials, by the study's metric.",
)
@click.option("--epochs", is_flag=True, help="One row per epoch instead of one per trial.")
@click.option("--predictions", is_flag=True, help="One row per image and trial that predicted it.")
@click.option(
    "--comparisons", is_flag=True, help="One row per level, as `tuner compare` judges them."
)
@click.option("--metric", metavar="NAME", help="With --comparisons: the figure to compare by.")
@click.option(
    "--wide",
    is_flag=True,
    help="Trials with further columns: AUC, balanced accuracy, sensitivity, specificity, "
    "time of training and of validation, late slopes.",
)
@click.option(
    "--columns",
    metavar="A,B,…",
    help="Only these columns, in this order; those of --wide may be among them.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="What to write; by default what the file's name says, or else CSV.",
)
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    metavar="FILE",
    help="Where to write; - is standard output.",
)
@options.overwrite_option
@click.pass_obj
def export(
    settings: Settings,
    study: str,
    best: int | None,
    metric: str | None,
    columns: str | None,
    form: str | None,
    output: str,
    *,
    epochs: bool,
    predictions: bool,
    comparisons: bool,
    wide: bool,
    overwrite: bool,
) -> None:
    """Write a study's trials, epochs, predictions or comparisons, in one of six formats.

    The columns are the same in every format; docs/columns.md explains each.
    Accuracies are fractions, losses are in nats, times are in UTC; empty cells
    are unknown. CSV, JSON and Parquet keep every digit, Excel 15; Markdown and
    LaTeX, for people, show six. The file appears whole or not at all. A CSV file
    with the same columns is replaced; any other file only with --overwrite.
    """
    from tuner.answers.sheets import formats
    from tuner.answers.sheets.export import as_csv
    from tuner.files import begins_with, write_output
    from tuner.results.results import Results

    asked = [name for name, on in _sheets(epochs, predictions, comparisons) if on]
    _check(asked, output, best=best, wide=wide, metric=metric)
    form = form or _format_of(output)
    if output == "-" and form in formats.BINARY and sys.stdout.isatty():
        raise UserError(f"{form} is not for a terminal; name a file with -o.")
    with options.open_database(settings) as database, database.snapshot() as connection:
        results = Results.of(connection, study)
        found = results.study
        # Trials have all their columns where some are picked.
        picks = columns is not None and not asked
        sheet = _sheet(results, "".join(asked), best=best, wide=wide or picks, metric=metric)
        if columns is not None:
            sheet = sheet.only([name.strip() for name in columns.split(",")])
        content = formats.write(sheet, form)
    if output == "-":
        if found.versions > 1 and study != found.full_name:
            echo(f"{study} is {found.title}, the newest of {found.versions} versions.", err=True)
        write_bytes(content)
        return
    # A CSV file with the same columns is an earlier answer to the same request.
    earlier = begins_with(as_csv(sheet.columns, ())) if form == "csv" else None
    replaced = write_output(Path(output), content, overwrite=overwrite, recognised=earlier)
    rows = f"{len(sheet.rows)} rows" if isinstance(sheet.rows, list) else "written"
    of = f" of {found.title}" if found.versions > 1 else ""
    echo(f"{rows}{of}: {output}{REPLACED * replaced}", err=True)


def _format_of(output: str) -> str:
    """Return the format that a file's name asks for; without an ending that is CSV."""
    from tuner.answers.sheets import formats

    ending = Path(output).suffix
    form = formats.format_of(output) if ending else "csv"
    if form is None:
        known = [f".{name}" for names in formats.ENDINGS.values() for name in names]
        raise UserError(
            f"-o {output}: no format ends in {ending}; take {', '.join(known)}, or --format."
            f"{meant(ending, known)}"
        )
    return form


def _sheets(epochs: bool, predictions: bool, comparisons: bool) -> list[tuple[str, bool]]:
    return [("epochs", epochs), ("predictions", predictions), ("comparisons", comparisons)]


def _check(
    asked: list[str], output: str, *, best: int | None, wide: bool, metric: str | None
) -> None:
    if not output or Path(output).is_dir():
        raise UserError(f"-o {output or repr(output)} is not a file; give a file name.")
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two sheets; ask for one at a time.")
    if asked and wide:
        raise UserError(f"--wide adds columns to trials; leave it out with --{asked[0]}.")
    if asked == ["comparisons"] and best is not None:
        raise UserError("--best picks trials; comparisons are over all of them.")
    if metric is not None and asked != ["comparisons"]:
        raise UserError("--metric goes with --comparisons.")


def _sheet(
    results: "Results",
    asked: str,
    *,
    best: int | None,
    wide: bool,
    metric: str | None,
) -> "Sheet":
    from tuner.answers.sheets import contents

    if asked == "epochs":
        return contents.epochs(results, best=best)
    if asked == "predictions":
        return contents.predictions(results, best=best)
    if asked == "comparisons":
        from tuner.answers.compare import compare

        return contents.comparisons(compare(results, metric=metric))
    return contents.trials(results, best=best, wide=wide)
