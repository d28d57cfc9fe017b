"""Claims of large grids: what is computed for them, and that no peer waits for it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.records import Job
from tuner.spec.space import Choice
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.locks import STUDY_LOCKS
from tuner.store.ledger.reuse import Sharing
from tuner.store.optuna_storage import TRIALS
from tuner.train.checkpoints.keys import marks, shared_epochs_of_jobs

EPOCHS = 8


def launch(database: Database, rates: int) -> Bench:
    """Store a grid of learning rates, schedules and lengths."""
    space = (
        Choice("lr", tuple((place + 1) / 1e4 for place in range(rates))),
        Choice("scheduler", ("constant", "step", "cosine", "onecycle")),
        Choice("epochs", (EPOCHS, 2 * EPOCHS)),
    )
    return Bench.launch(database, make_spec(dimensions=space))


def end(bench: Bench, count: int) -> None:
    """Store the first trials of a grid as complete, as many claims would have."""
    spec, study_id = bench.study.spec, bench.study.study_id
    with bench.database.transaction() as connection:
        ids = connection.execute(
            sa.insert(TRIALS).returning(TRIALS.c.trial_id, sort_by_parameter_order=True),
            [
                {"number": n, "study_id": study_id, "state": TrialState.COMPLETE}
                for n in range(count)
            ],
        ).scalars()
        places = [(n, trial_id) for n, trial_id in enumerate(ids)]
        same = {"study_id": study_id, "token": 1}
        trials = [
            {"trial_id": at, "number": n, "configuration": n, "seed": 0, "chosen": spec.grid[n]}
            for n, at in places
        ]
        connection.execute(sa.insert(t.trial), [{**one, "study_id": study_id} for one in trials])
        now = sa.func.clock_timestamp()
        connection.execute(
            sa.insert(t.lease).values(expires=now, state="ended", worker_id=0),
            [{**same, "trial_id": at} for _, at in places],
        )
        connection.execute(
            sa.insert(t.outcome),
            [{"trial_id": at, "state": "COMPLETE", "token": 1} for _, at in places],
        )


@dataclass
class Watched:
    """A stand-in for marks of jobs: records which were requested, and whether the lock was held."""

    bench: Bench
    asked: Counter[str] = field(default_factory=Counter)
    under_lock: int = 0

    def __call__(self, job: Job) -> Sequence[str]:
        """Return the marks of a job."""
        self.asked[repr(sorted(job.parameters.items()))] += 1
        query = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
            "AND classid = :first AND objid = :study AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        names = {"first": STUDY_LOCKS, "study": self.bench.study.study_id}
        with self.bench.database.transaction() as connection:
            self.under_lock += connection.execute(sa.text(query), names).scalar_one()
        return marks(job)


def sharing_worker(bench: Bench, watched: Watched) -> Ledger:
    """Join a worker that shares checkpoints."""
    return replace(bench.worker(), marks=watched)


def test_no_claim_computes_while_peers_wait(database: Database) -> None:
    """Shared epochs are computed before the study's lock is taken, and once each."""
    bench = launch(database, rates=20)
    end(bench, 100)
    watched = Watched(bench)
    # The second must consider a running peer and all ended trials: the costly case.
    claims = [claim_trial(sharing_worker(bench, watched)) for _ in range(2)]
    assert [one.number for one in claims] == [100, 101]
    assert watched.under_lock == 0
    assert len(watched.asked) == bench.study.spec.configurations
    worker = sharing_worker(bench, again := Watched(bench))
    for _ in range(3):
        claim_trial(worker)
        with database.transaction() as connection:
            connection.execute(sa.update(t.lease).values(state="ended"))
            open_trials = sa.select(t.trial.c.trial_id).where(
                t.trial.c.trial_id.not_in(sa.select(t.outcome.c.trial_id))
            )
            connection.execute(
                sa.insert(t.outcome).from_select(
                    ["trial_id", "state", "token"],
                    open_trials.add_columns(sa.literal("PRUNED"), sa.literal(1)),
                )
            )
    assert again.under_lock == 0
    assert set(again.asked.values()) == {1}


@pytest.mark.parametrize("configuration", [0, 3, 17, 39])
def test_marks_say_what_pairs_say(database: Database, configuration: int) -> None:
    """Shared epochs, branches and stored prefixes equal those of comparing all pairs of jobs."""
    spec = launch(database, rates=5).study.spec
    sharing = Sharing(spec, marks)
    jobs = [spec.job(chosen, 0) for chosen in spec.grid]
    shared = [shared_epochs_of_jobs(jobs[configuration], job) for job in jobs]
    assert [sharing.epochs(configuration, other) for other in range(len(jobs))] == shared
    others = {count for other, count in enumerate(shared) if other != configuration}
    assert sharing.branches(configuration) == sorted(others - {0})
    for ended in ([], [1], [2, 5, 16], [38]):
        wanted = max((shared[other] for other in ended), default=0)
        assert sharing.stored(configuration, sharing.reached(ended)) == wanted


def test_a_trial_waits_for_epochs_that_a_peer_trains(database: Database) -> None:
    """With many ended trials the right peer is still found: the same rate, twice as long."""
    bench = launch(database, rates=5)
    end(bench, 16)
    first, second = (sharing_worker(bench, Watched(bench)) for _ in range(2))
    running = claim_trial(first)
    assert (running.number, running.chosen["epochs"]) == (16, EPOCHS)
    # Configuration 17 is 16 with more epochs; 18 has another schedule, and shares 16's first
    # epochs.
    taken = claim_trial(second)
    shared = [
        shared_epochs_of_jobs(
            *(bench.study.spec.job(bench.study.spec.grid[n], 0) for n in (16, other))
        )
        for other in range(17, taken.configuration + 1)
    ]
    assert all(shared[:-1]), "those passed over share epochs with the peer"
    assert shared[-1] == 0
    assert bench.rows(t.epoch) == []


def test_a_setting_may_begin_under_a_later_seed(database: Database) -> None:
    """If its first seed waits for a slow peer's epochs, its second may begin with stored ones."""
    space = (Choice("scheduler", ("constant", "step", "cosine")),)
    bench = Bench.launch(database, make_spec(dimensions=space, seeds=2, epochs=EPOCHS))
    slow, quick = (sharing_worker(bench, Watched(bench)) for _ in range(2))
    held = claim_trial(slow)
    assert (held.configuration, held.seed) == (0, 0)
    second = claim_trial(quick)
    assert (second.configuration, second.seed) == (0, 1)
    finish(quick, second)
    third = claim_trial(quick)
    assert (third.configuration, third.seed) == (1, 1)
    assert third.chosen["scheduler"] == "step"
    finish(quick, third)
    fourth = claim_trial(quick)
    assert (fourth.configuration, fourth.seed, fourth.chosen["scheduler"]) == (2, 1, "cosine")
    finish(quick, fourth)
    finish(slow, held)
    assert claim_trial(quick).chosen == third.chosen
