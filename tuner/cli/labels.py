"""`tuner tag`, `note` and `archive`: labels that people give to studies."""

import sys
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.settings import Settings, person
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.studies import Study


@click.command(
    epilog=options.examples("tuner tag lr_sched paper figure-2", "tuner tag lr_sched -r old")
)
@click.argument("study")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@click.option("-r", "--remove", multiple=True, metavar="TAG", help="Tag to remove.")
@options.json_option
@click.pass_obj
def tag(
    settings: Settings,
    study: StudyRef,
    tags: tuple[str, ...],
    remove: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Add, remove or list a study's tags.

    `tuner studies --tag` and the dashboard's search find studies by them.
    """
    from tuner.store import control

    with options.open_database(settings) as database:
        found = _find(database, study)
        has = found.tags
        if tags or remove:
            has = control.tag(database, found, tags, remove, person())
    if as_json:
        echo_json(has)
    else:
        echo(f"{found.title}: {' '.join(has)}" if has else f"{found.title} has no tags.")


@click.command(epilog=options.examples('tuner note lr_sched "Repeat with the cleaned labels."'))
@click.argument("study")
@click.argument("text", required=False)
@click.option("--remove", is_flag=True, help="Remove the note.")
@options.json_option
@click.pass_obj
def note(
    settings: Settings, study: StudyRef, text: str | None, *, remove: bool, as_json: bool
) -> None:
    """Set a study's note, replacing any earlier one, or show it.

    Without TEXT, the note is shown. Use - to read TEXT from standard input.
    """
    from tuner.store import control

    if text == "-":
        text = sys.stdin.read()
    with options.open_database(settings) as database:
        found = _find(database, study)
        if text is not None or remove:
            control.note(database, found, "" if remove else text or "", person())
            found = _find(database, study)
    if as_json:
        echo_json(found.note)
    else:
        echo(found.note or f"{found.title} has no note.")


@click.command(epilog=options.examples("tuner archive lr_sched", "tuner archive lr_sched --undo"))
@click.argument("study")
@click.option("--undo", is_flag=True, help="Unarchive the study.")
@click.pass_obj
def archive(settings: Settings, study: StudyRef, *, undo: bool) -> None:
    """Archive a study: hide it from lists, without deleting anything."""
    from tuner.store import control

    with options.open_database(settings) as database:
        found = _find(database, study)
        control.archive(database, found, archived=not undo, who=person())
    echo(f"{found.title} is {'no longer ' * undo}in the archive.")


def _find(database: "Database", study: StudyRef) -> "Study":
    from tuner.store import studies

    with database.transaction() as connection:
        return studies.find(connection, study)
