"""How trials end, what is stored of them, and the brake."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

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
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed, Ended, LeaseLostError

SAME = "FileNotFoundError: no such folder"


def test_a_complete_trial_leaves_its_figures(bench: Bench) -> None:
    """Figures at best and last, setup, predictions and labels are stored."""
    worker = bench.worker()
    finish(worker, claim_trial(worker), 0.6, 0.4, 0.5)
    (row,) = bench.rows(t.outcome)
    assert (row.state, row.best_epoch, row.last_epoch) == ("COMPLETE", 2, 3)
    assert (row.best_val_loss, row.last_val_loss, row.best_test_acc) == (0.4, 0.5, 0.75)
    assert row.setup["initial_weights"] == SETUP.initial_weights
    kept = {(one.split, one.moment): one for one in bench.rows(t.prediction)}
    assert set(kept) == {("val", "best"), ("val", "last")}
    scores = np.frombuffer(kept["val", "best"].log_probabilities, "<f4").reshape(-1, 2)
    assert np.allclose(np.exp(scores), [[0.9, 0.1], [0.2, 0.8]])
    (true,) = bench.rows(t.label)
    assert np.frombuffer(true.labels, "<i8").tolist() == [0, 1]
    assert true.ids == ["a", "b"]


def test_data_seen_by_several_trials_is_kept_once(bench: Bench) -> None:
    """Labels belong to the data, not to the trial, and are stored once."""
    worker = bench.worker()
    for _ in range(3):
        finish(worker, claim_trial(worker))
    assert len(bench.rows(t.dataset)) == 1
    assert len(bench.rows(t.label)) == 1


def test_patients_are_stored_with_the_labels(bench: Bench) -> None:
    """Data without patients have an empty list; a later list for the same images is added."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    assert [row.patients for row in bench.rows(t.label)] == [[]]
    for patients, stored in [
        (("ann", "bob"), ["ann", "bob"]),
        ((), ["ann", "bob"]),
        (("ann", "ann"), ["ann", "ann"]),
    ]:
        _complete_with_patients(bench, patients)
        assert [row.patients for row in bench.rows(t.label)] == [stored]


def test_labels_stored_before_patients_were_kept_get_them(bench: Bench) -> None:
    """NULL means unknown; the next trial on the same data stores its patients."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    for patients in ((), ("ann", "bob")):
        with bench.database.transaction() as connection:
            connection.execute(sa.update(t.label).values(patients=sa.null()))
        _complete_with_patients(bench, patients)
        assert [row.patients for row in bench.rows(t.label)] == [list(patients)]


def _complete_with_patients(bench: Bench, patients: tuple[str, ...]) -> None:
    """Complete a trial of a new study on the same data, with these patients."""
    again = Bench.launch(bench.database, make_spec("again"), new_version=True)
    worker, curve = again.worker(), make_curve(0.5)
    held = claim_trial(worker)
    worker.record(held, curve)
    (labels,) = DATASET.labels
    data = replace(DATASET, labels=(replace(labels, patients=patients),))
    worker.complete(held, SETUP, data, make_result(curve))


@pytest.mark.parametrize(("at", "value"), [("best", 0.4), ("last", 0.5)])
def test_optuna_gets_the_value_the_study_asks_for(
    database: Database, at: str, value: float
) -> None:
    """Optuna's value is the metric at the best epoch, or at the last."""
    bench = Bench.launch(database, make_spec(at=at))
    worker = bench.worker()
    finish(worker, claim_trial(worker), 0.6, 0.4, 0.5)
    seen = optuna_trials(worker)[0]
    assert (seen.state, seen.value) == (TrialState.COMPLETE, value)
    assert seen.user_attrs["seed"] == 0
    assert seen.user_attrs["test_acc"] == 0.75
    assert seen.user_attrs["gap"] == pytest.approx(0.05)
    assert seen.user_attrs["train_acc"] == 0.7
    assert seen.user_attrs["best_epoch"] == 2
    assert seen.user_attrs["epochs"] == 3
    assert "epochs_reused" not in seen.user_attrs
    assert "reason" not in seen.user_attrs


def test_a_pruned_trial_shows_its_last_value(bench: Bench) -> None:
    """A pruned trial has its reason and the metric at its last epoch, in both schemas."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, make_curve(0.6, 0.5, 0.7))
    worker.prune(held, SETUP, "median at epoch 3")
    (row,) = bench.rows(t.outcome)
    assert (row.state, row.best_epoch, row.last_epoch) == ("PRUNED", 2, 3)
    assert row.best_test_acc is None
    seen = optuna_trials(worker)[0]
    assert (seen.state, seen.value) == (TrialState.PRUNED, 0.7)
    worker.prune(held, SETUP, "median at epoch 3")
    assert len(bench.rows(t.outcome)) == 1


def test_a_diverged_epoch_is_not_the_best(database: Database) -> None:
    """An epoch with a NaN loss is not the best one, even if the metric is a number."""
    bench = Bench.launch(database, make_spec(metric="val_acc"))
    worker = bench.worker()
    held = claim_trial(worker)
    epochs = [make_epoch(1, 0.5, val_acc=0.4), make_epoch(2, math.nan, val_acc=0.5)]
    worker.record(held, epochs)
    worker.prune(held, SETUP, "diverged at epoch 2")
    (row,) = bench.rows(t.outcome)
    assert (row.best_epoch, row.last_epoch) == (1, 2)


def test_a_trial_that_diverges_at_once_has_no_best(bench: Bench) -> None:
    """NaN in the first epoch gives a last epoch and no best one."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, make_curve(math.nan))
    worker.prune(held, SETUP, "diverged at epoch 1")
    (row,) = bench.rows(t.outcome)
    assert (row.best_epoch, row.last_epoch) == (None, 1)


def fail_once(bench: Bench, reason: str) -> str:
    """Claim a trial and fail it."""
    worker = bench.worker()
    return worker.fail(claim_trial(worker), reason)


def test_a_failed_attempt_is_tried_again(bench: Bench) -> None:
    """The first failures give the trial back under the same number."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    assert fail_once(bench, "one thing") == "again"
    assert fail_once(bench, "another") == "again"
    held = claim_trial(bench.worker())
    assert (held.number, held.token) == (1, 3)
    assert bench.lease_row(held).strikes == 2


def test_attempts_run_out(bench: Bench) -> None:
    """The third failure in a row without an epoch ends a trial as FAILED; the study continues."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    verdicts = [fail_once(bench, SAME) for _ in range(3)]
    assert verdicts == ["again", "again", "failed"]
    ended = {row.state: row for row in bench.rows(t.outcome)}
    assert ended["FAILED"].reason == SAME
    seen = optuna_trials(worker)[1]
    assert (seen.state, seen.user_attrs["reason"]) == (TrialState.FAIL, SAME)
    assert claim_trial(bench.worker()).number == 2


def test_a_failed_trial_can_be_failed_again_without_effect(bench: Bench) -> None:
    """If the answer to the last failure was lost, repeating it changes nothing."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    for _ in range(2):
        fail_once(bench, SAME)
    last = bench.worker()
    held = claim_trial(last)
    assert last.fail(held, SAME) == "failed"
    before = bench.contents()
    assert last.fail(held, SAME) == "failed"
    assert bench.contents() == before


def test_a_failure_told_twice_counts_once(bench: Bench) -> None:
    """A repeated failure is refused, because the trial was given back."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.fail(held, SAME)
    before = bench.contents()
    with pytest.raises(LeaseLostError):
        worker.fail(held, SAME)
    assert bench.contents() == before


@pytest.mark.parametrize("text", ["a\x00b", "bad \udcff name", "x" * 3_000_000])
def test_any_error_text_can_be_a_reason(bench: Bench, text: str) -> None:
    """Error texts with NUL, lone surrogates or megabytes are stored as far as possible."""
    worker = bench.worker()
    worker.fail(claim_trial(worker), f"OSError: {text}")
    (told,) = [row.text for row in bench.rows(t.event) if row.kind == "attempt failed"]
    assert told.startswith("OSError: ")
    assert len(told) < 10_000


def drive(bench: Bench, reason: Callable[[int], str], limit: int = 40) -> Ended | None:
    """Fail every trial, as workers would, until the study ends."""
    for turn in range(limit):
        worker = bench.worker()
        answer = worker.claim(None, adopt=True)
        if isinstance(answer, Ended):
            return answer
        assert isinstance(answer, Claimed)
        worker.fail(answer.lease, reason(turn))
    return None


def test_the_brake_pauses_a_study_whose_trials_all_fail_alike(database: Database) -> None:
    """One reason for all failures pauses the study within three trials; none stays FAILED."""
    bench = Bench.launch(database, make_spec(seeds=5))
    ended = drive(bench, lambda _: SAME)
    assert ended is not None
    assert ended.state == "paused"
    assert SAME in ended.reason
    assert len(bench.rows(t.trial)) == 3
    assert bench.rows(t.outcome) == []
    assert {one.state for one in optuna_trials(bench.worker())} == {TrialState.RUNNING}


def test_a_paused_study_goes_on_after_retry(database: Database) -> None:
    """After a repair and a retry the same trials are trained, their failures reset."""
    bench = Bench.launch(database, make_spec(seeds=5))
    drive(bench, lambda _: SAME)
    control.retry(database, bench.binding, bench.study, [])
    worker = bench.worker()
    for _ in range(15):
        finish(worker, claim_trial(worker))
    assert isinstance(worker.claim(None, adopt=True), Ended)
    assert bench.state() == "complete"
    assert [one.state for one in optuna_trials(worker)] == [TrialState.COMPLETE] * 15
    assert [one.number for one in optuna_trials(worker)] == list(range(15))


def test_the_brake_looks_only_at_failures_since_the_study_was_opened(database: Database) -> None:
    """After a retry one more failure does not pause the study at once."""
    bench = Bench.launch(database, make_spec(seeds=5))
    drive(bench, lambda _: SAME)
    control.retry(database, bench.binding, bench.study, [])
    assert fail_once(bench, SAME) == "again"
    assert bench.state() == "open"


def test_different_reasons_do_not_trip_the_brake(database: Database) -> None:
    """Trials that fail for different reasons end as FAILED; the study ends."""
    bench = Bench.launch(database, make_spec(seeds=2))
    ended = drive(bench, lambda turn: f"reason {turn}")
    assert ended == Ended("complete", "")
    assert [row.state for row in bench.rows(t.outcome)] == ["FAILED"] * 6


def test_one_success_disables_the_brake(database: Database) -> None:
    """If one trial succeeded, the brake does not act."""
    bench = Bench.launch(database, make_spec(seeds=2))
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    assert drive(bench, lambda _: SAME) == Ended("complete", "")
    states = sorted(row.state for row in bench.rows(t.outcome))
    assert states == ["COMPLETE"] + ["FAILED"] * 5


def test_a_study_of_one_trial_is_paused_after_its_attempts(database: Database) -> None:
    """If the only trial fails alike in all attempts the study is paused."""
    bench = Bench.launch(database, make_spec(dimensions=()))
    ended = drive(bench, lambda _: SAME)
    assert ended is not None
    assert ended.state == "paused"
    assert bench.rows(t.outcome) == []


def test_the_brake_with_a_single_attempt(database: Database) -> None:
    """With attempts = 1 the brake reopens finally failed trials."""
    bench = Bench.launch(database, limited(make_spec(seeds=5), attempts=1))
    ended = drive(bench, lambda _: SAME)
    assert ended is not None
    assert ended.state == "paused"
    assert bench.rows(t.outcome) == []
    assert {one.state for one in optuna_trials(bench.worker())} == {TrialState.RUNNING}


def test_a_completed_trial_keeps_no_reason_of_an_earlier_failure(database: Database) -> None:
    """A trial that failed, was retried and completed has no reason any more."""
    bench = Bench.launch(database, limited(make_spec(dimensions=()), attempts=1))
    worker = bench.worker()
    worker.fail(claim_trial(worker), "bad luck")
    control.retry(database, bench.binding, bench.study, [])
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    (seen,) = optuna_trials(worker)
    assert seen.state == TrialState.COMPLETE
    assert "reason" not in seen.user_attrs
    assert [row.reason for row in bench.rows(t.outcome)] == [""]


def test_a_curve_with_a_hole_cannot_complete(bench: Bench) -> None:
    """A trial whose curve has a gap cannot complete."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1), make_epoch(3)])
    with pytest.raises(AssertionError):
        worker.complete(held, SETUP, DATASET, make_result([make_epoch(1), make_epoch(3)]))
    assert bench.rows(t.outcome) == []
