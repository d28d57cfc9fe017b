"""Recording: what is stored of an epoch, and that decisions are never revised."""

import math
from dataclasses import replace

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.store.specs import (
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_curve,
    make_epoch,
    make_spec,
    optuna_trials,
)
from tuner.records import Metric
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Recorded
from tuner.store.ledger.recording import read_curve


@pytest.fixture
def median(database: Database) -> Bench:
    """Store a study whose median pruner needs one completed trial."""
    options = {"startup": 1, "warmup": 0, "interval": 1}
    return Bench.launch(database, make_spec(seeds=3, pruner="median", pruner_options=options))


def test_an_epoch_is_stored_in_both_schemas(bench: Bench) -> None:
    """Our row has every figure and the token; Optuna has the study's metric by epoch."""
    worker = bench.worker()
    held = claim_trial(worker)
    one = make_epoch(1, 0.25, val_auc=0.875, lr=1e-4)
    assert worker.record(held, [one]) == Recorded()
    (row,) = bench.rows(t.epoch)
    assert (row.val_loss, row.val_auc, row.lr, row.token) == (0.25, 0.875, 1e-4, 1)
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.25}


def test_epochs_recorded_again_are_stored_once(bench: Bench) -> None:
    """Repeated epochs, alone or among new ones, make one row each."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, make_curve(0.6))
    worker.record(held, make_curve(0.6, 0.5))
    worker.record(held, make_curve(0.6, 0.5))
    assert [row.epoch for row in bench.rows(t.epoch)] == [1, 2]


def test_decisions_are_stored_with_what_they_saw(median: Bench) -> None:
    """Each decided epoch has its decision, with the figure and the number of completed peers."""
    worker = median.worker()
    finish(worker, claim_trial(worker), 0.5, 0.5, 0.5)
    held = claim_trial(worker)
    assert worker.record(held, make_curve(0.4, 0.6, 0.9)) == Recorded()
    rows = [row for row in median.rows(t.decision) if row.trial_id == held.trial_id]
    assert [(row.epoch, row.prune, row.pruner) for row in rows] == [
        (1, False, "median"),
        (2, False, "median"),
        (3, False, "median"),
    ]
    assert [row.saw for row in rows] == [
        {"value": 0.4, "complete": 1},
        {"value": 0.6, "complete": 1},
        {"value": 0.9, "complete": 1},
    ]


def test_a_decision_is_not_revised_when_peers_have_finished_since(median: Bench) -> None:
    """An epoch that passed stays passed, even if the pruner would stop it now."""
    early, late = median.worker(), median.worker()
    held = claim_trial(early)
    assert early.record(held, make_curve(0.9)) == Recorded()
    finish(late, claim_trial(late), 0.1, 0.1, 0.1)
    assert early.record(held, make_curve(0.9)) == Recorded()
    assert early.record(held, make_curve(0.9, 0.9)) == Recorded(2)


def test_a_resumed_trial_gets_the_decisions_it_had(median: Bench) -> None:
    """An adopter that repeats stored epochs gets the first holder's decisions."""
    first, peer, second = median.worker(), median.worker(), median.worker()
    held = claim_trial(first)
    assert first.record(held, make_curve(0.9)) == Recorded()
    finish(peer, claim_trial(peer), 0.1, 0.1, 0.1)
    assert first.record(held, make_curve(0.9, 0.9)) == Recorded(2)
    median.expire(held)
    again = claim_trial(second)
    assert second.record(again, make_curve(0.9)) == Recorded()
    assert second.record(again, make_curve(0.9, 0.9)) == Recorded(2)
    assert len([r for r in median.rows(t.decision) if r.trial_id == held.trial_id]) == 2


def test_an_undecided_stored_epoch_is_judged_as_it_was_then(database: Database) -> None:
    """The pruner judges a late decision on an early epoch without the later ones."""
    options = {"patience": 1, "min_delta": 0.0}
    bench = Bench.launch(database, make_spec(pruner="patient", pruner_options=options))
    worker = bench.worker()
    held = claim_trial(worker)
    assert worker.record(held, make_curve(0.5, 0.6)) == Recorded()
    with database.transaction() as connection:
        connection.execute(t.decision.delete())
    bench.expire(held)
    other = bench.worker()
    again = claim_trial(other)
    assert other.record(again, make_curve(0.5, 0.6, 0.6, 0.1)) == Recorded(3)


def test_epochs_beyond_the_stop_are_cut(median: Bench) -> None:
    """Epochs that the trainer ran ahead are not stored if the trial ends before them."""
    worker = median.worker()
    finish(worker, claim_trial(worker), 0.1, 0.1, 0.1)
    held = claim_trial(worker)
    assert worker.record(held, make_curve(0.9, 0.05, 0.05)) == Recorded(1)
    worker.prune(held, SETUP, "median at epoch 1")
    assert [r.epoch for r in median.rows(t.epoch) if r.trial_id == held.trial_id] == [1]
    assert optuna_trials(worker)[1].intermediate_values == {1: 0.9}


@pytest.mark.parametrize("figure", ["val_loss", "train_loss", "train_nll"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_trial(bench: Bench, figure: str, value: float) -> None:
    """NaN and infinities are stored as they are, and the trial ends as diverged in both schemas."""
    worker = bench.worker()
    held = claim_trial(worker)
    bad = make_epoch(2, **{"val_loss": 0.5, figure: value})
    answer = worker.record(held, [make_epoch(1, 0.6), bad, make_epoch(3, 0.4)])
    assert answer == Recorded(2, diverged=True)
    worker.prune(held, SETUP, "diverged at epoch 2")
    rows = bench.rows(t.epoch)
    assert [row.epoch for row in rows] == [1, 2]
    assert repr(getattr(rows[1], figure)) == repr(value)
    (ended,) = bench.rows(t.outcome)
    assert (ended.state, ended.reason) == ("PRUNED", "diverged at epoch 2")
    seen = optuna_trials(worker)[0]
    assert seen.state == TrialState.PRUNED
    assert seen.user_attrs["diverged"] is True
    assert seen.user_attrs["reason"] == "diverged at epoch 2"


@pytest.mark.parametrize("figure", ["val_auc", "val_sensitivity", "val_specificity"])
def test_an_undefined_figure_ends_no_trial(bench: Bench, figure: str) -> None:
    """If validation lacks a class some figures are NaN; the trial continues."""
    worker = bench.worker()
    held = claim_trial(worker)
    curve = [make_epoch(number, 0.5, **{figure: math.nan}) for number in (1, 2)]
    assert worker.record(held, curve) == Recorded()
    worker.prune(held, SETUP, "median at epoch 2")
    (row,) = bench.rows(t.outcome)
    assert (row.best_epoch, row.last_epoch) == (1, 2)


def test_the_metric_not_being_a_number_is_divergence(database: Database) -> None:
    """A NaN of the study's own metric ends the trial as diverged."""
    bench = Bench.launch(database, make_spec(metric="val_auc"))
    worker = bench.worker()
    held = claim_trial(worker)
    curve = [make_epoch(1), make_epoch(2, val_auc=math.nan)]
    assert worker.record(held, curve) == Recorded(2, diverged=True)


def test_divergence_told_again_is_the_same_answer(bench: Bench) -> None:
    """A resumed trial that diverged before gets the same decision again."""
    first, second = bench.worker(), bench.worker()
    held = claim_trial(first)
    curve = make_curve(0.5, math.nan)
    assert first.record(held, curve) == Recorded(2, diverged=True)
    bench.expire(held)
    assert second.record(claim_trial(second), curve) == Recorded(2, diverged=True)
    assert len(bench.rows(t.epoch)) == 2


def test_output_is_kept_by_attempt(bench: Bench) -> None:
    """An attempt's output is stored, only its end if it is long, whatever its bytes."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.keep_output(held, "first\x00half")
    worker.keep_output(held, "x" * 300_000 + "end")
    (row,) = bench.rows(t.output)
    assert row.text.endswith("end")
    assert len(row.text) == 256 * 1024
    assert (row.token, row.worker_id) == (1, worker.worker_id)


def test_output_of_a_deleted_trial_is_dropped(bench: Bench) -> None:
    """A worker whose study is deleted while its trainer prints continues to run."""
    worker = bench.worker()
    held = claim_trial(worker)
    with bench.database.transaction() as connection:
        studies.delete(connection, bench.study)
    worker.keep_output(held, "last words")
    assert bench.rows(t.output) == []


def test_further_metrics_are_stored_bit_for_bit(database: Database) -> None:
    """Own figures are read back exactly, NaN too, and Optuna gets the metric."""
    dice = Metric("dice", "higher", "Dice.")
    spec = replace(make_spec(metric="val_dice"), metrics=(dice,))
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    held = claim_trial(worker)
    own = {"val_dice": 0.1 + 0.2, "val_hole": math.nan}
    first = replace(make_epoch(1), own=own)
    worker.record(held, [first, replace(make_epoch(2), own={"val_dice": 0.5, "val_hole": 1.0})])
    # Repeating them changes nothing: the stored figures are equal to the last bit.
    worker.record(held, [first])
    rows = bench.rows(t.epoch)
    assert [row.own["val_dice"] for row in rows] == [0.1 + 0.2, 0.5]
    assert math.isnan(rows[0].own["val_hole"])
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.1 + 0.2, 2: 0.5}
    with bench.database.transaction() as connection:
        values = connection.execute(
            sa.select(t.figure(t.epoch, "val_dice"), t.figure(t.epoch, "val_hole")).order_by(
                t.epoch.c.epoch
            )
        ).all()
        assert values == [(0.1 + 0.2, None), (0.5, 1.0)]
        assert read_curve(connection, held.trial_id)[0].has_figures_of(first)
    assert bench.study.spec.direction == "maximize"


def test_another_figure_of_a_further_metric_is_another_training(database: Database) -> None:
    """A training that differs only in an own metric replaces the curve: its code is another."""
    bench = Bench.launch(database, make_spec())
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [replace(make_epoch(1), own={"val_dice": 0.5})])
    worker.record(held, [replace(make_epoch(1), own={"val_dice": 0.6})])
    (row,) = bench.rows(t.epoch)
    assert row.own == {"val_dice": 0.6}


def test_epochs_that_are_sent_again_are_no_progress(bench: Bench) -> None:
    """A trainer that resumes repeats the epochs before its checkpoint."""
    worker = bench.worker()
    held = claim_trial(worker)
    noted: list[str] = []
    worker.progressed = lambda: noted.append("progress")
    worker.record(held, make_curve(0.5, 0.4))
    assert noted == ["progress"]
    worker.record(held, make_curve(0.5, 0.4))
    assert noted == ["progress"]
    worker.record(held, make_curve(0.5, 0.4, 0.3))
    assert len(noted) == 2
