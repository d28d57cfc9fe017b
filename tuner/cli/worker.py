"""`tuner worker`: joins a study from any shell or machine."""

import logging
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner import forkserver
from tuner.cli import options
from tuner.cli.options import objective_folders as folders_for
from tuner.cli.options import objectives_option
from tuner.cli.terminal import echo, echo_json, report
from tuner.errors import (
    EXIT_DONE,
    EXIT_FAILURES,
    EXIT_MACHINE,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    UserError,
)
from tuner.fleet.contract import Crew
from tuner.forkserver import ForkServer
from tuner.processes import pin as stay_on
from tuner.settings import Settings
from tuner.spec.quantities import write_seconds
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.fleet.local import LocalFleet
    from tuner.store.fruitless import Fruitless
    from tuner.work.place import EnginePlace
    from tuner.work.stopping import StopRequest
    from tuner.work.worker import Telling


@click.command(
    epilog=options.examples(
        "tuner worker lr_sched --device cuda:1",
        "tuner worker lr_sched --lifetime 55m",
        "tuner worker --any --idle 10m",
    )
)
@click.argument("study", required=False)
@click.option(
    "--any",
    "any_study",
    is_flag=True,
    help="Train whichever study is next in the queue (`tuner queue`), until none is open.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N",
    help="Device to train on; auto uses the first GPU, or the CPU if there is none.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads for the trainer, overriding the study file; affects results.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Start this many workers on the available devices, and wait for them.",
)
@options.gpu_options
@options.pin_option
@click.option(
    "--wait",
    default=60.0,
    show_default=True,
    help="How many seconds to wait for the database and the study to appear.",
)
@click.option(
    "--lifetime",
    type=options.DURATION,
    help="Exit after this time: finish the epoch, release the trial, exit with 0.",
)
@click.option(
    "--idle",
    type=options.DURATION,
    help="Exit after this long without a trial; also wait this long for the study to be launched.",
)
@objectives_option
@options.metrics_option
@options.hook_options
@options.log_format_option
@click.option(
    "--probe",
    is_flag=True,
    help="Train nothing: check whether a worker could train this study here, and list every "
    "problem.",
)
@options.json_option
@click.option(
    "--share",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=1.0,
    hidden=True,
    help="The part of its device that the worker has, for budgets of hours.",
)
@click.option(
    "--follow-stdin",
    is_flag=True,
    hidden=True,
    help="Stop when stdin is closed; a byte there says how many workers the device has.",
)
@click.option("--forks", type=int, hidden=True, help="Descriptor of a fork server's channel.")
@click.option(
    "--cores",
    default="",
    hidden=True,
    callback=lambda _ctx, _option, text: tuple(map(int, text.split(","))) if text else (),
    help="Pin the worker and its trainer to these cores.",
)
@click.option("--place", hidden=True, help="The engine's name of this worker's place.")
@click.option("--place-workers", type=int, hidden=True, help="How many workers share that place.")
@click.pass_obj
def worker(
    settings: Settings,
    study: StudyRef | None,
    device: str,
    threads: int | None,
    workers: int | None,
    devices: tuple[str, ...],
    per_gpu: int | str,
    wait: float,
    objective_folders: tuple[Path, ...],
    lifetime: float | None,
    idle: float | None,
    share: float,
    *,
    any_study: bool,
    pin: bool,
    cores: tuple[int, ...],
    probe: bool,
    as_json: bool,
    follow_stdin: bool,
    forks: int | None,
    place: str | None,
    place_workers: int | None,
) -> int:
    """Train trials of a study until it ends.

    STUDY is a stored study, e.g. lr_sched or lr@2. A worker needs only the
    database and the objective, not the study file. Any number of workers
    share a study; if one dies, another resumes its trial. Press Ctrl-C once
    to finish the epoch and release the trial, twice to exit immediately. The
    worker exits with 0 when nothing is left to train, or when its lifetime is
    over.
    """
    # Before this process starts a fork server or any thread.
    stay_on(cores)
    crew_is_wanted = workers is not None or bool(devices) or per_gpu != 1
    if any_study == (study is not None):
        raise UserError("Specify the study to train, or --any to train whichever is next.")
    _refuse_one_pinned(pin and not crew_is_wanted)
    folders = folders_for(None, objective_folders)
    from tuner.fleet.devices import AUTO, crew_devices, place_crew

    if as_json and not probe:
        raise UserError("--json is for --probe: a worker that trains prints no JSON.")
    if probe:
        if study is None:
            raise UserError("Name the study to probe for.")
        return _probe(settings, study, folders, device, as_json=as_json)
    if crew_is_wanted:
        placed = place_crew(
            device,
            workers,
            threads or 1,
            devices=devices,
            per_gpu=per_gpu,
            tell=lambda line: echo(line, err=True),
        )
        further = (*_times("--lifetime", lifetime), *_times("--idle", idle))
        name = str(study or "")
        crew = Crew(name, placed, threads, folders, further=further, fill=per_gpu == AUTO, pin=pin)
        return _crew(settings, crew)
    telling = _telling(settings, study)
    with _fork_server(forks) as server:
        from tuner.work.stopping import StopRequest
        from tuner.work.worker import DeviceShare, Orders, work

        logging.getLogger("tuner").setLevel(logging.INFO)
        stop = StopRequest()
        stop.install()
        if lifetime is not None:
            stop.after(lifetime)
        device_share = DeviceShare(share)
        if follow_stdin:
            stop.follow(sys.stdin.fileno(), device_share.divide)
        orders = Orders(
            study=study,
            device=crew_devices(device, 1, 1)[0],
            threads=threads,
            cores=cores,
            folders=folders,
            patience_seconds=wait,
            idle_seconds=idle,
            share=device_share,
            forks=server,
            telling=telling,
            place=None if place is None else _place(place, place_workers),
        )
        ended = work(settings, orders, stop)
    if stop.lifetime_over:
        report(f"{study or 'Any study'}: the worker's lifetime is over; its trial was released.")
        # A later signal changes nothing: the worker was exiting already.
        return EXIT_DONE
    report(f"{study or 'Any study'}: {ended.state}. {ended.reason}".strip())
    if stop.asked:
        return EXIT_SIGINT if stop.signal == signal.SIGINT else EXIT_SIGTERM
    return EXIT_FAILURES if ended.state == "paused" else EXIT_DONE


def _refuse_one_pinned(is_one: bool) -> None:
    if is_one:
        raise UserError("--pin divides the cores between workers: say how many with --workers.")


def _telling(settings: Settings, study: StudyRef | None) -> "Telling":
    """Return the context that notifies hooks while a worker runs; hooks are checked at once."""
    if settings.hooks.none:
        return lambda _database: nullcontext()
    from tuner.notify.hooks import hooks_of
    from tuner.notify.notifier import Notifier

    hooks = hooks_of(settings.hooks)
    return lambda database: Notifier(database, hooks, study, settings.hooks.dashboard)


def _times(option: str, seconds: float | None) -> tuple[str, ...]:
    return () if seconds is None else (option, write_seconds(seconds))


def _place(name: str, workers: int | None) -> "EnginePlace":
    from tuner.fleet.replacements import why_hopeless
    from tuner.work.place import EnginePlace

    def hopeless(earlier: "Fruitless") -> str:
        return why_hopeless(earlier.workers, earlier.lives, workers or 1)

    return EnginePlace(name, hopeless, shared=workers is not None)


def _probe(
    settings: Settings,
    study: StudyRef,
    folders: Sequence[Path],
    device: str,
    *,
    as_json: bool,
) -> int:
    from tuner.cli.fleet import show_report
    from tuner.fleet.devices import crew_devices
    from tuner.work.probe import probe

    report = probe(settings, study, folders, lambda: crew_devices(device, 1, 1)[0])
    if as_json:
        # One line, because an engine may print other output before it.
        echo_json(report.to_json(), indent=None)
    else:
        show_report(report)
    return EXIT_DONE if report.ok else EXIT_MACHINE


def main(arguments: Sequence[str]) -> int:
    """Run `tuner worker` in a forked process."""
    from tuner.cli.main import run

    return run(["worker", *arguments])


def _fork_server(inherited: int | None) -> AbstractContextManager[ForkServer | None]:
    """Return the fork server for trainers: the launcher's, or a new one."""
    if inherited is not None:
        return ForkServer.inherited(inherited)
    # Started at once: it loads torch while this process finds the database and the study.
    return forkserver.started(forkserver.TRAINERS)


def _crew(settings: Settings, crew: Crew) -> int:
    from tuner.fleet.local import LocalFleet
    from tuner.store.database import require
    from tuner.work.stopping import StopRequest

    require(settings)
    options.tell_home(settings)
    telling = _telling(settings, StudyRef.stored(crew.study) if crew.study else None)
    stop = StopRequest()
    stop.install()
    with (
        forkserver.started((*forkserver.WORKERS, *forkserver.TRAINERS)) as forks,
        ExitStack() as told,
    ):
        if not settings.hooks.none:
            database = told.enter_context(options.open_database(settings))
            told.enter_context(telling(database))
        return _followed(settings, crew, LocalFleet(settings, crew, forks), stop)


def _followed(settings: Settings, crew: Crew, fleet: "LocalFleet", stop: "StopRequest") -> int:
    """Start several workers and wait for their end."""
    fleet.start()
    report(
        f"{len(crew.devices)} workers on {crew.study or 'any study'} "
        f"({', '.join(crew.devices)}); logs are in {settings.home / 'logs'}; monitor with:  "
        + (f"tuner status {crew.study} --watch" if crew.study else "tuner queue")
    )
    asked = 0
    while fleet.running():
        for remark in fleet.remarks():
            report(remark)
        if stop.count > asked:
            (fleet.ask_to_stop if asked == 0 else fleet.stop_now)()
            asked += 1
        time.sleep(0.2)
    failures = fleet.failures()
    fleet.close()
    for failure in failures:
        report(failure, logging.ERROR)
    if stop.asked:
        report("Stopped; running trials were released.")
        return EXIT_SIGINT if stop.signal == signal.SIGINT else EXIT_SIGTERM
    report("All workers have ended.")
    return EXIT_FAILURES if failures else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
