"""A worker's life from start to end: database, study, trainer, supervisor."""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from tuner import home as home_folder
from tuner.errors import DatabaseUnreachableError, UnknownStudyError
from tuner.forkserver import TRAINERS, ForkServer, Program, starter
from tuner.processes import Executed, Process, Streams
from tuner.settings import Settings, child_environment
from tuner.spec.study_ref import StudyRef
from tuner.store import schema, studies
from tuner.store.checkpoints import checkpoint_place
from tuner.store.database import Database, is_outage, is_servers_trouble
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Ended
from tuner.store.ledger.ledger import Ledger
from tuner.store.optuna_storage import Binding
from tuner.store.studies import Study
from tuner.train.checkpoints.keys import marks
from tuner.work.child import Child
from tuner.work.load import LoadMeter
from tuner.work.renewal import Renewal
from tuner.work.stopping import StopRequest
from tuner.work.supervisor import Supervisor, Workshop

logger = logging.getLogger(__name__)

T = TypeVar("T")

AWAITED = (DatabaseUnreachableError, UnknownStudyError)
"""Errors that a worker waits out when it starts."""
JOIN_SECONDS = 60.0
TRAINER = Program("tuner.work.trainer", "tuner trainer", needs=TRAINERS)


@dataclass(frozen=True)
class Orders:
    """A worker's orders: which study, on which device, and how long to wait for it."""

    study: StudyRef
    device: str = "cpu"
    threads: int | None = None
    """Overrides the study's number; results depend on it."""
    folders: tuple[Path, ...] = ()
    """Folders searched for objectives before the shipped ones."""
    patience_seconds: float = 60.0
    forks: ForkServer | None = None
    """The server that trainers are forked from, if there is one."""
    trainer: tuple[str, ...] | None = None
    """A command to run in place of the trainer."""


def work(settings: Settings, orders: Orders, stop: StopRequest) -> Ended:
    """Train trials of a study until it ends or the worker is asked to stop."""
    try:
        with _opened(settings, orders, stop) as database:
            study = _await_study(database, orders, stop)
            log = settings.home / "logs"
            home_folder.make_cache(settings.home)
            home_folder.make_folder(log)
            workshop = _workshop(settings, orders, study, log / f"trainer-{os.getpid()}.log")
            return _supervise(settings, database, study, workshop, stop)
    # Optuna's and the driver's errors have no common type; all but outages are re-raised.
    except Exception as error:
        if not stop.asked or not (isinstance(error, AWAITED) or is_outage(error)):
            raise
        return Ended("stopped", "The worker was asked to stop, and the database is away.")


def _supervise(
    settings: Settings,
    database: Database,
    study: Study,
    workshop: Workshop,
    stop: StopRequest,
) -> Ended:
    child: Child = workshop.open()
    who = workers.Worker(socket.gethostname(), os.getpid(), workshop.device)
    post = _joined(database, study, who, stop)
    binding = Binding(database)
    ledger = Ledger(
        database,
        binding,
        study,
        post.worker_id,
        settings.timing,
        marks if workshop.checkpoints else None,
    )
    renewal = Renewal(database, post, settings.timing)
    supervisor = Supervisor(ledger, renewal, stop, workshop, child)
    renewal.measure = LoadMeter(workshop.device, lambda: (supervisor.trainer,)).measure
    renewal.start()
    try:
        return supervisor.run()
    finally:
        supervisor.close()
        renewal.end()
        _leave(database, post, renewal.active_seconds)


def _joined(
    database: Database, study: Study, who: workers.Worker, stop: StopRequest
) -> workers.Post:
    def join() -> workers.Post:
        with database.transaction() as connection:
            return workers.join(connection, study.study_id, who)

    return _wait_for(_explained(database, join), JOIN_SECONDS, stop)


def _leave(database: Database, post: workers.Post, active_seconds: float) -> None:
    try:
        with database.transaction() as connection:
            workers.leave(connection, post, active_seconds)
    except DBAPIError:
        logger.warning("the database is away; this worker leaves without signing off")


def _opened(settings: Settings, orders: Orders, stop: StopRequest) -> Database:
    """Open the database, waiting for a server that does not answer yet."""

    def attempt() -> Database:
        database = Database.open(settings)
        try:
            database.check()
            schema.ensure(database)
        except BaseException:
            database.close()
            raise
        return database

    return _wait_for(attempt, orders.patience_seconds, stop)


def _await_study(database: Database, orders: Orders, stop: StopRequest) -> Study:
    def attempt() -> Study:
        with database.transaction() as connection:
            return studies.find(connection, orders.study)

    return _wait_for(_explained(database, attempt), orders.patience_seconds, stop)


def _explained(database: Database, work: Callable[[], T]) -> Callable[[], T]:
    """Turn a lost connection into an error that is waited out like a server not yet started."""

    def attempt() -> T:
        try:
            return work()
        # Optuna wraps the driver's error in its own.
        except Exception as error:
            if is_servers_trouble(error):
                raise database.explain(error) from None
            raise

    return attempt


def _wait_for(attempt: Callable[[], T], seconds: float, stop: StopRequest) -> T:
    """Retry until it works, the time is up, or the worker is asked to stop."""
    deadline = time.monotonic() + seconds
    logged = False
    while True:
        try:
            return attempt()
        except AWAITED as error:
            if stop.asked or time.monotonic() >= deadline:
                raise
            if not logged:
                logger.warning("%s\nWaiting up to %g s for it.", error, seconds)
                logged = True
            stop.pause(0.5)


def _workshop(settings: Settings, orders: Orders, study: Study, log: Path) -> Workshop:
    threads = orders.threads or study.spec.limits.threads
    environment = child_environment()
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    start: Callable[[Streams], Process]
    if orders.trainer is None:
        start = starter(orders.forks, TRAINER, environment)
    else:
        start = partial(Executed, orders.trainer, environment)
    return Workshop(
        start=start,
        log=log,
        device=orders.device,
        threads=threads,
        cache=settings.home / "cache",
        folders=orders.folders,
        checkpoints=checkpoint_place(settings, study.spec),
        lookup_seconds=settings.timing.lookup,
        memory=study.spec.limits.memory_bytes,
    )
