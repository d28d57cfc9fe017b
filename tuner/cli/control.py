"""`tuner stop`, `retry` and `delete`: what a person may do to a stored study."""

import shlex
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import confirm, echo
from tuner.errors import EXIT_DONE, TunerError, UserError
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.studies import Study


@click.command(epilog=options.examples("tuner stop lr_sched"))
@click.argument("study")
@click.pass_obj
def stop(settings: Settings, study: StudyRef) -> None:
    """Stop a study on all machines.

    Workers finish their epoch and leave. Nothing is lost; `tuner launch`
    resumes it.
    """
    from tuner.store import control, studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        if found.state == "complete":
            echo(f"{found.title} is complete; there is nothing to stop.")
            return
        control.stop(database, found)
    echo(f"{found.title} is stopped. Go on with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner retry lr_sched 3 17"))
@click.argument("study")
@click.argument("trials", type=int, nargs=-1)
@click.pass_obj
def retry(settings: Settings, study: StudyRef, trials: tuple[int, ...]) -> None:
    """Reopen failed trials, with the same numbers and parameters.

    Without TRIALS: all failed trials. A paused study is released, too.
    """
    from tuner.store import control, studies
    from tuner.store.optuna_storage import Binding

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        opened = control.retry(database, Binding(database), found, trials)
    if not opened and found.state not in ("paused", "stopped"):
        echo(f"{found.title} has no failed trials.")
        return
    listed = ", ".join(map(str, opened))
    what = f"Trials opened again: {listed}." if opened else f"{found.title} is open again."
    echo(f"{what} Train with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner delete lr_sched@2 --yes"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(settings: Settings, study: StudyRef, *, yes: bool) -> int:
    """Delete a study and everything that belongs to it.

    That is trials, curves, predictions and checkpoints. Asks for confirmation.
    A study that workers are training must be stopped first. If its checkpoints
    cannot be removed now, the rest is still deleted.
    """
    from tuner.store import studies
    from tuner.store.overview import overview

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
            named = [one.full_name for one in studies.versions(connection, found.name)]
            seen = overview(connection, found)
        if len(named) > 1 and study.version is None:
            raise UserError(
                f"{found.name} has {len(named)} versions; say which one to delete:\n"
                + "\n".join(f"  tuner delete {name}" for name in named)
            )
        if seen.workers and found.state == "open":
            workers = len({line.worker_id for line in seen.workers})
            raise UserError(
                f"{found.title} is being trained by {workers} worker{'s' * (workers > 1)}. "
                f"Stop it first:  tuner stop {found.title}"
            )
        if not yes:
            confirm(
                f"Delete {found.title} with {seen.counts.ended} ended trials and "
                f"{seen.epochs_recorded} epochs, for good?"
            )
        # Loaded before the transaction: on a busy machine that takes seconds, and the server ends
        # transactions that are idle for long.
        from tuner.store import optuna_storage  # noqa: F401

        with database.transaction() as connection:
            studies.delete(connection, found)
        echo(f"{found.title} is deleted.")
        return _forget_checkpoints(settings, database, found)


def _forget_checkpoints(settings: Settings, database: "Database", study: "Study") -> int:
    """Remove the checkpoints of a study that was deleted, or say how to; return the exit code."""
    from tuner.store.checkpoints import checkpoint_place
    from tuner.text import masked
    from tuner.train.checkpoints.timely import TimelyPlace
    from tuner.train.checkpoints.tree import Tree
    from tuner.work.housekeeping import forget, places

    place = checkpoint_place(settings, study.spec)
    if place is None:
        return EXIT_DONE
    try:
        forget(Tree(TimelyPlace(place, settings.timing.lookup)), study)
    except TunerError as error:
        command = "tuner clean --foreign"
        if place not in places(settings, database):
            # No study is left that names this place.
            command = f"TUNER_CHECKPOINTS={shlex.quote(masked(place))} {command}"
        echo(
            f"Its checkpoints are still there: {error}\n"
            f"Remove them later with:  {command}\n"
            "(This also removes checkpoints of other databases at that place.)",
            err=True,
        )
        return error.exit_code
    return EXIT_DONE
