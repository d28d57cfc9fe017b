"""Workers that train nothing, many in one process, with the real protocol.

    python -m benchmarks.simulated ORDERS     (a JSON file; started by benchmarks.fleet)

A real worker is two processes and spends its time training. Here a *simulated worker* is a separate
`Ledger`, with its own memory of the study, and a list of moments at which it acts: join, claim,
identify, record an epoch with its checkpoint, complete, renew. Each action runs the code of real
workers, one transaction each, on a real server. A few threads take the moments in order, each with
its own connection, so that 1,000 workers fit two cores: between two moments a simulated worker
costs nothing.

The process waits for a line on its standard input before its workers begin, and prints one line of
JSON when the measured window is over.
"""

import heapq
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import psycopg2
import sqlalchemy as sa

from benchmarks.stored import make_dataset, make_training
from tests.store.specs import SETUP
from tuner.records import DataIdentity, Epoch, Identity
from tuner.settings import Timing
from tuner.spec.study_ref import StudyRef
from tuner.store import address, studies
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Answer, Claimed, Ended, Lease, NeedsProposal, Proposal, Wait
from tuner.store.ledger.ledger import Ledger
from tuner.store.optuna_storage import Binding
from tuner.store.spending import Used
from tuner.store.studies import Study
from tuner.train.checkpoints.keys import marks
from tuner.work.proposer import Proposer
from tuner.work.supervisor import FIRST_WAIT_SECONDS, longest_wait

IDENTITY = Identity(
    files={f"objective/part_{n}.py": "c" * 64 for n in range(10)},
    packages={"torch": "2", "numpy": "2"},
    data=DataIdentity("{}", "data-1", {"train": {"healthy": 400, "ill": 400}}),
    tuner="0",
    trainer="t" * 64,
)
LOCK = "pg_advisory_xact_lock"
NOW = threading.local()
"""The current action of this thread: its messages, and when it got the study's lock."""
BEHIND = 8
"""The niceness of simulated workers above that of the server and of the claiming worker."""
CHECKPOINT_SECONDS = 2.0
"""A trainer saves about this often, and its worker records each save in the history."""


@dataclass(frozen=True)
class Orders:
    """The orders of one process of simulated workers."""

    url: str
    study: str
    workers: int
    first: int
    """Number of the first of them in the whole fleet."""
    of: int
    """Workers of the whole fleet."""
    threads: int
    trial_seconds: float
    epochs: int
    join_seconds: float
    """All workers start within this time, one after the other."""
    settle_seconds: float
    """From the start to the measured window."""
    window_seconds: float
    whole: bool = False
    """Whether to continue until the study has ended, with whole trials from the start."""
    reuse: bool = True
    """Whether settings of a grid may share their first epochs."""


@dataclass
class Meter:
    """The measurements, by action."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    trips: Counter[str] = field(default_factory=Counter)
    """Round trips to the server: statements, and the beginnings and ends of transactions."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of the statements."""
    failures: Counter[str] = field(default_factory=Counter)
    on: bool = False

    def watch(self, database: Database) -> None:
        """Count the round trips of a database's connections and time the study's lock."""
        engine = database.engine

        def connected(connection: Any, _record: Any) -> None:
            connection.cursor_factory = CountingCursor

        def before(*given: Any) -> None:
            if LOCK in given[2]:
                NOW.asked = time.perf_counter()

        def after(*given: Any) -> None:
            if LOCK in given[2]:
                NOW.locked = time.perf_counter()
                if self.on:
                    self.seconds["lock waited"].append(NOW.locked - NOW.asked)

        def returned(*_: Any) -> None:
            # The transaction has just ended, which released the lock.
            locked, NOW.locked = getattr(NOW, "locked", None), None
            if locked is not None and self.on:
                self.seconds["lock held"].append(time.perf_counter() - locked)

        sa.event.listen(engine, "connect", connected)
        sa.event.listen(engine, "before_cursor_execute", before)
        sa.event.listen(engine, "after_cursor_execute", after)
        sa.event.listen(engine, "checkin", returned)


class CountingCursor(psycopg2.extensions.cursor):
    """Counts the messages that this thread sends to the server, and their bytes."""

    def execute(self, query: Any, given: Any = None) -> None:
        """Send a statement, after BEGIN if it is the transaction's first."""
        idle = psycopg2.extensions.TRANSACTION_STATUS_IDLE
        begins = not self.connection.autocommit and self.connection.info.transaction_status == idle
        super().execute(query, given)
        # A COMMIT for each BEGIN.
        NOW.trips = getattr(NOW, "trips", 0) + 1 + 2 * begins
        NOW.sent = getattr(NOW, "sent", 0) + len(self.query or b"")

    def executemany(self, query: Any, rows: Any) -> None:
        """Send one statement per row, as the driver does."""
        NOW.trips = getattr(NOW, "trips", 0) + len(rows)
        super().executemany(query, rows)


@contextmanager
def hurried() -> Iterator[None]:
    """Give this thread priority over the other simulated workers, where permitted.

    Otherwise the holder of the study's lock would wait for a core until the others had theirs. A
    real worker has a core, since its trainer has one.
    """
    thread, usual = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, thread, max(usual - BEHIND, -20))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, usual)


class SimulatedWorker:
    """One worker: its trial and its progress."""

    def __init__(self, crew: "Crew", number: int, ledger: Ledger) -> None:
        self.ledger = ledger
        self.number = number
        self._crew = crew
        self._post = workers.Post(ledger.study.study_id, ledger.worker_id)
        self._chance = random.Random(number)
        self._lease: Lease | None = None
        self._stored = 0
        self._skipped = 0
        self._begun = 0.0
        self._proposer = Proposer(ledger.study, ledger.worker_id, Path(os.devnull))
        self._idle = FIRST_WAIT_SECONDS
        self._first = not crew.orders.whole
        self._active = 0.0

    def claim(self, database: Database, _due: float) -> None:
        """Ask for the first trial."""
        self._claim(database, None)

    def _claim(self, database: Database, began: float | None) -> None:
        """Ask for a trial; `began` is when the worker's last training ended."""
        crew = self._crew
        proposal: Proposal | None = None
        while isinstance(answer := self._ask(database, proposal), NeedsProposal):
            if proposal is not None:
                self._proposer.overtaken()
            proposal = crew.timed("proposal", partial(self._propose, answer.configuration))
        if isinstance(answer, Wait):
            pause = min(self._idle, longest_wait(answer.workers, crew.timing))
            crew.at(time.perf_counter() + pause, lambda d, _: self._claim(d, began))
            self._idle *= 2
            return
        if isinstance(answer, Ended):
            crew.ended()
            return
        assert isinstance(answer, Claimed), answer
        self._idle = FIRST_WAIT_SECONDS
        self._lease, self._stored, self._skipped = answer.lease, answer.lease.stored_epochs, 0
        now = time.perf_counter()
        self._begun = now
        crew.began(now, None if began is None else now - began)
        crew.timed("identify", lambda: self._with(database).identify(self.lease, IDENTITY))
        orders = crew.orders
        if self._first:
            # Workers do not train in step: each starts somewhere in the middle of its first trial.
            self._first = False
            past = self._chance.random()
            self._skipped = int(past * orders.epochs)
            self._begun -= past * orders.trial_seconds
        crew.at(self._next_epoch(), self.record)

    def _ask(self, database: Database, proposal: Proposal | None) -> Answer:
        with hurried():
            answer: Answer = self._crew.timed(
                "claim", lambda: self._with(database).claim(proposal, adopt=True)
            )
        return answer

    def _propose(self, configuration: int) -> Proposal:
        return self._proposer.propose(self.ledger.observations(), configuration, lambda: None)

    @property
    def lease(self) -> Lease:
        """The lease of its trial."""
        assert self._lease is not None
        return self._lease

    def _next_epoch(self) -> float:
        next_one = max(self._stored, self._skipped) + 1
        return self._begun + next_one * self._crew.epoch_seconds

    def record(self, database: Database, due: float) -> None:
        """Store an epoch, and after the last one end the trial and claim the next."""
        crew, ledger, lease = self._crew, self._with(database), self.lease
        began = time.perf_counter()
        curve, result = crew.trainings[lease.trial_id % len(crew.trainings)]
        # The first record of a trial that began in its middle stores all its epochs so far. A
        # failed record is repeated by the caller.
        done = max(self._stored, self._skipped) + 1
        if self._stored < crew.orders.epochs:
            crew.store(ledger, lease, curve[self._stored : done])
            self._stored = done
        if self._stored < crew.orders.epochs:
            crew.at(self._next_epoch(), self.record)
            return
        crew.timed("complete", lambda: ledger.complete(lease, SETUP, crew.dataset, result))
        self._lease = None
        crew.completed()
        crew.at(due, lambda d, _: self._claim(d, began))

    def renew(self, database: Database, due: float) -> None:
        """Renew the lease, as a worker's second thread does."""
        crew = self._crew
        lease = self._lease
        self._active += crew.timing.renew
        load = {"memory": 10**9, "cores": 1.0, "gpu": 0.5, "gpu_memory": 10**9, "gpu_total": 10**10}

        def renew() -> None:
            with database.transaction() as connection:
                workers.renew(
                    connection,
                    self._post,
                    () if lease is None else (lease,),
                    crew.timing,
                    Used(self._active),
                    load=load,
                )

        crew.timed("renew", renew)
        crew.at(due + crew.timing.renew, self.renew)

    def _with(self, database: Database) -> Ledger:
        self.ledger.database = database
        return self.ledger


class Crew:
    """The simulated workers of this process, and the threads that act for them."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.timing = Timing()
        self.epoch_seconds = orders.trial_seconds / orders.epochs
        self.dataset = make_dataset(200)
        rng = np.random.default_rng(orders.first)
        self.trainings = [make_training(self.dataset, orders.epochs, rng) for _ in range(16)]
        self.meter = Meter()
        self._heap: list[tuple[float, int, Callable[[Database, float], None]]] = []
        self._numbers = itertools.count()
        self._due: SimpleQueue[tuple[float, Callable[[Database, float], None]]] = SimpleQueue()
        self._wake = threading.Condition()
        self._done = threading.Event()
        self._counts: Counter[str] = Counter()
        self._training = 0
        self._all_train: float | None = None
        self._left = orders.workers
        self._databases: list[Database] = []
        self._late: list[float] = []

    def prepare(self) -> list[SimulatedWorker]:
        """Join as workers do, before the measurement."""
        place = address.parse(self.orders.url)
        self._databases = [Database(place) for _ in range(self.orders.threads)]
        for database in self._databases:
            self.meter.watch(database)
        first = self._databases[0]
        with first.transaction() as connection:
            study = studies.find(connection, StudyRef(self.orders.study))
        crew = []
        shared = None
        for number in range(self.orders.first, self.orders.first + self.orders.workers):
            with first.transaction() as connection:
                who = workers.Worker(socket.gethostname(), number, "cpu")
                post = workers.join(connection, study.study_id, who)
            ledger = self._ledger(first, study, post.worker_id)
            # The shared epochs of settings depend on the study alone: a process of simulated
            # workers computes them once, where each real worker would do so on its own core.
            shared = shared or ledger.sharing
            ledger.sharing = shared
            crew.append(SimulatedWorker(self, number, ledger))
        return crew

    def _ledger(self, database: Database, study: Study, worker_id: int) -> Ledger:
        known = marks if self.orders.reuse else None
        return Ledger(database, Binding(database), study, worker_id, self.timing, known)

    def run(self, crew: list[SimulatedWorker]) -> dict[str, Any]:
        """Let the workers begin together, and measure once all of them train."""
        start = time.perf_counter()
        for worker in crew:
            # A whole study begins with all workers at once; a fleet is measured in steady state.
            place = worker.number / self.orders.of
            after = 0.0 if self.orders.whole else place * self.orders.join_seconds
            self.at(start + after, worker.claim)
            # A fleet's renewals are evenly spread: workers did not start in the same second.
            beat = self.timing.renew * (worker.number % 997) / 997
            self.at(start + beat, worker.renew)
        threads = [
            threading.Thread(target=self._speak, args=(database,), daemon=True)
            for database in self._databases
        ]
        threads.append(threading.Thread(target=self._dispatch, daemon=True))
        for thread in threads:
            thread.start()
        if not self.orders.whole:
            time.sleep(self.orders.settle_seconds)
        begun, spent = time.perf_counter(), os.times()
        self.meter.on = True
        self._counts.clear()
        if self.orders.whole:
            self._done.wait()
        else:
            time.sleep(self.orders.window_seconds)
        self.meter.on = False
        now, used = time.perf_counter(), os.times()
        seconds = {name: list(values) for name, values in self.meter.seconds.items()}
        return {
            "seconds": now - begun,
            "cpu": used.user + used.system - spent.user - spent.system,
            "joined": None if self._all_train is None else self._all_train - start,
            "durations": seconds,
            "late": list(self._late),
            "trips": dict(self.meter.trips),
            "sent": dict(self.meter.sent),
            "counts": dict(self._counts),
            "failures": dict(self.meter.failures),
        }

    def at(self, moment: float, action: Callable[[Database, float], None]) -> None:
        """Schedule an action for a moment."""
        with self._wake:
            entry = (moment, next(self._numbers), action)
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._wake.notify()

    def _dispatch(self) -> None:
        """Hand out what is due; if the threads waited themselves, each moment would wake all."""
        while not self._done.is_set():
            with self._wake:
                while not self._heap or self._heap[0][0] > time.perf_counter():
                    wait = self._heap[0][0] - time.perf_counter() if self._heap else 1.0
                    self._wake.wait(max(wait, 0.0))
                due, _, action = heapq.heappop(self._heap)
            self._due.put((due, action))

    def _speak(self, database: Database) -> None:
        while not self._done.is_set():
            due, action = self._due.get()
            if self.meter.on:
                self._late.append(time.perf_counter() - due)
            try:
                action(database, due)
            except Exception as error:  # noqa: BLE001  # a worker tries again; so does this
                words = database.words(error)[:200]
                self.meter.failures[words] += 1
                self.at(time.perf_counter() + 0.5, action)

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Run an action; record its duration and its round trips to the server."""
        NOW.trips = NOW.sent = 0
        begun = time.perf_counter()
        try:
            return work()
        finally:
            if self.meter.on:
                self.meter.seconds[name].append(time.perf_counter() - begun)
                self.meter.trips[name] += NOW.trips
                self.meter.sent[name] += NOW.sent

    def store(self, ledger: Ledger, lease: Lease, epochs: list[Epoch]) -> None:
        """Store epochs as a supervisor does, with a checkpoint's note."""
        last = epochs[-1].epoch
        before, after = (
            self.epoch_seconds * number // CHECKPOINT_SECONDS for number in (last - 1, last)
        )
        saved = last if after > before else 0
        self.timed("record", lambda: ledger.record(lease, epochs, saved))
        if self.meter.on:
            self._counts["epochs"] += len(epochs)

    def began(self, now: float, gap: float | None) -> None:
        """Record that a worker has a trial, and how long it had none."""
        if self.meter.on and gap is not None:
            self.meter.seconds["gap"].append(gap)
        self._training += 1
        if self._training == self.orders.workers:
            self._all_train = now

    def completed(self) -> None:
        """Record the end of a trial."""
        self._counts["trials"] += 1

    def ended(self) -> None:
        """Record that a worker has left because nothing is left to train."""
        self._left -= 1
        if self._left == 0:
            self._done.set()


def main(path: str) -> None:
    """Run a process of simulated workers."""
    # A thread with an answer should not wait for the others' turns, since no real worker does.
    sys.setswitchinterval(0.0005)
    os.nice(BEHIND)
    orders = Orders(**json.loads(Path(path).read_text()))
    crew = Crew(orders)
    members = crew.prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(crew.run(members)), flush=True)
    os._exit(0)  # its threads are still busy, and nothing waits for them


if __name__ == "__main__":
    main(sys.argv[1])
