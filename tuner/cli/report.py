"""`tuner report`: a study as one document."""

from pathlib import Path

import click

from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo
from tuner.errors import UserError
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

ENDINGS = (".html", ".htm", ".md")


@click.command(
    epilog=options.examples(
        "tuner report lr_sched",
        "tuner report lr_sched -o report.html",
        "tuner report lr_sched -o report.md",
    )
)
@click.argument("study")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write: .html or .md; by default STUDY-report.html.",
)
@options.overwrite_option
@click.pass_obj
def report(settings: Settings, study: StudyRef, output: Path | None, *, overwrite: bool) -> None:
    """Write a report of a study: one file, HTML or Markdown.

    It contains the question, the answer, tables, plots and provenance. HTML
    needs no network and prints well. Markdown has the same text and tables,
    and gives the command for each plot. A running study is reported in its
    current state. The file is written atomically. An earlier HTML report is
    replaced; any other file only with --overwrite.
    """
    if output is not None and output.is_dir():
        raise UserError(f"-o {output} is a folder; name a file in it.")
    if output is not None and output.suffix.lower() not in ENDINGS:
        raise UserError(f"-o {output}: unsupported file type; use .html or .md.")
    from tuner.cli.console import waiting
    from tuner.files import check_output, contains, write_output
    from tuner.report import MARK
    from tuner.report.gather import gather
    from tuner.report.html import as_html
    from tuner.report.markdown import as_markdown

    page = output is None or output.suffix.lower() != ".md"
    # People may have edited a Markdown report, but not an HTML one.
    earlier = contains(MARK) if page else None
    with options.open_results(settings, study) as results, waiting() as tell:
        file = output or Path(f"{results.title}-report.html")
        check_output(file, overwrite=overwrite, recognised=earlier)
        report = gather(results, tell)
        tell("writing")
        content = as_html(report) if page else as_markdown(report)
    replaced = write_output(file, content, overwrite=overwrite, recognised=earlier)
    echo(f"{report.answer[0]}\n{file}{REPLACED * replaced}", err=True)
