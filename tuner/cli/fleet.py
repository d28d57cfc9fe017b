"""`tuner fleet` and `tuner attach`: the workers of a study, wherever they run."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import options
from tuner.cli.terminal import confirm, echo, echo_json
from tuner.errors import EXIT_DONE, EXIT_FAILURES, EXIT_MACHINE, TunerError, UserError
from tuner.settings import Settings, person
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.fleets import StoredFleet
    from tuner.store.studies import Study
    from tuner.work.probe import ProbeReport

WORKERS_MOST = 10_000


@click.group(cls=options.StudyGroup, epilog=options.examples("tuner fleet status lr_sched"))
def fleet() -> None:
    """Show, scale or stop a study's workers, from any machine.

    `tuner launch --on ENGINE` starts a fleet: on this machine, or on a cluster.
    """


@fleet.command(epilog=options.examples("tuner fleet status lr_sched"))
@click.argument("study")
@click.option("--all", "ended", is_flag=True, help="Include fleets that have ended.")
@options.json_option
@click.pass_obj
def status(settings: Settings, study: StudyRef, *, ended: bool, as_json: bool) -> None:
    """Show the fleets of a study: where their workers run, and how many."""
    from tuner.fleet import tending
    from tuner.store import fleets

    with _study(settings, study) as (database, found):
        with database.transaction() as connection:
            stored = fleets.of_study(connection, found, ended=ended)
        lines, unknown = [], {}
        for one in stored:
            try:
                lines.append(one if one.ended else tending.look(settings, database, one)[0])
            # If one engine cannot be reached from here, the other fleets are still shown.
            except TunerError as error:
                lines.append(one)
                unknown[one.fleet_id] = str(error)
    if as_json:
        described = [{**_described(one), "error": unknown.get(one.fleet_id)} for one in lines]
        echo_json(described, indent=2)
        return
    if not lines:
        echo(f"No fleet works on {found.title}. Start one with:  tuner launch {found.title}")
        return
    from rich.table import Table

    from tuner.cli.console import open_console

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("fleet", "engine", "running", "wanted", "state", "started by", "started"):
        table.add_column(name, no_wrap=True)
    for one in lines:
        started = one.started.astimezone().strftime("%Y-%m-%d %H:%M")
        cells = (str(one.fleet_id), one.engine, str(one.running), str(one.workers))
        table.add_row(*cells, _state(one), one.who, started)
    open_console().print(table)
    for one in lines:
        if one.reason:
            echo(f"Fleet {one.fleet_id}: {one.reason}")
        if one.fleet_id in unknown:
            seen = one.seen.astimezone().strftime("%Y-%m-%d %H:%M")
            echo(f"Fleet {one.fleet_id} as it was at {seen}: {unknown[one.fleet_id]}", err=True)


@fleet.command(
    epilog=options.examples(
        "tuner fleet scale lr_sched 8", "tuner fleet scale lr_sched 2 --fleet 17"
    )
)
@click.argument("study")
@click.argument("workers", type=click.IntRange(1, WORKERS_MOST))
@click.option("--fleet", "number", type=int, help="Which fleet, if the study has several.")
@click.pass_obj
def scale(settings: Settings, study: StudyRef, workers: int, number: int | None) -> None:
    """Change the number of workers of a fleet.

    Surplus workers finish their epoch and release their trial.
    """
    from tuner.fleet import tending
    from tuner.store import studies

    with _study(settings, study) as (database, found):
        stored = _the_fleet(database, found, number)
        tending.scale(settings, database, stored, workers)
        with database.transaction() as connection:
            text = f"{stored.engine}: {stored.workers} → {workers} workers"
            studies.add_event(connection, found, "scaled", text, person())
    echo(f"Fleet {stored.fleet_id} of {found.title} ({stored.engine}): {workers} workers wanted.")


@fleet.command(epilog=options.examples("tuner fleet stop lr_sched"))
@click.argument("study")
@click.option(
    "--fleet", "number", type=int, help="Only this fleet; default: all of the study's fleets."
)
@click.option("--now", is_flag=True, help="Do not wait for the end of the epoch.")
@click.pass_obj
def stop(settings: Settings, study: StudyRef, number: int | None, *, now: bool) -> int:
    """Make a study's workers exit; the study stays open.

    They finish their epoch and release their trials. To stop the study itself on
    all machines, use `tuner stop`.
    """
    from tuner.fleet import tending
    from tuner.store import fleets, studies

    with _study(settings, study) as (database, found):
        if number is None:
            with database.transaction() as connection:
                stored = fleets.of_study(connection, found)
        else:
            stored = [_the_fleet(database, found, number)]
        code = EXIT_DONE
        for one in stored:
            try:
                tending.stop(settings, database, one, now=now)
            # The other fleets are still asked to stop.
            except TunerError as error:
                echo(f"Fleet {one.fleet_id} was not asked to stop: {error}", err=True)
                code = error.exit_code
                continue
            with database.transaction() as connection:
                studies.add_event(connection, found, "fleet stopped", one.engine, person())
            echo(f"Fleet {one.fleet_id} of {found.title} ({one.engine}) was asked to stop.")
    if not stored:
        echo(f"No fleet works on {found.title}.")
    return code


@fleet.command(epilog=options.examples("tuner fleet forget lr_sched --fleet 17"))
@click.argument("study")
@click.option("--fleet", "number", type=int, help="Which fleet, if the study has several.")
@click.option("--yes", is_flag=True, help="Skip confirmation.")
@click.pass_obj
def forget(settings: Settings, study: StudyRef, number: int | None, *, yes: bool) -> None:
    """Forget a fleet whose cluster is gone for good.

    Its engine is not contacted, and no worker is stopped: one that is still running
    continues to train. Use `tuner fleet stop` if the cluster can be reached.
    """
    from tuner.fleet import forgetting

    with _study(settings, study) as (database, found):
        stored = _the_fleet(database, found, number)
        forgetting.refuse_present(stored)
        seen = stored.seen.astimezone().strftime("%Y-%m-%d %H:%M")
        name = f"Fleet {stored.fleet_id} of {found.title} ({stored.engine})"
        echo(
            f"{name} was last seen at {seen}, with {stored.running} of {stored.workers} workers "
            "running."
        )
        echo("There may still be:")
        for one in forgetting.remains(stored):
            echo(f"  - {one}")
        if not yes:
            confirm("Forget this fleet? Nothing of it is stopped.")
        with database.transaction() as connection:
            forgetting.forget(connection, found, stored, person())
    echo(
        f"{name} is forgotten. Workers that still reach the database keep training; "
        f"`tuner stop {found.title}` makes them exit."
    )


@fleet.command(
    epilog=options.examples(
        "tuner fleet probe lr_sched", "tuner fleet probe lr_sched --on local --json"
    )
)
@click.argument("study")
@options.engine_options
@options.objectives_option
@options.json_option
@click.pass_obj
def probe(
    settings: Settings,
    study: StudyRef,
    engine: str,
    engine_options: tuple[str, ...],
    objective_folders: tuple[Path, ...],
    *,
    as_json: bool,
) -> int:
    """Check that workers on an engine could train a study.

    That is: the database can be reached, the objective can be imported, the data
    are present and unchanged, checkpoints can be written, and versions match.
    """
    from tuner.fleet import engines
    from tuner.fleet.contract import Crew
    from tuner.work.probe import ProbeReport

    chosen = engines.load(engine)
    engines.refuse_embedded(settings, engine)
    checked = chosen.options(options.read_engine_options(engine_options))
    with _study(settings, study) as (_, found):
        folders = options.objective_folders(None, objective_folders)
        crew = Crew(found.full_name, folders=folders, options=checked)
        report = ProbeReport.read(chosen.probe(settings, crew))
    if as_json:
        echo_json(report.to_json(), indent=2)
    else:
        show_report(report)
    return EXIT_DONE if report.ok else EXIT_MACHINE


@click.command(epilog=options.examples("tuner attach lr_sched"))
@click.argument("study")
@click.pass_obj
def attach(settings: Settings, study: StudyRef) -> int:
    """Follow a detached study until it ends. Ctrl-C leaves it training."""
    from tuner.cli.live import screen_for
    from tuner.store.overview import overview

    with _study(settings, study) as (database, found):
        try:
            with screen_for(sys.stdout) as screen:
                while True:
                    with database.transaction() as connection:
                        seen = overview(connection, found)
                    screen.show(seen)
                    if seen.state != "open":
                        break
                    time.sleep(1.0)
        except KeyboardInterrupt:
            echo(f"{found.title} trains on. To end its workers:  tuner fleet stop {found.title}")
            return EXIT_DONE
    if seen.state == "complete":
        echo(f"{found.title} is complete. `tuner table {found.title}` shows its results.")
        return EXIT_DONE
    if seen.over:
        echo(f"{seen.reason} `tuner table {found.title}` shows the results so far.")
        return EXIT_DONE
    echo(f"{found.title} is {seen.state}: {seen.reason}")
    return EXIT_FAILURES


def show_report(report: "ProbeReport") -> None:
    """Print a probe's findings, one per line."""
    echo(f"On {report.host}, as {report.person}:")
    for finding in report.findings:
        mark = "ok   " if finding.ok else "WRONG"
        first, *more = finding.said.splitlines() or [""]
        echo(f"  {mark}  {finding.what:<14} {first}", bold=not finding.ok)
        for line in more:
            echo(f"{'':<24}{line}")


@contextmanager
def _study(settings: Settings, ref: StudyRef) -> "Iterator[tuple[Database, Study]]":
    from tuner.store import studies

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            found = studies.find(connection, ref)
        yield database, found


def _the_fleet(database: "Database", study: "Study", number: int | None) -> "StoredFleet":
    """Return the fleet of this number, or the study's only one."""
    from tuner.store import fleets

    with database.transaction() as connection:
        present = fleets.of_study(connection, study)
    if number is not None:
        present = [one for one in present if one.fleet_id == number]
    if not present:
        which = "no fleet" if number is None else f"no fleet {number}"
        raise UserError(
            f"{study.title} has {which} that works on it; `tuner fleet status {study.title} --all` "
            "lists those that have ended."
        )
    if len(present) > 1:
        lines = "\n".join(
            f"  --fleet {one.fleet_id}   {one.engine}, by {one.who}" for one in present
        )
        raise UserError(f"{study.title} has {len(present)} fleets; say which one:\n{lines}")
    return present[0]


def _state(one: "StoredFleet") -> str:
    from tuner.fleet.tending import is_lost

    if one.ended is not None:
        return "ended"
    if is_lost(one):
        return "lost: its launcher has ended"
    return {"": "working", "stop": "stopping", "now": "stopping now"}[one.asked]


def _described(one: "StoredFleet") -> dict[str, Any]:
    described = asdict(replace(one, crew={}, handle={}))
    # The engine's handle is internal, so it is left out.
    del described["crew"], described["handle"], described["unseen"]
    for name in ("started", "seen", "ended"):
        moment = described[name]
        described[name] = None if moment is None else moment.isoformat()
    return {**described, "state": _state(one)}
