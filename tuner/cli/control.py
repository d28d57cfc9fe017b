"""`tuner stop`, `pause`, `extend`, `retry` and `delete`."""

import click

from tuner.cli import options
from tuner.cli.terminal import confirm, echo
from tuner.errors import EXIT_DONE, UserError
from tuner.settings import Settings, person
from tuner.spec.study_ref import StudyRef


@click.command(epilog=options.examples("tuner stop lr_sched"))
@click.argument("study")
@click.pass_obj
def stop(settings: Settings, study: StudyRef) -> None:
    """Stop a study on all machines.

    Workers finish their epoch and exit. Nothing is lost; `tuner launch`
    resumes the study.
    """
    from tuner.store import control, studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        if found.state == "complete":
            echo(f"{found.title} is complete; there is nothing to stop.")
            return
        control.stop(database, found, person())
    echo(f"{found.title} is stopped. Resume with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner pause lr_sched", "tuner queue pause lr_sched"))
@click.argument("study")
@click.pass_obj
def pause(settings: Settings, study: StudyRef) -> None:
    """Pause a study: its workers finish their epoch and leave it.

    Running trials are released, and resume at the same epoch once `tuner launch` or
    `tuner queue resume` resumes the study.
    """
    from tuner.store import control, studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        control.pause(database, found, person())
    echo(f"{found.title} is paused. Resume with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner extend lr_sched --seeds 10"))
@click.argument("study")
@click.option("--trials", type=int, help="New total number of trials, counting all seeds.")
@click.option("--seeds", type=int, help="New number of seeds per setting.")
@click.pass_obj
def extend(settings: Settings, study: StudyRef, trials: int | None, seeds: int | None) -> None:
    """Add trials or seeds to a study; running workers pick them up.

    The same as launching its file with larger numbers.
    """
    from tuner.store import control, studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        longer = control.extend(database, found, trials=trials, seeds=seeds, who=person())
    echo(
        f"{longer.title} now has {longer.spec.total_trials} trials. "
        f"Run them with:  tuner launch {longer.title}"
    )


@click.command(epilog=options.examples("tuner retry lr_sched 3 17"))
@click.argument("study")
@click.argument("trials", type=int, nargs=-1)
@click.pass_obj
def retry(settings: Settings, study: StudyRef, trials: tuple[int, ...]) -> None:
    """Reopen failed trials, with the same numbers and parameters.

    Without TRIALS: all failed trials. A paused study is reopened as well.
    """
    from tuner.store import control, studies
    from tuner.store.optuna_storage import Binding

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        opened = control.retry(database, Binding(database), found, trials, person())
    if opened is None:
        echo(f"{found.title} has no failed trials.")
        return
    listed = ", ".join(map(str, opened))
    what = f"Reopened trials: {listed}." if opened else f"{found.title} is open for training again."
    echo(f"{what} Train with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner delete lr_sched@2 --yes"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Skip confirmation.")
@click.pass_obj
def delete(settings: Settings, study: StudyRef, *, yes: bool) -> int:
    """Delete a study and everything that belongs to it.

    This includes trials, curves, predictions and checkpoints. Asks for
    confirmation. A study that workers are training must be stopped first. If
    the checkpoints cannot be removed now, everything else is still deleted.
    """
    from tuner.store import studies
    from tuner.store.overview import overview
    from tuner.work import removal

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
            named = [version.full_name for version in studies.versions(connection, found.name)]
            seen = overview(connection, found)
        if len(named) > 1 and study.version is None:
            raise UserError(
                f"{found.name} has {len(named)} versions; specify which one to delete:\n"
                + "\n".join(f"  tuner delete {name}" for name in named)
            )
        removal.check_deletable(found, seen)
        if not yes:
            confirm(
                f"Permanently delete {found.title} ({seen.counts.ended} ended trials, "
                f"{seen.epochs_recorded:,} epochs)?"
            )
        remains = removal.delete(settings, database, found)
    echo(f"{found.title} is deleted.")
    if remains is None:
        return EXIT_DONE
    echo(remains, err=True)
    return remains.error.exit_code
