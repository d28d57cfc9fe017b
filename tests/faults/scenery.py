"""The scene of injected faults: a study on the blobs objective, and real worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from tests.faults import sabotage
from tests.faults.sabotage import Fault
from tests.harness import warm
from tests.harness.processes import Workers, until
from tests.harness.warm import Started
from tests.store.specs import Bench
from tests.train.blobs import PAUSE, Blobs, write_blobs
from tests.work.conftest import double
from tuner.cli.options import StudyFile
from tuner.forkserver import Program
from tuner.settings import Settings
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Ended
from tuner.work.stopping import StopRequest
from tuner.work.worker import Orders, work

UNHARMED = Fault()
STEP_SECONDS = "0.004"
"""How long each step of a real training waits."""

STUDY = """
[study]
name = "small"
question = "Which rate?"
objective = "blobs"

[budget]
trials = "grid"

[limits]
attempts = {attempts}

[checkpoints]
every = {every}

[replicates]
seeds = {seeds}

[space]
lr = {rates}

[fixed]
epochs = {epochs}
hidden = 4
batch_size = {batch_size}

[data]
train_images = {images}
"""


@dataclass(frozen=True)
class Sizes:
    """The study's size; by default an epoch takes about 20 ms, with little CPU."""

    rates: Sequence[float] = (1e-3, 1e-2)
    seeds: int = 1
    epochs: int = 40
    images: int = 100
    batch_size: int = 25
    every: int | str = 5
    attempts: int = 3

    def text(self) -> str:
        """Return the study file."""
        every = f'"{self.every}"' if isinstance(self.every, str) else self.every
        named = {**vars(self), "rates": list(self.rates), "every": every}
        return STUDY.format(**named)


@dataclass
class Scene:
    """Settings, a folder with the objective, and the workers that were started."""

    settings: Settings
    database: Database
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.blobs: Blobs = write_blobs(self.folder)
        self.workers = Workers(self.folder, self.blobs.folder)

    def spec(self, sizes: Sizes) -> Spec:
        """Read the study file of these sizes."""
        path = self.folder / "studies" / "small.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(sizes.text())
        return self.read(path)

    def read(self, path: Path) -> Spec:
        """Read any study file on the blobs."""
        return StudyFile.find(StudyRef.parse(str(path)), (self.blobs.folder,)).read()

    def launch(self, sizes: Sizes) -> Bench:
        """Store a study of these sizes without training it."""
        return Bench.launch(self.database, self.spec(sizes))

    def start(
        self,
        fault: Fault = UNHARMED,
        *more: str,
        url: str | None = None,
        pause: str = STEP_SECONDS,
    ) -> Started:
        """Start a worker process with a fault in it, in its own session."""
        settings = self.settings if url is None else replace(self.settings, database_url=url)
        called = f"{sabotage.__name__}:main"
        return self.workers.start(
            settings,
            "small",
            *more,
            called=called,
            before=[fault.text()],
            **{PAUSE: pause},
        )

    def double(self, behaviour: str) -> Program:
        """Return a trainer double."""
        return double(behaviour, self.folder / "doubles")

    def work(self, behaviour: str) -> Ended:
        """Work in this process, with a trainer double, until the study ends."""
        return work(self.settings, self.orders(behaviour), StopRequest())

    def orders(self, behaviour: str) -> Orders:
        """Return the orders of a worker in this process, with a trainer double."""
        trainer, forks = self.double(behaviour), warm.fork_server()
        return Orders(StudyRef("small"), trainer=trainer, forks=forks, patience_seconds=20)

    def said(self) -> str:
        """Return what the workers printed."""
        return self.workers.said()

    def close(self) -> None:
        """End every worker that was started."""
        self.workers.close()


def worker_of(bench: Bench, process: Started) -> int:
    """Return a process's worker id, once it has joined the study."""
    found: list[int] = []

    def joined() -> bool:
        found[:] = [row.worker_id for row in bench.rows(t.worker) if row.pid == process.pid]
        return bool(found)

    until(joined, "the worker has joined")
    return found[0]


def held_by(bench: Bench, worker_id: int) -> list[int]:
    """Return the trials that a worker holds."""
    rows = bench.rows(t.lease)
    return [row.trial_id for row in rows if row.state == "held" and row.worker_id == worker_id]


def epochs_of(bench: Bench, trial_id: int, token: int | None = None) -> list[int]:
    """Return a trial's stored epochs in order; with a token, those of one attempt."""
    rows = [row for row in bench.rows(t.epoch) if row.trial_id == trial_id]
    return sorted(row.epoch for row in rows if token in (None, row.token))


def expired(bench: Bench) -> bool:
    """Return whether a held lease has expired by the server's clock, so that a peer can take it.

    A worker that was frozen while it recorded an epoch keeps its lease's row locked until the
    server ends its transaction, perhaps long after the lease expired; until then claims skip it.
    """
    late = (t.lease.c.state == "held") & (t.lease.c.expires < sa.func.clock_timestamp())
    free = sa.select(t.lease).where(late).with_for_update(skip_locked=True)
    with bench.database.transaction() as connection:
        return bool(connection.execute(free).all())
