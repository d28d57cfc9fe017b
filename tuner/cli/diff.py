"""`tuner diff`: two studies, their files and their results."""

import json
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.answers.diff import Diff


@click.command(
    epilog="\b\nExample:\n  tuner diff lr_sched@1 lr_sched@2\n  tuner diff ann cnn --json"
)
@click.argument("study")
@click.argument("other")
@click.option("--metric", metavar="NAME", help="Figure to compare by; test_acc where there is one.")
@options.json_option
@click.pass_obj
def diff(
    settings: Settings, study: StudyRef, other: StudyRef, metric: str | None, *, as_json: bool
) -> None:
    """Say what differs between two studies: in the files, and in the results.

    Results are compared in the settings that both have, matched by what both
    vary and by seed; over seeds, and over images where these are the same.
    """
    from tuner.answers.diff import diff as between
    from tuner.answers.plain import plain
    from tuner.results import Results

    with options.open_database(settings) as database, database.snapshot() as connection:
        one, two = (Results.of(connection, ref) for ref in (study, other))
        diff = between(one, two, metric)
    if as_json:
        echo_json(plain(diff), default=str)
    else:
        _show(diff)


def _show(found: "Diff") -> None:
    from tuner.answers.words import figure
    from tuner.cli.console import open_console, plain_table, print_sentences

    console = open_console()
    names = [side.study for side in found.sides]
    for title, changes in (("file", found.changes), ("environment", found.surroundings)):
        if not changes:
            console.print(f"\nNothing differs in the {title}.")
            continue
        console.print()
        table = plain_table(f"In the {title}")
        for name in ("", *names):
            table.add_column(name, overflow="fold")
        for change in changes:
            table.add_row(*(_word(one) for one in (change.key, change.stored, change.given)))
        console.print(table)
    console.print()
    table = plain_table("In the results")
    for name in ("study", "complete", f"mean {found.measure.name}", "best trial", "its figure"):
        table.add_column(name.replace("_", " "), justify="right" if name != "study" else "left")
    for side in found.sides:
        table.add_row(
            side.study,
            f"{side.complete}/{side.trials}",
            "–" if side.mean is None else figure(found.measure, side.mean),
            "–" if side.best is None else str(side.best),
            "–" if side.best_figure is None else figure(found.measure, side.best_figure),
        )
    console.print(table)
    print_sentences(console, [found.verdict])
    console.print()


def _word(value: object) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
