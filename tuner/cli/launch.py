"""`tuner launch`: creates or resumes a study, trains it, and ends with its tables."""

import importlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner import forkserver
from tuner.cli import options
from tuner.cli.data import Findings, early_look, keep_look, look_at_data
from tuner.cli.identity import accept, asks_the_same, changes_of, refuse, study_of
from tuner.cli.longer import lengthened
from tuner.cli.terminal import echo, show_progress
from tuner.errors import (
    EXIT_DONE,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    MachineError,
    StudyFailedError,
    UnknownStudyError,
    UserError,
)
from tuner.fleet import engines
from tuner.fleet.contract import Crew, Engine
from tuner.fleet.devices import AUTO, place_crew
from tuner.home import make_cache, write_private
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.cli.live import Screen
    from tuner.fleet.tending import TendedFleet
    from tuner.notebook import OpenStudy
    from tuner.notify.hooks import Hook
    from tuner.records import Identity, Value
    from tuner.results import Results
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.overview import BudgetLine, Overview
    from tuner.store.studies import Launch, Study
    from tuner.work.stopping import StopRequest

LOOK_SECONDS = 0.5
NOBODY_TELLS = (
    "Note: no process keeps running on this machine, so webhooks and --on-event will not fire. To "
    "get notifications, run a dashboard (`tuner dashboard --webhook-file FILE`) or launch without "
    "--detach."
)
SHORT_LOOK_SECONDS = 0.1
"""The polling interval while waiting only for workers to exit, and of a local fleet's processes."""


@click.command(
    epilog=options.examples(
        "tuner launch lr_sched",
        "tuner launch studies/mine.toml --set epochs=50 --workers 2",
        "tuner launch lr_sched --epochs-to 60",
        "tuner launch lr_search --finish 12 31",
        "tuner launch lr_sched --detach",
    )
)
@click.argument("study")
@options.study_file_options
@options.crew_options
@options.gpu_options
@options.pin_option
@options.engine_options
@click.option(
    "--detach",
    is_flag=True,
    help="Keep running after this terminal is closed; `tuner attach` follows it.",
)
@click.option(
    "--no-probe",
    is_flag=True,
    help="With --on: skip checking that workers can run on the engine.",
)
@options.objectives_option
@options.metrics_option
@options.hook_options
@options.log_format_option
@click.option(
    "--enqueue",
    metavar="'NAME=VALUE …'",
    multiple=True,
    help="Train this setting first, e.g. 'lr=0.001 model=cnn'; see `tuner enqueue`.",
)
@click.option(
    "--new-version",
    is_flag=True,
    help="Launch a changed file as a new version (lr@2), keeping the stored one.",
)
@click.option(
    "--epochs-to",
    type=click.IntRange(1),
    metavar="N",
    help="Train the stored study to N epochs, as a new version that reuses its stored epochs.",
)
@click.option(
    "--finish",
    metavar="TRIALS",
    multiple=True,
    callback=options.trial_numbers,
    help="Train these paused trials to completion first, e.g. 12 31.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Resume the study although its code or data have changed, and record the change.",
)
@click.option(
    "--no-check",
    is_flag=True,
    help="Do not check the data for duplicates, shared patients and distribution shift.",
)
@click.option(
    "--wait",
    default=60.0,
    show_default=True,
    help="Seconds to wait for the database server to respond.",
)
@click.pass_obj
def launch(settings: Settings, /, **given: Any) -> int:
    """Launch or resume a study and train it to completion.

    STUDY is a name, a path to a study file, or a stored version such as lr@2.
    The file is checked and the data are loaded before anything is created;
    all errors are reported at once. Duplicate images, shared patients and
    distribution shift are looked for as training starts. An existing study
    is resumed: finished trials are kept, and more trials or seeds extend it.
    If its code or data have changed, launch refuses to continue.

    Press Ctrl-C once to let every worker finish its epoch and release its
    trial; press it twice to stop immediately. Nothing recorded is lost either
    way.
    """
    return run_launch(settings, Request(**given)).exit_code


@dataclass(frozen=True)
class Request:
    """The options of `tuner launch`, also used by `tuner.launch`."""

    study: StudyRef | Mapping[str, Any]
    """A name, a path, a stored version, or the content of a study file."""
    overrides: tuple[str, ...] = ()
    workers: int | None = None
    device: str = "auto"
    devices: tuple[str, ...] = ()
    """GPUs to use by number or UUID, even if other processes are using them."""
    per_gpu: int | str = 1
    """The number of workers per GPU; "auto" finds out."""
    pin: bool = False
    """Whether each worker is pinned to its own cores."""
    threads: int | None = None
    objective_folders: tuple[Path, ...] = ()
    epochs_to: int | None = None
    finish: tuple[int, ...] = ()
    """Numbers of paused trials to be trained to completion."""
    wait: float = 60.0
    new_version: bool = False
    accept_changes: bool = False
    no_check: bool = False
    enqueue: tuple[str | Mapping[str, Any], ...] = ()
    """Settings to be trained first."""
    engine: str = "local"
    """Where workers run."""
    engine_options: tuple[str, ...] = ()
    """Options of that engine, KEY=VALUE each."""
    detach: bool = False
    """Whether to return once the workers are started."""
    no_probe: bool = False

    @property
    def stored(self) -> StudyRef | None:
        """The stored version to resume without its file, if one is asked for."""
        ref = self.study
        return ref if isinstance(ref, StudyRef) and ref.version is not None else None

    def check(self) -> None:
        """Refuse options that contradict each other."""
        if self.pin and self.engine != "local":
            raise UserError(
                f"--pin divides the cores of this machine. On {self.engine}, its own options say "
                "which cores a worker gets."
            )
        if self.new_version and self.accept_changes:
            raise UserError(
                "Use either --new-version (trains everything again) or --accept-changes "
                "(resumes), not both."
            )
        if self.stored and (self.overrides or self.new_version or self.epochs_to):
            raise UserError(
                f"{self.stored} is a stored version and can only be resumed unchanged. To change "
                "it, edit its study file."
            )
        if self.finish and (self.new_version or self.epochs_to):
            raise UserError(
                "Use either --finish (of the stored study) or --new-version and --epochs-to, not "
                "both: a new version has no paused trials."
            )
        if not isinstance(self.study, StudyRef) and self.epochs_to is not None:
            raise UserError(
                "epochs_to requires a study file; with a dict, set fixed.epochs instead."
            )

    def read(self) -> "tuple[Spec | None, options.StudyFile | None]":
        """Return the checked spec and its file, if any; a stored version has neither."""
        if not isinstance(self.study, StudyRef):
            return options.check_spec(self.study, self.overrides, self.objective_folders), None
        if self.stored:
            return None, None
        file = options.StudyFile.find(self.study, self.objective_folders)
        return file.read(self.overrides), file


@dataclass(frozen=True)
class LaunchEnd:
    """The end of a launch: the study's full name, and the exit code of the command."""

    study: str
    exit_code: int


def run_launch(settings: Settings, request: Request) -> LaunchEnd:  # noqa: C901, PLR0912, PLR0915  # one story
    """Launch a study and train it to its end: read, store, check for changes, train, conclude.

    Raises StudyFailedError if the study cannot continue, or if trials failed permanently.
    """
    request.check()
    engine = engines.load(request.engine)
    engines.refuse_embedded(settings, request.engine)
    stored = request.stored
    hooks = _hooks(settings)
    spec, file = request.read()
    given = file.engine_options(request.engine) if file else {}
    # The command line wins over the file, key by key.
    engine_options = engine.options(
        {**given, **options.read_engine_options(request.engine_options)}
    )
    if spec is not None:
        _settings(spec, request.enqueue)  # errors are raised before anything is created
    folders = file.folders if file else options.objective_folders(None, request.objective_folders)
    # A stored version, --epochs-to and --finish need a database that exists already.
    makes = spec is not None and request.epochs_to is None and not request.finish
    options.tell_home(settings, makes=makes)
    from tuner.questions import Checker

    with (
        # Workers and trainers are forked from it. It loads their packages while this process finds
        # out what there is to train.
        forkserver.started(
            (*forkserver.CHECKS, *forkserver.WORKERS), beside=forkserver.TRAINERS
        ) as forks,
        early_look(
            settings,
            None if request.no_check else spec,
            checker := Checker(settings.home, folders, show_progress, forks),
        ) as question,
        options.open_database(
            settings, wait_seconds=request.wait, create=makes, meanwhile=_load_storing
        ) as database,
        ExitStack() as looking,
    ):
        make_cache(settings.home)
        if request.epochs_to is not None:
            assert file is not None
            assert spec is not None
            spec = lengthened(database, file, spec, request.epochs_to)
        versioned = request.new_version or request.epochs_to is not None
        if stored is not None:
            known = _known(database, stored, finishes=bool(request.finish))
        else:
            assert spec is not None
            known = study_of(database, spec, even_complete=versioned or bool(request.finish))
        changes: Sequence[str] = ()
        now: Sequence[Identity] = ()
        if known is not None:
            # Loading torch to compare code takes seconds, and matters only if nothing but
            # the code asks for a version.
            whole = request.accept_changes or (versioned and asks_the_same(known, spec))
            changes, now = changes_of(database, known, checker, whole=whole)
        if known is not None and changes and not (versioned or request.accept_changes):
            refuse(known, changes)
        if request.finish:
            _check_finish(database, known, request.finish)
        findings: Findings | None = None
        if stored is not None:
            launched = _go_on(database, stored)
        else:
            assert spec is not None
            if question is not None:
                findings = look_at_data(database, spec, begun=question, again=bool(changes))
                if findings is not None:
                    looking.callback(findings.stop)
            launched = _store(database, spec, new_version=versioned, changed=bool(changes))
            if findings is None:
                keep_look(database, launched.study, ())
        if request.accept_changes and not versioned:
            for change in accept(database, launched.study, now):
                echo(f"Accepted and recorded in the study: {change}")
        finishing = _finish(database, launched.study, request.finish)
        if request.finish:
            launched = replace(launched, study=_now(database, launched.study))
        _announce(settings, launched)
        for line in finishing:
            echo(line)
        _enqueue(database, launched.study, request.enqueue)
        study = launched.study
        if study.state != "complete":
            from tuner.fleet import detached
            from tuner.fleet.tending import TendedFleet

            # Without its version, the name would refer to the newest version.
            crew = Crew(
                study.full_name,
                threads=request.threads,
                folders=folders,
                workers=request.workers or 1,
                device=request.device,
                options=engine_options,
            )
            threads = request.threads or study.spec.limits.threads
            if engine.outlives:
                # The engine reserves as many cores for a worker.
                crew = replace(crew, threads=threads)
                if not request.no_probe:
                    _probe(settings, engine, crew)
            else:
                devices = place_crew(
                    request.device,
                    request.workers,
                    threads,
                    devices=request.devices,
                    per_gpu=request.per_gpu,
                    tell=lambda line: echo(line, err=True),
                )
                if request.detach:
                    if findings is not None:
                        findings.tell(database, study, wait=True)
                    detached.start(settings, database, study, _again(request, folders))
                    _tell_detached(study)
                    return LaunchEnd(study.full_name, EXIT_DONE)
                crew = replace(crew, devices=devices, fill=request.per_gpu == AUTO, pin=request.pin)
            fleet = TendedFleet(
                settings, database, study, engine, engine.fleet(settings, crew, forks)
            )
            if request.detach:
                if hooks:
                    echo(NOBODY_TELLS, err=True)
                fleet.start_crew(crew)
                if findings is not None:
                    findings.tell(database, study, wait=True)
                _tell_detached(study)
                return LaunchEnd(study.full_name, EXIT_DONE)
            if hooks:
                from tuner.notify.notifier import Notifier

                link = settings.hooks.dashboard
                looking.enter_context(Notifier(database, hooks, study.ref, link))
            code = _train(database, study, fleet, crew, findings)
            if code is not None:
                return LaunchEnd(study.full_name, code)
        if findings is not None:
            findings.tell(database, study, wait=True)
        _conclude(database, settings, study, told=findings is not None)
        return LaunchEnd(study.full_name, EXIT_DONE)


def _hooks(settings: Settings) -> "Sequence[Hook]":
    if settings.hooks.none:
        return ()
    from tuner.notify.hooks import hooks_of

    return hooks_of(settings.hooks)


def _known(database: "Database", ref: StudyRef, *, finishes: bool) -> "Study | None":
    """Return the stored version if it has something to train."""
    from tuner.store import studies

    with database.transaction() as connection:
        study = studies.find(connection, ref)
    return None if study.state == "complete" and not finishes else study


def _store(database: "Database", spec: "Spec", *, new_version: bool, changed: bool) -> "Launch":
    from tuner.cli.provenance import provenance
    from tuner.store import studies
    from tuner.store.optuna_storage import Binding

    binding = Binding(database)
    return studies.launch(
        database, binding, spec, provenance(), new_version=new_version, changed=changed
    )


def _go_on(database: "Database", ref: StudyRef) -> "Launch":
    from tuner.store import studies

    with database.transaction() as connection:
        return studies.go_on(connection, ref)


def _check_finish(database: "Database", study: "Study | None", numbers: Sequence[int]) -> None:
    """Refuse trials that cannot be finished before the launch stores or opens anything."""
    from tuner.store import control

    if study is None:
        raise UserError(
            "The study has not been launched yet, so it has no paused trials to finish."
        )
    control.check_finish(database, study, numbers)


def _finish(database: "Database", study: "Study", numbers: Sequence[int]) -> list[str]:
    """Mark trials to be trained to completion; return the lines to print."""
    if not numbers:
        return []
    from tuner.settings import person
    from tuner.store import control
    from tuner.store.optuna_storage import Binding

    control.finish(database, Binding(database), study, numbers, person())
    which = ", ".join(map(str, sorted(set(numbers))))
    trials = "Trial" if len(set(numbers)) == 1 else "Trials"
    return [f"  {trials} {which} will be trained to completion first"]


def _now(database: "Database", study: "Study") -> "Study":
    from tuner.store import studies

    with database.transaction() as connection:
        return studies.find(connection, study.ref)


def _settings(spec: "Spec", given: "Sequence[str | Mapping[str, Any]]") -> list[dict[str, "Value"]]:
    from tuner.spec.setting import check_setting, read_setting

    read = (
        read_setting(spec, tuple(one.split())) if isinstance(one, str) else one for one in given
    )
    return [check_setting(spec, one) for one in read]


def _enqueue(
    database: "Database", study: "Study", given: "Sequence[str | Mapping[str, Any]]"
) -> None:
    if not given:
        return
    from tuner.cli.enqueue import place_line
    from tuner.store import queue

    with database.transaction() as connection:
        places = queue.enqueue(connection, study, _settings(study.spec, given))
    for place in places:
        echo(f"  {place_line(place)}")


def _announce(settings: Settings, launched: "Launch") -> None:
    from tuner.store.checkpoints import checkpoint_place

    study = launched.study
    total = f"{study.spec.total_trials} trials"
    raced, promotes = study.spec.replicates.of == "top", study.spec.promotes
    if launched.what == "found" and study.state == "complete":
        # A race may have ended before the budget was used, and paused trials stay paused.
        short = raced or promotes
        told = f"{study.title} is complete" if short else f"{study.title} is complete: {total}"
        echo(f"{told}. Nothing to train.")
        return
    total = f"at most {total}" if raced else total
    if promotes:
        total += f", at least {study.spec.finish} of them trained to completion"
    if study.spec.epoch_limit is not None:
        total += f", {study.spec.epoch_limit:,} epochs"
    verb = {
        "created": "New study",
        "extended": "Extended",
        "found": "Resuming",
        "replaced": "Replaced (nothing had been trained yet):",
    }
    echo(f"{verb[launched.what]} {study.title}: {study.spec.question}  ({total})")
    for change in launched.changes:
        echo(f"  {change}")
    if study.spec.pauses and checkpoint_place(settings, study.spec) is None:
        echo("Checkpoints are off: a paused trial restarts from its first epoch.", err=True)


def _probe(settings: Settings, engine: Engine, crew: Crew) -> None:
    """Check on the engine that workers can train there, before any is placed."""
    from tuner.work.probe import ProbeReport

    echo(f"Checking that workers can train {crew.study} on {engine.name} …", err=True)
    report = ProbeReport.read(engine.probe(settings, crew))
    if not report.ok:
        raise MachineError(
            f"Workers on {engine.name} (host {report.host}) could not train {crew.study}; none was "
            "started:\n"
            + "\n".join(f"  {fault}" for fault in report.faults)
            + "\nFix that, or launch anyway with --no-probe."
        )


def _again(request: Request, folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the arguments of a launch that resumes what this one has stored."""
    words = ["--device", request.device, "--per-gpu", str(request.per_gpu)]
    words += ["--devices", ",".join(request.devices)] if request.devices else []
    for option, number in (("--workers", request.workers), ("--threads", request.threads)):
        words += [] if number is None else [option, str(number)]
    words += ["--pin"] if request.pin else []
    for folder in folders:
        words += ["--objectives", str(folder)]
    return tuple(words)


def _tell_detached(study: "Study") -> None:
    echo(
        f"{study.title} is training in the background. To follow it:  tuner attach {study.title}   "
        f"To see its workers:  tuner fleet status {study.title}"
    )


def _train(
    database: "Database",
    study: "Study",
    fleet: "TendedFleet",
    crew: Crew,
    findings: Findings | None,
) -> int | None:
    """Run the fleet to its end; return an exit code if a person stopped it."""
    from tuner.cli.live import screen_for
    from tuner.work.stopping import StopRequest

    stop = StopRequest()
    with stop.installed():
        try:
            fleet.start_crew(crew)
            _load_tables()
            with screen_for(sys.stdout) as screen:
                _watch(database, study, fleet, stop, screen, findings)
            failures = fleet.failures()
        except BaseException:
            # Whatever happens to this process, workers that do not depend on it continue.
            if not fleet.outlives:
                fleet.close()
            raise
        if fleet.outlives and stop.signal == signal.SIGHUP:
            return 128 + signal.SIGHUP
        fleet.close()
    if stop.asked:
        echo(
            f"Stopped. Running trials were released. To resume:  "
            # The stored study includes changes by --set, which the file alone does not.
            f"tuner launch {study.full_name if study.spec.overrides else study.title}"
        )
        return EXIT_SIGINT if stop.signal == signal.SIGINT else EXIT_SIGTERM
    _check_ended(database, study, failures)
    return None


def _load_storing() -> None:
    """Load what storing a study and starting its workers need, while the database starts."""
    importlib.import_module("tuner.check.quick")
    importlib.import_module("tuner.cli.live")
    importlib.import_module("tuner.cli.provenance")
    importlib.import_module("tuner.fleet.tending")
    importlib.import_module("tuner.store.optuna_storage")


def _load_tables() -> None:
    """Import what the end of a launch needs, while the workers start."""
    importlib.import_module("tuner.answers.sheets.export")
    importlib.import_module("tuner.answers.compare")
    importlib.import_module("tuner.cli.tables")
    importlib.import_module("scipy.special")  # for verdicts; tables do not need it


def _watch(
    database: "Database",
    study: "Study",
    fleet: "TendedFleet",
    stop: "StopRequest",
    screen: "Screen",
    findings: Findings | None,
) -> None:
    from sqlalchemy.exc import DBAPIError

    asked = 0
    ended = False
    while True:
        if stop.signal == signal.SIGHUP and fleet.outlives:
            return  # the terminal is gone; the workers do not need it
        if findings is not None and not stop.asked:
            with suppress(DBAPIError):  # tried again; workers wait for the database on their own
                findings.tell(database, study)
        running = fleet.running()
        for remark in fleet.remarks():
            screen.say(remark)
        overview = _look(database, study)
        if overview is not None:
            screen.show(overview)
        if not running:
            return
        if stop.count > asked:
            (fleet.ask_to_stop if asked == 0 else fleet.stop_now)()
            asked += 1
            screen.say(
                "Stopping: workers are finishing their current epoch and releasing their trials. "
                "Press Ctrl-C again to stop immediately."
                if asked == 1
                else "Stopping now."
            )
        over = overview is not None and overview.over
        if fleet.outlives and not ended and over:
            # Workers still queued on the cluster would start only to exit at once.
            ended = True
            fleet.ask_to_stop()
        _rest(fleet, running, SHORT_LOOK_SECONDS if stop.asked or over else LOOK_SECONDS)


def _rest(fleet: "TendedFleet", running: int, seconds: float) -> None:
    """Wait for the next look, or until a local worker exits, which often is the study's end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SHORT_LOOK_SECONDS))
        if not fleet.outlives and fleet.running() != running:
            return


def _look(database: "Database", study: "Study") -> "Overview | None":
    from sqlalchemy.exc import DBAPIError

    from tuner.store.overview import overview

    try:
        with database.transaction() as connection:
            return overview(connection, study)
    except DBAPIError:
        return None  # the workers wait for the database on their own; so does the screen
    except UnknownStudyError:
        return None  # deleted meanwhile: the workers exit, and then the end is reported


def _check_ended(database: "Database", study: "Study", failures: list[str]) -> None:
    """Raise an error that says why a study has not ended although no worker is left here."""
    from tuner.store import studies

    try:
        with database.transaction() as connection:
            now = studies.find(connection, study.ref)
    except UnknownStudyError:
        now = None
    if now is None or now.study_id != study.study_id:
        raise StudyFailedError(f"{study.title} was deleted during training; its results are gone.")
    if now.state in ("complete", "spent"):
        return
    if now.state == "open":
        what = (
            f"{study.title} is not finished, but all workers on this machine have exited. "
            f"`tuner logs {study.title}` shows what they printed."
        )
    elif now.state == "stopped":
        what = f"{study.title} is stopped: {now.reason}\nTo resume:  tuner launch {study.title}"
    else:
        what = (
            f"{study.title} is {now.state}: {now.reason}\n"
            f"`tuner events {study.title}` and `tuner logs {study.title}` show details. "
            f"Once that is fixed:  tuner launch {study.title}"
        )
    raise StudyFailedError("\n".join([what, *failures]))


def _conclude(database: "Database", settings: Settings, launched: "Study", *, told: bool) -> None:
    from tuner.answers.sheets.export import as_csv
    from tuner.cli.tables import show_tables
    from tuner.results import Results, trial_columns
    from tuner.store import identities

    with database.snapshot() as connection:
        results = Results.of(connection, launched.ref)
        study, rows = results.study, results.rows
        show_tables(results, best=10, told=told)
        _tell_verdicts(results)
    _tell_race(database, study)
    _tell_spent(database, study)
    with database.transaction() as connection:
        for mark in identities.marks(connection, study.study_id):
            echo(f"{mark.sentence}\n")
    columns = trial_columns(study.spec)
    path = settings.home / "results" / f"{study.title}.csv"
    write_private(path, as_csv(columns, ([row[c] for c in columns] for row in rows)))
    echo(f"All {len(rows)} trials: {_short(path)}")
    failed = sum(row["state"] == "FAILED" for row in rows)
    if failed:
        trials = "1 trial" if failed == 1 else f"{failed} trials"
        them = "it" if failed == 1 else "them"
        raise StudyFailedError(
            f"{trials} failed permanently; `tuner logs {study.title}` shows why, "
            f"`tuner retry {study.title}` retries {them}."
        )


def _tell_verdicts(results: "Results") -> None:
    """Say which setting is best, and for each factor whether levels differ significantly."""
    from tuner.answers.compare import compare
    from tuner.answers.setting_comparison import with_check
    from tuner.answers.settings import best_sentence, has_replicates

    if has_replicates(results.spec) and results.ranked:
        echo(best_sentence(results))

    try:
        found = [
            with_check(results, comparison, comparison.summary)
            for comparison in compare(results)
            if comparison.summary
        ]
    except UserError:
        return  # nothing can be compared, as the tables show
    for one in found:
        echo(one)
    if found:
        more = f"`tuner compare {results.title}` shows how certain this is"
        gap = f"; `tuner gap {results.title}` compares validation with test"
        echo(f"{more}{gap if results.tested else ''}.\n")


def _tell_race(database: "Database", study: "Study") -> None:
    from tuner.cli.race import race_lines

    lines = race_lines(database, study)
    for line in lines:
        echo(line)
    if lines:
        echo(f"`tuner compare {study.title} --contenders` compares them.\n")


def _tell_spent(database: "Database", study: "Study") -> None:
    """Say that the study ended with its budget, what is left, and how to resume."""
    if study.state != "spent" or (seen := _look(database, study)) is None:
        return
    counts = seen.counts
    waiting = counts.total - counts.ended
    paused = f" ({counts.paused} of them paused)" if counts.paused else ""
    echo(
        f"{study.reason} {counts.ended} of {counts.total} trials have ended; {waiting} are left"
        f"{paused}. "
        f"To continue with a larger budget:  tuner launch {study.name} "
        f"{' '.join(_larger(seen.budget, study.spec))}\n"
    )


def _larger(budget: "BudgetLine | None", spec: "Spec") -> Iterator[str]:
    """Yield example options for a larger budget: twice each limit that is reached."""
    if budget is None:
        return
    if budget.hours is not None and budget.hours_spent >= budget.hours:
        yield f"--set budget.hours={2 * budget.hours:g}"
    if budget.money is not None and (budget.money_spent or 0.0) >= budget.money:
        yield f"--set budget.money={2 * budget.money:g}"
    if budget.epochs is not None and budget.epochs_spent >= budget.epochs:
        if spec.budget.epochs == budget.epochs:
            yield f"--set budget.epochs={2 * budget.epochs}"
        if spec.budget.full is not None and spec.full_epochs == budget.epochs:
            yield f"--set budget.full={2 * spec.budget.full:g}"


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def launch_here(
    settings: Settings,
    study: "str | PathLike[str] | Mapping[str, Any] | OpenStudy",
    *,
    changes: Mapping[str, Any] | Sequence[str],
    objectives: "Sequence[str | PathLike[str]]",
    enqueue: "Sequence[Mapping[str, Any]]",
    **options: Any,
) -> "OpenStudy":
    """Launch a study from Python (`tuner.launch`) and return it opened."""
    from tuner.notebook import OpenStudy, clear_errors
    from tuner.spec.setting import plain

    if isinstance(study, OpenStudy):
        study = study.full_name
    request = Request(
        plain(study) if isinstance(study, Mapping) else StudyRef.parse(fspath(study)),
        overrides=tuple(changes) if not isinstance(changes, Mapping) else assignments(changes),
        objective_folders=tuple(Path(folder) for folder in objectives),
        enqueue=tuple(plain(setting) for setting in enqueue),
        **options,
    )
    with clear_errors():
        ended = run_launch(settings, request)
    if ended.exit_code == EXIT_SIGINT:
        raise KeyboardInterrupt
    if ended.exit_code == EXIT_SIGTERM:
        # The signal came during training and was held back until the trials were released.
        signal.raise_signal(signal.SIGTERM)
    return OpenStudy(settings, ended.study)


def assignments(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return changes of a study file in the form of --set, with values as TOML."""
    from tuner.spec.setting import plain
    from tuner.spec.writing import inline

    return tuple(f"{key}={inline(plain(value))}" for key, value in changes.items())
