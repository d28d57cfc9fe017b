"""`tuner stop`, `pause`, `extend`, `retry` and `delete`: what a person may do to a study."""

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
        control.stop(database, found, person())
    echo(f"{found.title} is stopped. Go on with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner pause lr_sched"))
@click.argument("study")
@click.pass_obj
def pause(settings: Settings, study: StudyRef) -> None:
    """Pause a study: workers finish the trials that they have, and begin no other.

    `tuner launch` goes on with it.
    """
    from tuner.store import control, studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        control.pause(database, found, person())
    echo(f"{found.title} is paused. Go on with:  tuner launch {found.title}")


@click.command(epilog=options.examples("tuner extend lr_sched --seeds 10"))
@click.argument("study")
@click.option("--trials", type=int, help="How many trials it is to have, counting every seed.")
@click.option("--seeds", type=int, help="How many seeds each setting is to have.")
@click.pass_obj
def extend(settings: Settings, study: StudyRef, trials: int | None, seeds: int | None) -> None:
    """Give a study more trials or more seeds; workers that are at it begin them.

    The same as launching its file with larger numbers.
    """
    from tuner.store import control, studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        longer = control.extend(database, found, trials=trials, seeds=seeds, who=person())
    echo(
        f"{longer.title} has {longer.spec.total_trials} trials now. "
        f"Train with:  tuner launch {longer.title}"
    )


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
        opened = control.retry(database, Binding(database), found, trials, person())
    if opened is None:
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
    from tuner.work import removal

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
        removal.check_deletable(found, seen)
        if not yes:
            confirm(
                f"Delete {found.title} with {seen.counts.ended} ended trials and "
                f"{seen.epochs_recorded} epochs, for good?"
            )
        remains = removal.delete(settings, database, found)
    echo(f"{found.title} is deleted.")
    if remains is None:
        return EXIT_DONE
    echo(remains, err=True)
    return remains.error.exit_code
