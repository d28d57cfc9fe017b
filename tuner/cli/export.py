"""`tuner export`: a study's results as files for programs and papers."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.answers.sheets import MEDIA
from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo, write_bytes
from tuner.errors import UserError
from tuner.names import meant
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.answers.sheets.contents import Sheet

TABLE_ROWS = 10
"""The default of --best in tables for people: as many rows as `tuner table` shows."""
LABEL = re.compile(r"[A-Za-z0-9:._-]+")


@click.command(
    epilog=options.examples(
        "tuner export lr_sched --best 3 --format csv -o best.csv",
        "tuner export lr_sched -o table.tex --caption 'Schedules' --label tab:schedules",
        "tuner export lr_sched --where model=cnn --sort -test_acc --digits 2 -o cnn.md",
        "tuner export lr_sched --columns trial,lr,val_acc,test_acc,gap -o table.md",
        "tuner export lr_sched --predictions --best 1 -o predictions.parquet",
    )
)
@click.argument("study")
@click.option(
    "--best",
    type=click.IntRange(1),
    metavar="K",
    help="Only the K best settings by the study's metric, with the complete trials of each; "
    "with one seed per setting, the K best complete trials.",
)
@click.option(
    "--trials",
    "by_trial",
    is_flag=True,
    help="Rank single trials even if settings have several seeds.",
)
@click.option("--epochs", is_flag=True, help="One row per epoch instead of one per trial.")
@click.option("--predictions", is_flag=True, help="One row per trial and predicted image.")
@click.option(
    "--comparisons",
    is_flag=True,
    help="One row per factor level, with the verdicts of `tuner compare`.",
)
@click.option(
    "--settings", "by_setting", is_flag=True, help="One row per setting: its means over seeds."
)
@click.option("--metric", metavar="NAME", help="With --comparisons: the metric to compare by.")
@click.option(
    "--wide",
    is_flag=True,
    help="Add columns to trials: AUC, balanced accuracy, sensitivity, "
    "specificity, training and validation times, loss slopes of the last epochs.",
)
@click.option(
    "--columns",
    metavar="A,B,…",
    help="Only these columns, in this order; columns from --wide may be named too.",
)
@click.option(
    "--where",
    "conditions",
    metavar="CONDITION",
    multiple=True,
    help="Only rows matching this condition, e.g. model=cnn or 'lr<=0.01'; repeatable "
    "(all must match).",
)
@click.option(
    "--sort", metavar="COLUMN", help="Sort by this column; -COLUMN sorts in descending order."
)
@click.option(
    "--digits",
    type=click.IntRange(0, 17),
    metavar="N",
    help="Decimal places for metrics; parameters are not rounded.",
)
@click.option("--caption", help="LaTeX: make it a floating table with this caption.")
@click.option("--label", help="LaTeX: the label for \\ref, e.g. tab:rates.")
@click.option(
    "--format",
    "form",
    type=click.Choice(tuple(MEDIA)),
    help="Output format (default: from the file extension, else CSV).",
)
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    metavar="FILE",
    help="File to write; - is standard output.",
)
@options.overwrite_option
@click.pass_obj
def export(  # noqa: C901, PLR0912, PLR0915  # one story: which sheet, which rows, which layout, which file
    settings: Settings,
    study: StudyRef,
    best: int | None,
    metric: str | None,
    columns: str | None,
    conditions: tuple[str, ...],
    sort: str | None,
    digits: int | None,
    caption: str | None,
    label: str | None,
    form: str | None,
    output: str,
    *,
    epochs: bool,
    predictions: bool,
    comparisons: bool,
    by_setting: bool,
    by_trial: bool,
    wide: bool,
    overwrite: bool,
) -> None:
    """Write trials, settings, epochs, predictions or comparisons.

    There are six formats. docs/columns.md explains each column. Losses are in
    nats, times in UTC; an empty cell means that the value is unknown. CSV,
    JSON and Parquet have all columns at full precision (15 digits in Excel);
    accuracies are fractions. Markdown and LaTeX are for people: by default
    they hold what `tuner table` shows, --wide adds all columns, and
    accuracies are percentages. The file is written atomically. A CSV file
    with the same columns is replaced; any other file only with --overwrite.
    """
    from tuner.answers.columns import units
    from tuner.answers.compare import compare
    from tuner.answers.settings import has_replicates
    from tuner.answers.sheets import contents, formats
    from tuner.answers.sheets.export import as_csv
    from tuner.files import begins_with, write_output
    from tuner.results import read_condition, trial_columns

    sheets = {
        "epochs": epochs,
        "predictions": predictions,
        "comparisons": comparisons,
        "settings": by_setting,
    }
    asked = [name for name, on in sheets.items() if on]
    _check(asked, output, best=best, wide=wide, metric=metric, by_trial=by_trial)
    form = form or _format_of(output)
    _check_caption(form, caption, label)
    wanted = [read_condition(text) for text in conditions]
    if output == "-" and form in formats.BINARY and sys.stdout.isatty():
        raise UserError(f"{form} cannot be printed to a terminal; specify a file with -o.")
    with options.open_results(settings, study) as results:
        found = results.study
        what = asked[0] if asked else "trials"
        order: contents.BestOf = "settings"
        if by_trial or not has_replicates(found.spec):
            order = "trials"
        readable = form in formats.TYPESET and columns is None and not wide
        if readable and not asked:
            what = order
        # Naming a column, even in a condition, makes all columns of trials available.
        named = columns is not None or bool(wanted) or sort is not None
        if what == "epochs":
            sheet = contents.epochs(results, best=best, of=order)
        elif what == "predictions":
            sheet = contents.predictions(results, best=best, of=order)
        elif what == "settings":
            sheet = contents.settings(results)
        elif what == "comparisons":
            compared = compare(results, metric=metric)
            sheet = contents.comparisons(compared)
        else:
            first = order if best is not None or readable else None
            sheet = contents.trials(results, best_first=first, wide=wide or named)
        sheet = sheet.where(wanted)
        complete = sheet
        if what in ("trials", "settings"):
            shown = TABLE_ROWS if readable and best is None and not asked else None
            # The best settings' trials: one row for each of their seeds.
            grouped = what == "trials" and order == "settings"
            sheet = sheet.first(best or shown, found.spec.varied if grouped else ())
        left_out = _count(complete) - _count(sheet)
        sheet = sheet.sorted(sort)
        if columns is not None:
            sheet = sheet.only([name.strip() for name in columns.split(",")])
        elif readable and what == "settings":
            sheet = contents.readable_settings(results, sheet)
        elif readable and what == "trials":
            sheet = contents.readable_trials(results, sheet)
        elif readable and what == "comparisons":
            sheet = contents.readable_comparisons(sheet, compared[0].measure)
        elif what == "trials" and not wide:
            sheet = sheet.only(trial_columns(results.spec))
        layout = formats.Layout(
            digits=digits,
            exact={*found.spec.varied, *found.spec.fixed, "level", "reference"},
            plain_heads=readable and what in ("trials", "settings", "comparisons"),
            units=units(sheet.columns, results, compared=metric),
            caption=caption,
            label=label,
        )
        content = formats.write(sheet, form, layout)
    if wanted and not _count(sheet):
        echo(f"No row matches --where {' --where '.join(conditions)}.", err=True)
    if left_out and readable and best is None:
        echo(f"The {_count(sheet)} best of {_count(complete)}, as in `tuner table`; use --best K "
             "to change the number.", err=True)  # fmt: skip
    if output == "-":
        if found.versions > 1 and study.version is None:
            echo(f"{study} is {found.title}, the newest of {found.versions} versions.", err=True)
        write_bytes(content)
        return
    # A CSV file with the same columns is taken for an earlier export and may be replaced.
    earlier = begins_with(as_csv(sheet.columns, ())) if form == "csv" else None
    replaced = write_output(Path(output), content, overwrite=overwrite, recognised=earlier)
    rows = f"{len(sheet.rows)} rows" if isinstance(sheet.rows, list) else "written"
    of = f" of {found.title}" if found.versions > 1 else ""
    echo(f"{rows}{of}: {output}{REPLACED * replaced}", err=True)


def _count(sheet: "Sheet") -> int:
    """Return the number of rows of a sheet; 1 for one that can be iterated only once."""
    return len(sheet.rows) if isinstance(sheet.rows, list) else 1


def _check_caption(form: str, caption: str | None, label: str | None) -> None:
    if form != "latex" and (caption is not None or label is not None):
        raise UserError("--caption and --label are for LaTeX; specify a file that ends in .tex.")
    if label is None:
        return
    if caption is None:
        raise UserError("--label needs --caption: LaTeX numbers a table by its caption.")
    if not LABEL.fullmatch(label):
        raise UserError(f"--label {label!r}: use letters, digits and -_:. such as tab:rates.")


def _format_of(output: str) -> str:
    """Return the format that a file name implies; CSV without an extension."""
    from tuner.answers.sheets import formats

    ending = Path(output).suffix
    form = formats.format_of(output) if ending else "csv"
    if form is None:
        known = [f".{name}" for names in formats.ENDINGS.values() for name in names]
        raise UserError(
            f"-o {output}: unknown extension {ending}; use {', '.join(known)}, or --format."
            f"{meant(ending, known)}"
        )
    return form


def _check(
    asked: list[str],
    output: str,
    *,
    best: int | None,
    wide: bool,
    metric: str | None,
    by_trial: bool,
) -> None:
    if not output or Path(output).is_dir():
        raise UserError(f"-o {output or repr(output)} is not a file; give a file name.")
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} cannot be combined; export one at a time.")
    if asked and wide:
        raise UserError(f"--wide adds columns to trials; leave it out with --{asked[0]}.")
    if asked == ["comparisons"] and best is not None:
        raise UserError("--best selects settings or trials; it does not apply to comparisons.")
    if by_trial and asked and asked[0] in ("settings", "comparisons"):
        raise UserError(f"--trials ranks single trials; leave it out with --{asked[0]}.")
    if by_trial and asked and best is None:
        raise UserError(f"With --{asked[0]}, --trials only has an effect together with --best K.")
    if metric is not None and asked != ["comparisons"]:
        raise UserError("--metric requires --comparisons.")
