"""A worker's life from start to end: database, study, trainer, supervisor."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from tuner import home as home_folder
from tuner import logs
from tuner.errors import (
    DatabaseError,
    DatabaseUnreachableError,
    TunerError,
    UnknownStudyError,
)
from tuner.forkserver import TRAINERS, ForkServer, Program, starter
from tuner.settings import Settings, child_environment
from tuner.spec.study_ref import StudyRef
from tuner.store import schema, studies, turns
from tuner.store.checkpoints import checkpoint_place
from tuner.store.database import Database, is_outage, is_servers_trouble
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Ended
from tuner.store.ledger.ledger import Ledger
from tuner.store.optuna_storage import Binding
from tuner.store.studies import Study
from tuner.store.turns import QueuedStudy
from tuner.train.checkpoints.keys import marks
from tuner.train.objective import is_present
from tuner.work.child import Child
from tuner.work.load import LoadMeter
from tuner.work.monitor import Monitor, served
from tuner.work.place import EnginePlace, Tenancy
from tuner.work.renewal import Renewal
from tuner.work.stopping import StopRequest
from tuner.work.supervisor import Leaving, Supervisor, Workshop

logger = logging.getLogger(__name__)

T = TypeVar("T")

Telling = Callable[[Database], AbstractContextManager[object]]

AWAITED = (DatabaseUnreachableError, UnknownStudyError)
"""Errors that may pass, so that a starting worker waits."""
JOIN_SECONDS = 60.0
QUEUE_SECONDS = 5.0
"""How often a worker on any study checks, between two trials, whether another study is due."""
VISIT_SECONDS = 3.0
"""How long it waits for a trial of a study whose trials all have workers, counted from when it may
adopt trials: before that it cannot tell a dead worker from a slow one (`Renewal.settled`)."""
REST_SECONDS = 15.0
"""How long it then skips that study; doubled after each further visit without a trial."""
LONGEST_REST_SECONDS = 300.0
FAILED_REST_SECONDS = 600.0
TRAINER = Program("tuner.work.trainer", "tuner trainer", needs=TRAINERS)


@dataclass
class DeviceShare:
    """A worker's share of its device."""

    part: float = 1.0

    def divide(self, workers: int) -> None:
        """Set an equal share, as one of this many workers on the device."""
        self.part = 1.0 / max(1, workers)


@dataclass(frozen=True)
class Orders:
    """A worker's orders: which study, on which device, and how long to wait for it."""

    study: StudyRef | None
    """None for any study that has trials to train, in the order of the queue."""
    device: str = "cpu"
    threads: int | None = None
    """Overrides the study's number; results depend on it."""
    cores: tuple[int, ...] = ()
    """The cores to which its trainer is pinned, as the worker is already; empty for any."""
    folders: tuple[Path, ...] = ()
    """Folders searched for objectives before the shipped ones."""
    patience_seconds: float = 60.0
    forks: ForkServer | None = None
    """The server that trainers are forked from, if there is one."""
    idle_seconds: float | None = None
    """The worker leaves after this long without a trial; None: it waits for its study's end."""
    share: DeviceShare = field(default_factory=DeviceShare)
    """The share of the device's time that counts as this worker's; its launcher may change it."""
    telling: Telling = lambda _database: nullcontext()
    """A context that is active while the worker works, such as the notifier of hooks."""
    trainer: Program = TRAINER
    """What trains; tests and benchmarks of workers have doubles of it."""
    place: EnginePlace | None = None
    """The place where an engine runs this worker, and its successors."""


def work(settings: Settings, orders: Orders, stop: StopRequest) -> Ended:
    """Train trials of a study until it ends or the worker is asked to stop."""
    try:
        monitor = Monitor()
        with (
            served(monitor, settings.metrics),
            _opened(settings, orders, stop) as database,
            orders.telling(database),
        ):
            home_folder.make_cache(settings.home)
            home_folder.make_folder(settings.home / "logs")
            context = Context(settings, orders, stop, database, monitor)
            if orders.study is None:
                return Errands(context).run()
            study = _await_study(database, orders.study, orders, stop)
            idle = math.inf if orders.idle_seconds is None else orders.idle_seconds
            return _work_on(context, study, Leaving(idle)).ended
    # Optuna's and the driver's errors have no common type; all but outages are re-raised.
    except Exception as error:
        if not stop.asked or not (isinstance(error, AWAITED) or is_outage(error)):
            raise
        return Ended("stopped", "The worker was asked to stop, and the database is away.")


@dataclass(frozen=True)
class Context:
    """A worker's settings, orders, database and requests to stop."""

    settings: Settings
    orders: Orders
    stop: StopRequest
    database: Database
    monitor: Monitor = field(default_factory=Monitor)


@dataclass(frozen=True)
class Visit:
    """A worker's time on one study: how it ended, and how long it held a trial."""

    ended: Ended
    active_seconds: float = 0.0


def rest_after(visit: Visit, last_seconds: float) -> float:
    """Return for how many seconds to skip a study: longer after each visit without a trial.

    A study may seem to have work although no other worker can get a trial: a race between two
    looks, or a grid whose settings wait for a peer's epochs. Every visit starts a trainer and adds
    a row to the table of workers.
    """
    if visit.active_seconds or not last_seconds:
        return REST_SECONDS
    return min(2 * last_seconds, LONGEST_REST_SECONDS)


class Errands:
    """A worker that works on any study: it takes the next one in the queue, then another."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rests: dict[int, float] = {}
        """When a study may be visited again that had no trial for this worker, or failed here."""
        self._rest_seconds: dict[int, float] = {}
        """For how long each study was skipped after its last visit."""
        self._asked = -math.inf
        self._relieved = False

    def run(self) -> Ended:
        """Work until no open study is left, or none has had a trial for long enough."""
        stop, patience = self._context.stop, self._context.orders.idle_seconds
        outage = self._context.orders.patience_seconds
        busy = time.monotonic()
        while not stop.asked:
            # Wait out an outage between two studies, as a supervisor does within one.
            queue = _wait_for(self._queue, max(JOIN_SECONDS, outage), stop)
            turn = next((turn for turn in queue if self._suits(turn)), None)
            if turn is not None:
                if self._visit(turn).active_seconds:
                    busy = time.monotonic()
                continue
            idle = time.monotonic() - busy
            if patience is None and not queue:
                return Ended("complete", "No open study is left.")
            if patience is not None and idle >= patience:
                return Ended("complete", f"Nothing to train for {idle:.0f} s.")
            stop.pause(self._context.settings.timing.poll)
        return Ended("stopped", "The worker was asked to stop.")

    def _suits(self, turn: QueuedStudy) -> bool:
        rested = self._rests.get(turn.study.study_id, 0.0) <= time.monotonic()
        # Only checks that the objective is here, without running it, because this process can open
        # the database. Without the objective every trial would fail here and pause the study for
        # all workers.
        folders = self._context.orders.folders
        return turn.has_work and rested and is_present(turn.study.spec.objective, folders)

    def _visit(self, turn: QueuedStudy) -> Visit:
        self._relieved = False
        study = turn.study
        logger.info("working on %s (priority %d)", study.title, turn.priority)
        seconds = self._context.settings.timing.grace + VISIT_SECONDS
        leaving = Leaving(seconds, lambda: self._is_relieved(study))
        try:
            visit = _work_on(self._context, study, leaving)
            rest = rest_after(visit, self._rest_seconds.get(study.study_id, 0.0))
            self._rest_seconds[study.study_id] = rest
        except DatabaseError:
            raise
        # Its code or data differ here, say: this worker can still train other studies.
        except TunerError as error:
            logger.warning("%s cannot be trained by this worker: %s", study.title, error)
            visit, rest = Visit(Ended("open", str(error))), FAILED_REST_SECONDS
        if not self._relieved:
            self._rests[study.study_id] = time.monotonic() + rest
        return visit

    def _is_relieved(self, study: Study) -> bool:
        """Check now and then, between two trials, whether another study is due."""
        if self._relieved or time.monotonic() - self._asked < QUEUE_SECONDS:
            return self._relieved
        self._asked = time.monotonic()
        try:
            queue = self._queue()
        # The supervisor retries the database anyway; this question can wait.
        except DatabaseError:
            return False
        mine = next((turn for turn in queue if turn.study.study_id == study.study_id), None)
        others = [turn for turn in queue if turn is not mine and self._suits(turn)]
        self._relieved = mine is not None and turns.is_relieved(mine, others)
        return self._relieved

    def _queue(self) -> list[QueuedStudy]:
        def read() -> list[QueuedStudy]:
            with self._context.database.transaction() as connection:
                return turns.read(connection)

        return _explained(self._context.database, read)()


def _work_on(context: Context, study: Study, leaving: Leaving) -> Visit:
    settings, stop, database = context.settings, context.stop, context.database
    log = settings.home / "logs" / f"trainer-{os.getpid()}.log"
    workshop = _workshop(settings, context.orders, study, log)
    child: Child = workshop.open()
    who = workers.Worker(
        socket.gethostname(), os.getpid(), workshop.device, settings.price_per_hour
    )
    post = _joined(database, study, who, stop)
    binding = Binding(database)
    renewal = Renewal(database, post, settings.timing, lambda: context.orders.share.part)
    ledger = Ledger(
        database,
        binding,
        study,
        post.worker_id,
        settings.timing,
        marks if workshop.checkpoints else None,
        lambda: renewal.used,
    )
    supervisor = Supervisor(ledger, renewal, stop, workshop, child, leaving=leaving)
    renewal.measure = LoadMeter(workshop.device, lambda: (supervisor.trainer,)).measure
    place = context.orders.place
    tenancy = None if place is None else Tenancy(database, post, place)
    renewal.start()
    try:
        if tenancy is not None:
            ledger.progressed = tenancy.progressed
            _wait_for(_explained(database, tenancy.begin), JOIN_SECONDS, stop)
        with (
            logs.about(study.full_name, post.worker_id),
            context.monitor.on(study.full_name, workshop.device, renewal),
        ):
            ended = supervisor.run()
        return Visit(ended, renewal.used.active_seconds)
    finally:
        supervisor.close()
        renewal.end()
        if tenancy is not None:
            tenancy.end(stop, renewal.used.active_seconds)
        _leave(database, post, renewal)


def _joined(
    database: Database, study: Study, who: workers.Worker, stop: StopRequest
) -> workers.Post:
    def join() -> workers.Post:
        with database.transaction() as connection:
            return workers.join(connection, study.study_id, who)

    return _wait_for(_explained(database, join), JOIN_SECONDS, stop)


def _leave(database: Database, post: workers.Post, renewal: Renewal) -> None:
    try:
        with database.transaction() as connection:
            workers.leave(connection, post, renewal.used, renewal.tally.to_json())
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


def _await_study(database: Database, ref: StudyRef, orders: Orders, stop: StopRequest) -> Study:
    def attempt() -> Study:
        with database.transaction() as connection:
            return studies.find(connection, ref)

    # A worker that may be idle for a while waits that long for a study to be launched.
    seconds = max(orders.patience_seconds, orders.idle_seconds or 0.0)
    return _wait_for(_explained(database, attempt), seconds, stop)


def _explained(database: Database, work: Callable[[], T]) -> Callable[[], T]:
    """Turn a lost connection into the error of a server that has not started yet."""

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
    return Workshop(
        start=starter(orders.forks, orders.trainer, environment),
        log=log,
        device=orders.device,
        threads=threads,
        cores=orders.cores,
        cache=settings.home / "cache",
        folders=orders.folders,
        checkpoints=checkpoint_place(settings, study.spec),
        lookup_seconds=settings.timing.lookup,
        memory=study.spec.limits.memory_bytes,
    )
