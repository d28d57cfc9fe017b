"""`tuner launch`: create or continue a study, train it here, show it, and end with its tables."""

import importlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner import forkserver
from tuner.cli import options
from tuner.cli.data import early_look, keep_look, look_at_data
from tuner.cli.identity import accept, asks_the_same, changes_of, refuse, study_of
from tuner.cli.longer import lengthened
from tuner.cli.terminal import echo, show_progress
from tuner.errors import (
    EXIT_DONE,
    EXIT_FAILURES,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    UnknownStudyError,
    UserError,
)
from tuner.fleet.local import LocalFleet
from tuner.home import make_cache, write_private
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.check.quick import Examined
    from tuner.cli.live import Screen
    from tuner.records import Identity
    from tuner.results.results import Results
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.overview import Overview
    from tuner.store.studies import Launch, Study
    from tuner.work.stopping import StopRequest

LOOK_SECONDS = 0.5
SHORT_LOOK_SECONDS = 0.1
"""When all that is waited for is that the workers leave."""


@click.command(
    epilog="\b\nExample:\n  tuner launch --study lr_sched\n"
    "  tuner launch --study studies/mine.toml --set epochs=50 --workers 2\n"
    "  tuner launch --study lr_sched --epochs-to 60"
)
@click.option(
    "--study",
    required=True,
    help="Study to launch: a name, a path to its file, or a stored version such as lr@2.",
)
@options.study_file_options
@options.crew_options
@options.objectives_option
@click.option(
    "--new-version",
    is_flag=True,
    help="Launch a changed file as a version of its own (lr@2) beside the stored one.",
)
@click.option(
    "--epochs-to",
    type=click.IntRange(1),
    metavar="N",
    help="Train the stored study longer, as a new version, from its stored epochs.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on with the study though its code or data changed since, and mark it so.",
)
@click.option(
    "--no-check",
    is_flag=True,
    help="Do not look at the data first for duplicates, shared patients and shifts.",
)
@click.option(
    "--wait",
    default=60.0,
    show_default=True,
    help="Seconds to wait for a database server that does not answer.",
)
@click.pass_obj
def launch(  # noqa: C901  # one story: what is stored, what changed since, train, conclude
    settings: Settings,
    study: str,
    overrides: tuple[str, ...],
    workers: int | None,
    device: str,
    threads: int | None,
    objective_folders: tuple[Path, ...],
    epochs_to: int | None,
    wait: float,
    *,
    new_version: bool,
    accept_changes: bool,
    no_check: bool,
) -> int:
    """Launch a study, or go on with it, and train it to its end.

    The study file is checked first, and its data are looked at; every fault is
    told at once and nothing is created. A study that exists is continued:
    finished trials stay, more trials or seeds extend it. A study whose code or
    data changed since is refused. Ctrl-C once lets every
    worker finish its epoch and gives the trials back; twice stops at once.
    Nothing recorded is lost either way.
    """
    stored = "@" in study and not study.endswith(".toml")
    if new_version and accept_changes:
        raise UserError("--new-version trains all of it again; --accept-changes goes on. Choose.")
    if stored and (overrides or new_version or epochs_to):
        raise UserError(f"{study} is a stored version: it goes on as it is. Change its file.")
    spec = None if stored else options.load_spec(study, overrides, objective_folders)
    folders = _objective_folders(None if stored else study, objective_folders)
    # To go on with a stored study, or to train it longer, there must be one.
    makes = not stored and epochs_to is None
    options.tell_home(settings, makes=makes)
    from tuner.check.child import Site

    with (
        # Workers and trainers are forked from it. It loads what they need while this process finds
        # out what there is to train.
        forkserver.started(
            (*forkserver.CHECKS, *forkserver.WORKERS, *forkserver.TRAINERS)
        ) as forks,
        early_look(
            settings,
            None if no_check else spec,
            site := Site(settings.home, folders, show_progress, forks),
        ) as question,
        options.open_database(settings, wait_seconds=wait, create=makes) as database,
    ):
        make_cache(settings.home)
        if epochs_to is not None:
            spec = lengthened(database, study, epochs_to, overrides, objective_folders)
        versioned = new_version or epochs_to is not None
        known = (
            _known(database, study)
            if spec is None
            else study_of(database, spec, versioned=versioned)
        )
        changes: Sequence[str] = ()
        now: Sequence[Identity] = ()
        if known is not None:
            # Loading torch to tell code apart takes seconds, and matters only where nothing but
            # the code asks for a version.
            whole = accept_changes or (versioned and asks_the_same(known, spec))
            changes, now = changes_of(database, known, site, whole=whole)
        if known is not None and changes and not (versioned or accept_changes):
            refuse(known, changes)
        found: Sequence[Examined] = ()
        if spec is None:
            launched = _go_on(database, study)
        else:
            if not no_check:
                again = bool(changes)
                found = look_at_data(database, spec, site, begun=question, again=again)
            launched = _store(database, spec, new_version=versioned, changed=bool(changes))
            keep_look(database, launched.study, found)
        if accept_changes and not versioned:
            for change in accept(database, launched.study, now):
                echo(f"Accepted, and marked in the study: {change}")
        _announce(launched)
        if launched.study.state != "complete":
            from tuner.fleet.contract import Crew
            from tuner.fleet.devices import crew_devices

            devices = crew_devices(device, workers, threads or launched.study.spec.limits.threads)
            # The bare name would be the newest version's, whichever is launched.
            crew = Crew(launched.study.full_name, devices, threads, folders)
            code = _train(database, launched.study, LocalFleet(settings, crew, forks))
            if code is not None:
                return code
        return _conclude(database, settings, launched.study, told=bool(found))


def _objective_folders(study: str | None, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    from tuner.spec.load import find

    if study is None:
        return options.objective_folders(None, paths)
    return options.objective_folders(find(study, options.study_folders()), paths)


def _known(database: "Database", title: str) -> "Study | None":
    from tuner.store import studies

    with database.transaction() as connection:
        study = studies.find(connection, title)
    return None if study.state == "complete" else study


def _store(database: "Database", spec: "Spec", *, new_version: bool, changed: bool) -> "Launch":
    from tuner.cli.provenance import provenance
    from tuner.store import studies
    from tuner.store.optuna_storage import Binding

    binding = Binding(database)
    return studies.launch(
        database, binding, spec, provenance(), new_version=new_version, changed=changed
    )


def _go_on(database: "Database", title: str) -> "Launch":
    from tuner.store import studies

    with database.transaction() as connection:
        return studies.go_on(connection, title)


def _announce(launched: "Launch") -> None:
    study = launched.study
    total = f"{study.spec.total_trials} trials"
    raced = study.spec.replicates.of == "top"
    if launched.what == "found" and study.state == "complete":
        # A race may have ended before the budget did.
        told = f"{study.title} is complete" if raced else f"{study.title} is complete: {total}"
        echo(f"{told}. Nothing to train.")
        return
    total = f"at most {total}" if raced else total
    verb = {
        "created": "New study",
        "extended": "Extended",
        "found": "Going on with",
        "replaced": "Replaced, since nothing of it had been trained:",
    }
    echo(f"{verb[launched.what]} {study.title}: {study.spec.question}  ({total})")
    for change in launched.changes:
        echo(f"  {change}")


def _train(database: "Database", study: "Study", fleet: LocalFleet) -> int | None:
    """Run the fleet to its end; return an exit code if the study did not reach its own."""
    from tuner.cli.live import screen_for
    from tuner.work.stopping import StopRequest

    stop = StopRequest()
    stop.install()
    try:
        fleet.start()
        _load_tables()
        with screen_for(sys.stdout) as screen:
            _watch(database, study, fleet, stop, screen)
        failures = fleet.failures()
    finally:
        fleet.close()
    if stop.asked:
        echo(
            f"Stopped. Trials in progress were given back; go on with:  "
            # With what was set on the command line the file is another study than the stored one.
            f"tuner launch --study {study.full_name if study.spec.overrides else study.title}"
        )
        return EXIT_SIGINT if stop.signal == signal.SIGINT else EXIT_SIGTERM
    return _unfinished(database, study, failures)


def _load_tables() -> None:
    """Load what the end of a launch needs, while the workers start."""
    importlib.import_module("tuner.answers.sheets.export")
    importlib.import_module("tuner.answers.compare")
    importlib.import_module("tuner.cli.tables")


def _watch(
    database: "Database",
    study: "Study",
    fleet: LocalFleet,
    stop: "StopRequest",
    screen: "Screen",
) -> None:
    asked = 0
    while True:
        running = fleet.running()
        overview = _look(database, study)
        if overview is not None:
            screen.show(overview)
        if not running:
            return
        if stop.count > asked:
            (fleet.ask_to_stop if asked == 0 else fleet.stop_now)()
            asked += 1
            screen.say(
                "Stopping: every worker finishes its epoch and gives its trial back. "
                "Ctrl-C again stops at once."
                if asked == 1
                else "Stopping now."
            )
        ends = stop.asked or (overview is not None and overview.state == "complete")
        time.sleep(SHORT_LOOK_SECONDS if ends else LOOK_SECONDS)


def _look(database: "Database", study: "Study") -> "Overview | None":
    from sqlalchemy.exc import DBAPIError

    from tuner.store.overview import overview

    try:
        with database.transaction() as connection:
            return overview(connection, study)
    except DBAPIError:
        return None  # the workers wait for the database by themselves; so does the screen
    except UnknownStudyError:
        return None  # deleted meanwhile: the workers leave, and the end is told after them


def _unfinished(database: "Database", study: "Study", failures: list[str]) -> int | None:
    from tuner.store import studies

    try:
        with database.transaction() as connection:
            now = studies.find(connection, study.full_name)
    except UnknownStudyError:
        now = None
    if now is None or now.study_id != study.study_id:
        echo(
            f"{study.title} was deleted while it was being trained; none of its results are left.",
            err=True,
        )
        return EXIT_FAILURES
    if now.state == "complete":
        return None
    for failure in failures:
        echo(failure, err=True)
    if now.state == "open":
        echo(
            f"{study.title} has not ended, but no worker is left here. "
            f"`tuner logs {study.title}` shows what they said.",
            err=True,
        )
    elif now.state == "stopped":
        echo(f"{study.title} is stopped: {now.reason}", err=True)
        echo(f"Go on with:  tuner launch --study {study.title}", err=True)
    else:
        echo(f"{study.title} is {now.state}: {now.reason}", err=True)
        echo(
            f"`tuner events {study.title}` and `tuner logs {study.title}` say more. "
            f"After the repair:  tuner launch --study {study.title}",
            err=True,
        )
    return EXIT_FAILURES


def _conclude(database: "Database", settings: Settings, launched: "Study", *, told: bool) -> int:
    from tuner.answers.sheets.export import as_csv
    from tuner.cli.tables import show_tables
    from tuner.results.results import Results
    from tuner.results.rows import trial_columns
    from tuner.store import identities

    with database.snapshot() as connection:
        results = Results.of(connection, launched.full_name)
        study, rows = results.study, results.rows
        show_tables(results, best=10, told=told)
        _tell_verdicts(results)
    _tell_race(database, study)
    with database.transaction() as connection:
        for mark in identities.marks(connection, study.study_id):
            echo(f"{mark.sentence}\n")
    columns = trial_columns(study.spec)
    path = settings.home / "results" / f"{study.title}.csv"
    write_private(path, as_csv(columns, ([row[c] for c in columns] for row in rows)))
    echo(f"All {len(rows)} trials: {_short(path)}")
    failed = sum(row["state"] == "FAILED" for row in rows)
    if failed:
        echo(
            f"{failed} trials failed for good; `tuner logs {study.title}` shows why, "
            f"`tuner retry {study.title}` opens them again.",
            err=True,
        )
    return EXIT_FAILURES if failed else EXIT_DONE


def _tell_verdicts(results: "Results") -> None:
    """Say, factor by factor, whether a difference is seen and what more seeds would buy."""
    from tuner.answers.compare import compare

    try:
        found = [comparison.summary for comparison in compare(results) if comparison.summary]
    except UserError:
        return  # nothing that could be compared, which the tables show already
    for one in found:
        echo(one)
    if found:
        more = f"`tuner compare {results.title}` and `tuner gap {results.title}`"
        echo(f"{more} say how sure that is.\n")


def _tell_race(database: "Database", study: "Study") -> None:
    from tuner.cli.race import race_lines

    lines = race_lines(database, study)
    for line in lines:
        echo(line)
    if lines:
        echo(f"`tuner compare {study.title} --contenders` holds them against each other.\n")


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
