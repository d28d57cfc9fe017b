"""A curve belongs to one training: the rest of another training is removed when it differs."""

from typing import Any

import pytest

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
    optuna_trials,
)
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed, Lease, LeaseLostError, Recorded

MEDIAN: dict[str, Any] = {
    "pruner": "median",
    "pruner_options": {"startup": 1, "warmup": 0, "interval": 1},
}


def adopted(bench: Bench, *stored: float) -> tuple[Lease, Lease]:
    """Let one worker store a curve and fall silent; return its lease and its adopter's."""
    worker = bench.worker()
    old = claim_trial(worker)
    if stored:
        worker.record(old, make_curve(*stored))
    bench.expire(old)
    return old, claim_trial(bench.worker())


def holder(bench: Bench, held: Lease) -> Any:
    """Return the ledger of the lease's holder."""
    worker = bench.worker()
    worker.worker_id = bench.lease_row(held).worker_id
    return worker


def losses(bench: Bench, held: Lease) -> list[tuple[int, float, int]]:
    """Return the stored epochs of a trial: number, validation loss, and attempt."""
    rows = [row for row in bench.rows(t.epoch) if row.trial_id == held.trial_id]
    return sorted((row.epoch, row.val_loss, row.token) for row in rows)


def test_another_training_replaces_the_stored_rest(bench: Bench) -> None:
    """From the first epoch with other figures on, the old curve is removed everywhere."""
    _, held = adopted(bench, 0.9, 0.8, 0.7, 0.6)
    worker = holder(bench, held)
    worker.record(held, [make_epoch(1, 0.91)])
    assert losses(bench, held) == [(1, 0.91, 2)]
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.91}
    (told,) = [row for row in bench.rows(t.event) if row.kind == "retrained"]
    assert told.text.startswith("epochs 1 to 4 were removed")


def test_epochs_before_the_first_difference_stay(bench: Bench) -> None:
    """If a trainer resumed at epoch 2 and then differs, the first two epochs stay unchanged."""
    _, held = adopted(bench, 0.9, 0.8, 0.7, 0.6)
    worker = holder(bench, held)
    worker.record(held, make_curve(0.9, 0.8))
    assert len(losses(bench, held)) == 4, "nothing is removed before something new is known"
    worker.record(held, [make_epoch(3, 0.71)])
    assert losses(bench, held) == [(1, 0.9, 1), (2, 0.8, 1), (3, 0.71, 2)]
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.9, 2: 0.8, 3: 0.71}


@pytest.mark.parametrize("figure", ["train_nll", "val_acc", "val_auc", "lr", "val_sensitivity"])
def test_any_figure_tells_another_training(bench: Bench, figure: str) -> None:
    """The last bit of any figure is enough; NaN equals itself."""
    nan = float("nan")
    worker = bench.worker()
    old = claim_trial(worker)
    worker.record(old, [make_epoch(1, 0.9, val_specificity=nan), make_epoch(2, 0.8)])
    bench.expire(old)
    held = claim_trial(bench.worker())
    worker = holder(bench, held)
    worker.record(held, [make_epoch(1, 0.9, val_specificity=nan)])
    assert [token for *_, token in losses(bench, held)] == [1, 1]
    value = getattr(make_epoch(2), figure)
    worker.record(held, [make_epoch(2, 0.8, **{figure: value * (1 + 2.0**-52)})])
    assert [token for *_, token in losses(bench, held)] == [1, 2]


def test_time_and_reuse_do_not_tell_another_training(bench: Bench) -> None:
    """The same training with other durations, or from a checkpoint, keeps the stored epochs."""
    _, held = adopted(bench, 0.9, 0.8)
    again = make_epoch(1, 0.9, seconds=99.0, val_seconds=9.0, reused=True)
    holder(bench, held).record(held, [again])
    assert losses(bench, held) == [(1, 0.9, 1), (2, 0.8, 1)]
    assert not [row for row in bench.rows(t.event) if row.kind == "retrained"]


def test_decisions_go_with_their_epochs(database: Database) -> None:
    """The decision on a removed epoch is made again, for the new training."""
    bench = Bench.launch(database, make_spec(seeds=3, **MEDIAN))
    first, peer = bench.worker(), bench.worker()
    old = claim_trial(first)
    first.record(old, make_curve(0.5, 0.5, 0.5))
    finish(peer, claim_trial(peer), 0.5, 0.5, 0.5)
    bench.expire(old)
    held = claim_trial(bench.worker())
    worker = holder(bench, held)
    assert worker.record(held, make_curve(0.5, 0.4)) == Recorded()
    kept = [row for row in bench.rows(t.decision) if row.trial_id == held.trial_id]
    assert sorted((row.epoch, row.saw["value"], row.saw["complete"]) for row in kept) == [
        (1, 0.5, 0),
        (2, 0.4, 1),
    ]
    # A third training, whose first epoch the pruner judges differently.
    assert worker.record(held, [make_epoch(1, 0.9)]) == Recorded(1)


@pytest.mark.parametrize("first", [1, 3])
def test_rungs_go_with_their_epochs(database: Database, first: int) -> None:
    """asha's note of a removed epoch is removed, so that the trial passes the rung again."""
    options = {"min_resource": 2, "reduction_factor": 2, "bootstrap_count": 0}
    spec = make_spec(seeds=3, epochs=9, pruner="asha", pruner_options=options)
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    old = claim_trial(worker)
    worker.record(old, make_curve(0.9, 0.8, 0.7, 0.6))
    assert rungs(worker) == {"completed_rung_0": 0.8, "completed_rung_1": 0.6}
    bench.expire(old)
    held = claim_trial(bench.worker())
    worker = holder(bench, held)
    curve = make_curve(0.9, 0.8, 0.7, 0.6)[: first - 1]
    worker.record(held, [*curve, make_epoch(first, 0.5)])
    assert rungs(worker) == ({} if first == 1 else {"completed_rung_0": 0.8})
    worker.record(held, [make_epoch(number, 0.4) for number in range(first + 1, 5)])
    assert rungs(worker) == {
        "completed_rung_0": 0.4 if first == 1 else 0.8,
        "completed_rung_1": 0.4,
    }


def rungs(worker: Any) -> dict[str, float]:
    """Return asha's notes on the first trial."""
    attributes = optuna_trials(worker)[0].system_attrs
    return {name: value for name, value in attributes.items() if name.startswith("completed")}


def test_a_training_that_ends_earlier_than_what_is_stored_completes(bench: Bench) -> None:
    """If patience ends the new training at epoch 2 of 4 stored, its curve is what remains."""
    _, held = adopted(bench, 0.9, 0.8, 0.7, 0.6)
    worker = holder(bench, held)
    curve = make_curve(0.5, 0.6)
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))
    (row,) = bench.rows(t.outcome)
    assert (row.state, row.best_epoch, row.last_epoch) == ("COMPLETE", 1, 2)
    assert losses(bench, held) == [(1, 0.5, 2), (2, 0.6, 2)]
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.5, 2: 0.6}


def test_an_end_before_the_stored_end_removes_the_rest(bench: Bench) -> None:
    """Even if all its epochs equal stored ones, a training's end is the curve's end."""
    _, held = adopted(bench, 0.9, 0.8, 0.7, 0.6)
    worker = holder(bench, held)
    curve = make_curve(0.9, 0.8)
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))
    assert [number for number, *_ in losses(bench, held)] == [1, 2]
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.9, 2: 0.8}


def test_an_adopter_that_dies_before_its_first_epoch_removes_nothing(bench: Bench) -> None:
    """The next holder, on the old machine with its checkpoint, continues the old curve."""
    _, silent = adopted(bench, 0.9, 0.8)
    bench.expire(silent)
    held = claim_trial(bench.worker())
    holder(bench, held).record(held, make_curve(0.9, 0.8, 0.7))
    assert losses(bench, held) == [(1, 0.9, 1), (2, 0.8, 1), (3, 0.7, 3)]


def test_a_removal_is_told_once_when_its_answer_is_lost(bench: Bench) -> None:
    """The repeated transaction finds its own epoch stored, and removes and reports nothing."""
    _, held = adopted(bench, 0.9, 0.8)
    for _ in range(2):
        # As after an error, memory is empty: everything is read from the database again.
        holder(bench, held).record(held, [make_epoch(1, 0.91)])
    assert losses(bench, held) == [(1, 0.91, 2)]
    assert sum(row.kind == "retrained" for row in bench.rows(t.event)) == 1


def test_a_holder_that_was_replaced_removes_nothing(bench: Bench) -> None:
    """A worker that lost its trial is fenced off and cannot undo what its adopter stored."""
    worker = bench.worker()
    old = claim_trial(worker)
    worker.record(old, make_curve(0.9, 0.8))
    bench.expire(old)
    held = claim_trial(bench.worker())
    before = bench.contents()
    with pytest.raises(LeaseLostError):
        worker.record(old, [make_epoch(1, 0.5)])
    assert bench.contents() == before
    holder(bench, held).record(held, [make_epoch(1, 0.91)])


def test_machines_that_undo_each_other_make_no_progress(database: Database) -> None:
    """A trial that fails on two kinds of machines in turn runs out of attempts."""
    bench = Bench.launch(database, limited(make_spec(dimensions=(), epochs=9), attempts=3))
    verdicts: list[str] = []
    while not verdicts or verdicts[-1] == "again":
        attempt = len(verdicts)
        worker = bench.worker()
        answer = worker.claim(None, adopt=True)
        assert isinstance(answer, Claimed)
        worker.record(answer.lease, make_curve(0.9 + attempt % 2 / 10, 0.8))
        verdicts.append(worker.fail(answer.lease, f"reason {attempt}"))
    # The first attempt made progress; the others only replaced epochs 1 and 2.
    assert verdicts == ["again", "again", "failed"]
