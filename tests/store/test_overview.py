"""The overview of a study: counts, workers, the best so far, and the remaining time."""

import math
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    limited,
    make_curve,
    make_epoch,
    make_result,
    make_spec,
)
from tuner.results.rows import trial_rows
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.overview import BudgetLine, Counts, Overview, overview
from tuner.store.spending import Used


def look(bench: Bench) -> Overview:
    """Read the overview."""
    with bench.database.transaction() as connection:
        return overview(connection, bench.study)


def test_a_new_study_has_nothing_yet(bench: Bench) -> None:
    """Before any worker there are a total, a question, and no estimate."""
    seen = look(bench)
    assert (seen.title, seen.question, seen.state) == ("small", "Which?", "open")
    assert seen.counts == Counts(total=3)
    assert (seen.workers, seen.best, seen.eta_seconds) == ((), None, None)


def test_trials_are_counted_by_what_became_of_them(database: Database) -> None:
    """Complete, pruned, failed, running and waiting trials are distinguished."""
    bench = Bench.launch(database, limited(make_spec(seeds=2), attempts=1))
    done, pruned, failed, running, waiting = (bench.worker() for _ in range(5))
    finish(done, claim_trial(done))
    held = claim_trial(pruned)
    pruned.record(held, make_curve(0.9))
    pruned.prune(held, SETUP, "median at epoch 1")
    failed.fail(claim_trial(failed), "broken")
    claim_trial(running)
    waiting.give_back(claim_trial(waiting), "a test")
    seen = look(bench)
    assert seen.counts == Counts(6, complete=1, pruned=1, failed=1, running=1, waiting=1)
    assert seen.counts.ended == 3


def test_each_worker_shows_its_trial(bench: Bench) -> None:
    """A line has the trial, its parameters, epoch, newest validation loss and speed."""
    busy, idle = bench.worker(), bench.worker()
    held = claim_trial(busy)
    busy.record(held, make_curve(0.6, 0.5))
    first, second = look(bench).workers
    assert (first.worker_id, first.number, first.seed, first.attempts) == (busy.worker_id, 0, 0, 1)
    assert first.chosen == {"lr": 1e-4}
    assert (first.epoch, first.epochs, first.val_loss) == (2, 3, 0.5)
    assert first.epochs_per_second == pytest.approx(100.0)
    assert first.lease_seconds is not None
    assert 0 < first.lease_seconds <= 3.0
    assert (second.worker_id, second.number, second.epoch) == (idle.worker_id, None, 0)


def test_workers_that_left_or_fell_silent_are_not_shown(bench: Bench) -> None:
    """Only workers seen within a minute, and not ended, are shown."""
    left, silent, here = (bench.worker() for _ in range(3))
    ago = sa.func.clock_timestamp() - sa.text("interval '2 minutes'")
    with bench.database.transaction() as connection:
        for who, values in ((left, {"ended": ago}), (silent, {"seen": ago})):
            connection.execute(
                sa.update(t.worker).where(t.worker.c.worker_id == who.worker_id).values(**values)
            )
    assert [line.worker_id for line in look(bench).workers] == [here.worker_id]


@pytest.mark.parametrize(
    ("metric", "at", "number", "value"),
    [("val_loss", "best", 0, 0.1), ("val_loss", "last", 1, 0.3), ("val_acc", "best", 1, 0.9)],
)
def test_the_best_is_by_the_metric_of_the_study(
    database: Database, metric: str, at: str, number: int, value: float
) -> None:
    """The best complete trial: smallest loss or largest accuracy, at its best epoch or its last."""
    bench = Bench.launch(database, make_spec(metric=metric, at=at))
    curves = [
        [make_epoch(1, 0.1, val_acc=0.6), make_epoch(2, 0.5, val_acc=0.5)],
        [make_epoch(1, 0.2, val_acc=0.9), make_epoch(2, 0.3, val_acc=0.4)],
    ]
    worker = bench.worker()
    for curve in curves:
        held = claim_trial(worker)
        worker.record(held, curve)
        worker.complete(held, SETUP, DATASET, make_result(curve))
    best = look(bench).best
    assert best is not None
    assert (best.number, best.value) == (number, value)
    assert best.test_acc == 0.75


def test_reused_epochs_cost_no_time(bench: Bench) -> None:
    """Reused epochs are not counted as trained."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [replace(make_epoch(1), reused=True), make_epoch(2, seconds=2.0)])
    seen = look(bench)
    assert (seen.epochs_recorded, seen.seconds_trained) == (1, 2.0)


def test_epochs_are_counted_once_whatever_became_of_their_trial(database: Database) -> None:
    """Each epoch is counted once, whatever happened to its trial, retries included."""
    bench = Bench.launch(database, limited(make_spec(seeds=2), attempts=1))
    workers = [bench.worker() for _ in range(4)]
    finish(workers[0], claim_trial(workers[0]))
    failed = claim_trial(workers[1])
    workers[1].record(failed, make_curve(0.6))
    workers[1].fail(failed, "broken")
    for worker in workers[2:]:
        held = claim_trial(worker)
        worker.record(held, [replace(one, reused=one.epoch == 1) for one in make_curve(0.6, 0.5)])
    workers[3].give_back(held, "a test")

    def sums() -> tuple[int, int, float]:
        seen = look(bench)
        return seen.epochs_recorded, seen.epochs_reused, round(seen.seconds_trained, 6)

    with database.transaction() as connection:
        reused = t.epoch.c.reused
        plain = connection.execute(
            sa.select(
                sa.func.count().filter(~reused),
                sa.func.count().filter(reused),
                sa.func.sum(t.epoch.c.seconds).filter(~reused),
            )
        ).one()
    assert plain[1] == 2
    expected = (plain[0], plain[1], round(plain[2], 6))
    assert sums() == expected
    assert control.retry(database, bench.binding, bench.study, [failed.number]) == [failed.number]
    assert sums() == expected, "the epochs of a reopened trial are those of a running one"
    with database.transaction() as connection:
        before = [
            (row["epochs_run"], row["seconds"]) for row in trial_rows(connection, bench.study)
        ]
        assert sum(epochs for epochs, _ in before) == plain[0] + plain[1]
        connection.execute(
            sa.update(t.outcome).values(
                epochs_run=None, epochs_reused=None, seconds=None, seconds_alone=None
            )
        )
        after = [(row["epochs_run"], row["seconds"]) for row in trial_rows(connection, bench.study)]
    assert after == before, "an older program's outcomes have no sums"
    assert sums() == expected


def test_the_rest_is_estimated_from_what_was_done(bench: Bench) -> None:
    """With one of three trials done in 3 s by one worker, two more take 6 s."""
    worker = bench.worker()
    assert look(bench).eta_seconds is None
    held = claim_trial(worker)
    curve = [make_epoch(number, seconds=1.0) for number in (1, 2, 3)]
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))
    assert look(bench).eta_seconds == pytest.approx(6.0), "also while it is between two trials"
    claim_trial(worker)
    assert look(bench).eta_seconds == pytest.approx(6.0)


def test_divergence_is_no_decision_of_a_pruner(bench: Bench) -> None:
    """A diverged trial is counted as diverged, also without a pruner."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1, math.nan)])
    worker.prune(held, SETUP, "diverged at epoch 1")
    seen = look(bench).counts
    assert (seen.pruned, seen.diverged, seen.ended) == (0, 1, 1)


def test_interrupted_trials_are_told_from_failed_attempts(bench: Bench) -> None:
    """Of the trials started more than once, only one had a failed attempt."""
    first = bench.worker()
    interrupted = claim_trial(first)
    first.give_back(interrupted, "the worker was asked to stop")
    claim_trial(bench.worker())
    broken = claim_trial(first)
    first.fail(broken, "a bad day")
    claim_trial(bench.worker())
    seen = look(bench)
    assert (seen.adopted, seen.retried) == ((0, 1), (1,))


def test_hours_and_money_are_told_with_how_trials_vary(database: Database) -> None:
    """Spent hours and money have their limits, and from the third trial on their variation."""
    bench = Bench.launch(database, make_spec(hours=2.0, money=10.0, price=2.5))
    worker = bench.worker()
    for trial, seconds in enumerate((1.0, 2.0, 3.0)):
        held = claim_trial(worker)
        worker.used = lambda hours=(trial + 1) / 4: Used(hours * 3600, hours * 3600)  # type: ignore[misc]
        curve = [make_epoch(number, seconds=seconds) for number in (1, 2, 3)]
        worker.record(held, curve)
        seen = look(bench)
        assert seen.done == pytest.approx(trial + 1), "whole epochs, if not yet ended"
        assert seen.variation is None
        worker.complete(held, SETUP, DATASET, make_result(curve))
    seen = look(bench)
    assert seen.budget == BudgetLine(0.75, 2.0, 1.875, 10.0, epochs_spent=9)
    assert seen.done == 3.0
    assert seen.variation == pytest.approx(0.5)


def test_without_limits_and_prices_nothing_is_told_of_a_budget(bench: Bench) -> None:
    """If a machine has a price, the spent money is shown even without limits."""
    assert look(bench).budget is None
    with bench.database.transaction() as connection:
        workers.join(connection, bench.study.study_id, workers.Worker("here", 1, "cpu", 4.0))
    assert look(bench).budget == BudgetLine(0.0, None, 0.0, None)
