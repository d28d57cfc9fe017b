"""`tuner logs` and `tuner events`: the output and the history of trials."""

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef


@click.command(epilog=options.examples("tuner logs lr_sched 12"))
@click.argument("study")
@click.argument("trial", type=int, required=False)
@click.pass_obj
def logs(settings: Settings, study: StudyRef, trial: int | None) -> None:
    """Show the trainers' output for each attempt.

    With TRIAL, only that trial's output. When an attempt ends, the last 256 KiB
    of its output are stored.
    """
    from tuner.store import histories, studies

    with options.open_database(settings) as database, database.transaction() as connection:
        found = studies.find(connection, study)
        if trial is not None and not histories.has_trial(connection, found, trial):
            raise histories.no_trial(connection, found, trial)
        printed = histories.outputs(connection, found, trial)
    if not printed:
        whose = found.title if trial is None else f"trial {trial} of {found.title}"
        echo(f"No output was recorded for {whose}.", err=True)
    for output in printed:
        echo(f"── trial {output.number}, attempt {output.attempt} ──", bold=True)
        # A progress bar overwrites its line by carriage returns; here each state gets a line.
        echo(output.text.rstrip().replace("\r\n", "\n").replace("\r", "\n"))


@click.command(epilog=options.examples("tuner events lr_sched --trial 12"))
@click.argument("study")
@click.option("--trial", type=int, help="Only what happened to this trial.")
@options.json_option
@click.pass_obj
def events(settings: Settings, study: StudyRef, trial: int | None, *, as_json: bool) -> None:
    """Show the history of a study, or of one of its trials."""
    from tuner.store import histories, studies

    with options.open_database(settings) as database, database.transaction() as connection:
        found = studies.find(connection, study)
        if trial is not None and not histories.has_trial(connection, found, trial):
            raise histories.no_trial(connection, found, trial)
        happened = histories.events(connection, found, trial)
    for event in happened:
        if as_json:
            echo_json(
                {
                    "at": event.at.isoformat(),
                    "trial": event.number,
                    "worker": event.worker_id,
                    "kind": event.kind,
                    "text": event.text,
                    "who": event.who,
                },
                indent=None,
            )
            continue
        when = event.at.astimezone().strftime("%H:%M:%S")
        who = "" if event.number is None else f"trial {event.number:<4d} "
        by = "" if event.worker_id is None else f"  (worker {event.worker_id})"
        if event.who:
            by = f"  (by {event.who})"
        echo(f"{when}  {who}{event.described}{by}")
