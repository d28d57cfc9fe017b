"""Epochs and seconds saved by reuse, and epochs that were still trained twice."""

from dataclasses import replace

from tests.store.specs import DATASET, SETUP, Bench, claim_trial, make_curve, make_result, make_spec
from tuner.results import Results, reuse
from tuner.spec.space import Choice
from tuner.store.database import Database


def launch(database: Database, reused: int) -> Bench:
    """Train 2 and then 4 epochs of one setting, of which the second reused this many."""
    bench = Bench.launch(database, make_spec(dimensions=(Choice("epochs", (2, 4)),)))
    worker = bench.worker()
    for epochs in (2, 4):
        held = claim_trial(worker)
        curve = make_curve(*(0.5 for _ in range(epochs)))
        if epochs == 4:
            curve = [replace(one, reused=one.epoch <= reused) for one in curve]
        worker.record(held, curve)
        worker.complete(held, SETUP, DATASET, make_result(curve))
    return bench


def test_reuse_is_summed_in_epochs_and_seconds(database: Database) -> None:
    """Reused epochs count in epochs and seconds, at the cost they would have had."""
    bench = launch(database, reused=2)
    with bench.database.transaction() as connection:
        found = reuse(Results(connection, bench.study))
    assert (found.epochs, found.reused, found.excess) == (6, 2, 0)
    assert round(found.seconds, 9) == 0.04
    assert round(found.seconds_without, 9) == 0.06


def test_what_was_trained_twice_is_counted(database: Database) -> None:
    """Epochs trained again although an earlier trial has them are counted as the excess."""
    bench = launch(database, reused=0)
    with bench.database.transaction() as connection:
        found = reuse(Results(connection, bench.study))
    assert (found.reused, found.excess) == (0, 2)
