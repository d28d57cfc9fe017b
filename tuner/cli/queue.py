"""`tuner queue`: which study workers train next."""

from typing import TYPE_CHECKING, Any

import click

from tuner.cli import control, options
from tuner.cli.terminal import echo, echo_json
from tuner.settings import Settings, person
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.store.turns import QueuedStudy

PRIORITY_MOST = 1000


@click.group(
    cls=options.StudyGroup,
    invoke_without_command=True,
    epilog=options.examples("tuner queue", "tuner queue priority lr_sched 5"),
)
@options.json_option
@click.pass_context
def queue(ctx: click.Context, *, as_json: bool) -> None:
    """Show or change the order in which workers take studies.

    Workers started with `tuner worker --any` take the study with the highest
    priority first. Among equal priorities, the person whose workers have
    trained least in the last 7 days goes first, then the older study. A worker
    switches studies only between trials.
    """
    if ctx.invoked_subcommand is not None:
        return
    from tuner.store import studies, turns

    settings: Settings = ctx.obj
    with options.open_database(settings) as database, database.transaction() as connection:
        waiting = turns.read(connection)
        paused = [one for one in studies.in_state(connection, "paused") if not one.archived]
    if as_json:
        echo_json([_described(place, turn) for place, turn in enumerate(waiting, 1)], indent=2)
        return
    if not waiting:
        echo("No study is open.")
    else:
        _print(waiting)
    if paused:
        echo(f"Paused: {', '.join(study.title for study in paused)}")


@queue.command(epilog=options.examples("tuner queue priority lr_sched 5"))
@click.argument("study")
@click.argument("priority", type=click.IntRange(-PRIORITY_MOST, PRIORITY_MOST))
@click.pass_obj
def priority(settings: Settings, study: StudyRef, priority: int) -> None:
    """Set a study's priority; higher goes first, and the default is 0.

    Put `--` before a negative priority: tuner queue priority lr_sched -- -1
    """
    from tuner.store import studies, turns

    with options.open_database(settings) as database, database.transaction() as connection:
        found = studies.find(connection, study)
        turns.set_priority(connection, found, priority, person())
    echo(f"{found.title} now has priority {priority}. `tuner queue` shows the order.")


queue.add_command(control.pause)


@queue.command(epilog=options.examples("tuner queue resume lr_sched"))
@click.argument("study")
@click.pass_obj
def resume(settings: Settings, study: StudyRef) -> None:
    """Reopen a paused or stopped study; no training starts here."""
    from tuner.store import control as actions
    from tuner.store import studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, study)
        actions.go_on(database, found, person())
    echo(f"{found.title} is open; workers on any study train it when it is its turn.")


def _print(waiting: "list[QueuedStudy]") -> None:
    from rich.table import Table

    from tuner.cli.console import open_console
    from tuner.cli.live import duration

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("turn", "study", "priority", "person", "person used", "workers", "waiting"):
        right = name in ("turn", "priority", "person used", "workers")
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    for place, turn in enumerate(waiting, 1):
        table.add_row(
            str(place),
            turn.study.title,
            str(turn.priority),
            turn.owner or "–",
            duration(turn.used_seconds),
            str(turn.workers),
            "trials" if turn.has_work else "nothing now",
        )
    open_console().print(table)


def _described(place: int, turn: "QueuedStudy") -> dict[str, Any]:
    return {
        "turn": place,
        "study": turn.study.full_name,
        "priority": turn.priority,
        "person": turn.owner,
        "used_seconds": turn.used_seconds,
        "workers": turn.workers,
        "has_work": turn.has_work,
    }
