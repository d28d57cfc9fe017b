"""Each pruner in a scripted situation, through the ledger, as a worker uses it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.store.specs import (
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_curve,
    make_epoch,
    make_spec,
)
from tuner.spec.study import Replicates
from tuner.store.database import Database
from tuner.store.ledger.ledger import Ledger


def launch(database: Database, pruner: str, **options: Any) -> tuple[Bench, Ledger]:
    """Store a study with a pruner, with more trials than a test needs."""
    metric = options.pop("metric", "val_loss")
    spec = make_spec(seeds=5, epochs=9, pruner=pruner, pruner_options=options, metric=metric)
    bench = Bench.launch(database, spec)
    return bench, bench.worker()


def stops_at(worker: Ledger, *losses: float) -> int | None:
    """Train the next trial, one record per epoch as a worker does; return where it is stopped."""
    held = claim_trial(worker)
    for one in make_curve(*losses):
        answer = worker.record(held, [one])
        if answer.stop_epoch is not None:
            assert answer.stop_epoch == one.epoch
            worker.prune(held, SETUP, f"pruned at epoch {one.epoch}")
            return one.epoch
    finish(worker, held, *losses)
    return None


def test_none_never_stops_a_trial(database: Database) -> None:
    """Without a pruner the worst trial runs to its end."""
    _, worker = launch(database, "none")
    assert stops_at(worker, 0.1, 0.1) is None
    assert stops_at(worker, 9.0, 99.0) is None


def test_median_compares_with_completed_trials_at_the_same_epoch(database: Database) -> None:
    """A trial worse than the median of the completed ones stops, unless these are too few."""
    _, worker = launch(database, "median", startup=2, warmup=0, interval=1)
    assert stops_at(worker, 0.5, 0.4) is None
    assert stops_at(worker, 9.0, 9.0) is None, "one completed trial is too few"
    assert stops_at(worker, 0.6, 0.5) is None
    assert stops_at(worker, 0.9, 0.8) == 1
    assert stops_at(worker, 0.55, 0.51) == 2, "between the others until epoch 2"


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_warmup_counts_epochs_from_one(database: Database, warmup: int) -> None:
    """With warmup = k a hopeless trial trains k epochs and is stopped at the next."""
    _, worker = launch(database, "median", startup=1, warmup=warmup, interval=1)
    assert stops_at(worker, *[0.1] * 6) is None
    assert stops_at(worker, *[0.9] * 6) == warmup + 1


def test_interval_spaces_the_decisions(database: Database) -> None:
    """With interval = 2 a trial that turns bad between two decisions is stopped at the next."""
    _, worker = launch(database, "median", startup=1, warmup=1, interval=2)
    assert stops_at(worker, *[0.5] * 6) is None
    assert stops_at(worker, 0.4, 0.4, 0.9, 0.9, 0.9, 0.9) is None, "its best epoch counts"
    assert stops_at(worker, 0.9, 0.9, 0.9, 0.9) == 2


def test_percentile_keeps_the_best_share(database: Database) -> None:
    """With 25% kept, the second of five is stopped and the first is not."""
    _, worker = launch(database, "percentile", percentile=25.0, startup=4, warmup=0, interval=1)
    for loss in (0.1, 0.2, 0.3, 0.4):
        assert stops_at(worker, loss) is None
    assert stops_at(worker, 0.19) == 1
    assert stops_at(worker, 0.15) is None


def test_threshold_stops_what_leaves_the_bounds(database: Database) -> None:
    """A value above the upper bound stops at that epoch, but not within the warm-up."""
    _, worker = launch(database, "threshold", upper=0.7, warmup=2, interval=1)
    assert stops_at(worker, 0.9, 0.9, 0.6, 0.6) is None
    assert stops_at(worker, 0.5, 0.5, 0.6, 0.71) == 4


def test_patient_stops_what_no_longer_improves(database: Database) -> None:
    """With a patience of two epochs it stops once the best is older; never while improving."""
    _, worker = launch(database, "patient", patience=2, min_delta=0.0)
    assert stops_at(worker, 0.5, 0.6, 0.6, 0.6, 0.6) == 4
    assert stops_at(worker, 0.5, 0.6, 0.4, 0.6, 0.3) is None


def test_asha_lets_only_the_best_of_a_rung_go_on(database: Database) -> None:
    """Every trial gets to the first rung; at each rung one in two continues."""
    _, worker = launch(database, "asha", min_resource=2, reduction_factor=2)
    assert stops_at(worker, 0.9, 0.5, 0.5, 0.5) is None
    assert stops_at(worker, 0.1, 0.6, 0.1, 0.1) == 2, "worse at the rung, whatever came before"
    assert stops_at(worker, 0.9, 0.4, 0.4, 0.6) == 4, "better at epoch 2, worse at epoch 4"
    assert stops_at(worker, 0.9, 0.3, 0.3, 0.4) is None


def test_asha_hands_its_bootstrap_count_on(database: Database) -> None:
    """With bootstrap_count = 2 no trial passes the first rung before two others reached it."""
    _, worker = launch(database, "asha", min_resource=1, reduction_factor=2, bootstrap_count=2)
    assert stops_at(worker, 0.5, 0.5) == 1
    assert stops_at(worker, 0.4, 0.4) == 1
    assert stops_at(worker, 0.3) is None


def test_hyperband_stops_within_its_brackets(database: Database) -> None:
    """Ever worse trials are stopped in the brackets that halve; the others run to their end."""
    _, worker = launch(database, "hyperband", min_resource=1, max_resource=9, reduction_factor=3)
    stops = [stops_at(worker, *[0.1 * place] * 9) for place in range(1, 16)]
    assert any(stop is not None for stop in stops)
    assert set(stops) <= {None, 1, 3, 9}


def test_hyperband_decides_the_same_in_every_worker(database: Database) -> None:
    """A trial's bracket depends on study and number, not on the process."""
    bench, worker = launch(
        database, "hyperband", min_resource=1, max_resource=9, reduction_factor=3
    )
    first = [stops_at(worker, *[0.1 * place] * 9) for place in range(1, 13)]
    other = Bench.launch(database, bench.study.spec)
    assert other.study.study_id == bench.study.study_id
    with database.transaction() as connection:
        from tuner.store import studies

        studies.delete(connection, bench.study)
    again = Bench.launch(database, bench.study.spec)
    second = [stops_at(again.worker(), *[0.1 * place] * 9) for place in range(1, 13)]
    assert first == second


def test_a_metric_that_grows_is_pruned_downwards(database: Database) -> None:
    """With val_acc trials with low values are stopped."""
    _, worker = launch(database, "median", startup=1, warmup=0, interval=1, metric="val_acc")
    held = claim_trial(worker)
    assert worker.record(held, [make_epoch(1, val_acc=0.8)]).stop_epoch is None
    finish(worker, held, 0.5)
    good, bad = claim_trial(worker), None
    assert worker.record(good, [make_epoch(1, val_acc=0.9)]).stop_epoch is None
    finish(worker, good, 0.5)
    bad = claim_trial(worker)
    assert worker.record(bad, [make_epoch(1, val_acc=0.7)]).stop_epoch == 1


@pytest.mark.parametrize(("pruner", "spared"), [("median", True), ("threshold", False)])
def test_further_seeds_of_contenders_are_not_held_against_others(
    database: Database, pruner: str, spared: bool
) -> None:
    """A contender's bad seed runs to its end, unless its own curve alone is hopeless."""
    options = {"median": {"startup": 1, "warmup": 0, "interval": 1}, "threshold": {"upper": 5.0}}
    spec = make_spec(seeds=3, epochs=9, pruner=pruner, pruner_options=options[pruner])
    spec = replace(spec, replicates=Replicates(3, "top", 1))
    worker = Bench.launch(database, spec).worker()
    for loss in (0.5, 0.1, 0.4):
        explored = stops_at(worker, loss, loss)
    assert explored == (1 if pruner == "median" else None), "explored ones are compared"
    assert stops_at(worker, 9.0, 9.0) == (None if spared else 1)
