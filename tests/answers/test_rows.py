"""Rows of trials and epochs, and the table by factor, from a real study."""

import math
from dataclasses import replace

import pytest
from scipy.stats import linregress

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_epoch,
    make_result,
    make_spec,
)
from tuner.errors import UserError
from tuner.records import columns_of
from tuner.results import (
    EPOCH_COLUMNS,
    FURTHER,
    VIEWS,
    Results,
    TrialRow,
    epoch_rows,
    factors,
    predicted,
    ranked,
    trial_columns,
    trial_rows,
)
from tuner.spec.space import Choice
from tuner.store.database import Database


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store two learning rates times two optimizers under two seeds, with two fixed parameters."""
    dimensions = (Choice("optimizer", ("adam", "sgd")), Choice("lr", (1e-3, 1e-2)))
    return Bench.launch(database, make_spec(dimensions=dimensions, seeds=2))


def read(bench: Bench, *, further: bool = False) -> list[TrialRow]:
    """Read the study's rows."""
    with bench.database.transaction() as connection:
        return trial_rows(connection, bench.study, further=further)


def results_of(bench: Bench) -> Results:
    """Read the study's rows with all columns, for use after the transaction."""
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        assert results.wide_rows
    return results


def test_columns_come_in_the_documented_order(bench: Bench) -> None:
    """Columns come in the documented order: facts, parameters, figures at best and last, rest."""
    losses = ("train_loss", "train_nll", "train_acc", "val_loss", "val_acc")
    figures = (*losses, "test_loss", "test_acc", "gap")
    assert trial_columns(bench.study.spec) == (
        *("trial", "state", "reason", "seed", "attempts"),
        *("optimizer", "lr", "epochs", "best_epoch"),
        *figures,
        *(f"last_{name}" for name in figures),
        *("epochs_run", "epochs_reused", "seconds", "parameter_count"),
        *("device", "started", "ended"),
    )


def test_complete_row_has_figures_at_best_and_last(bench: Bench) -> None:
    """Every cell of a complete trial is as reported by training, and the gap is val - test."""
    worker = bench.worker()
    finish(worker, claim_trial(worker), 0.6, 0.4, 0.5)
    (row,) = read(bench)
    assert set(row.cells) == set(trial_columns(bench.study.spec))
    assert (row["state"], row["seed"], row["attempts"], row["best_epoch"]) == ("COMPLETE", 0, 1, 2)
    assert (row["val_loss"], row["last_val_loss"], row.value) == (0.4, 0.5, 0.4)
    assert row["gap"] == pytest.approx(row["val_acc"] - row["test_acc"])
    assert (row["epochs_run"], row["epochs_reused"]) == (3, 0)
    assert row["seconds"] == pytest.approx(0.03)
    assert (row["parameter_count"], row["device"]) == (SETUP.parameter_count, SETUP.device)
    assert row["started"] <= row["ended"]


def test_unfinished_trials_are_rows_too(bench: Bench) -> None:
    """A running trial's row shows its progress without figures; a pruned one's why it ended."""
    worker, peer = bench.worker(), bench.worker()
    worker.record(claim_trial(worker), [make_epoch(1)])
    held = claim_trial(peer)
    peer.record(held, [make_epoch(1), make_epoch(2, 0.9)])
    peer.prune(held, SETUP, "median at epoch 2")
    running, pruned = read(bench)
    assert (running["state"], running["epochs_run"], running["val_loss"]) == ("RUNNING", 1, None)
    assert running["reason"] is None
    assert (pruned["state"], pruned["reason"]) == ("PRUNED", "median at epoch 2")
    assert (pruned["val_loss"], pruned["last_val_loss"], pruned["test_acc"]) == (0.5, 0.9, None)
    assert pruned["gap"] is None


def test_ranking_is_by_the_metric_among_complete_trials(bench: Bench) -> None:
    """Complete trials are ranked by the metric; a pruned trial is not ranked, however good."""
    worker = bench.worker()
    for loss in (0.5, 0.3, 0.4):
        finish(worker, claim_trial(worker), loss)
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1, 0.01)])
    worker.prune(held, SETUP, "median at epoch 1")
    rows = ranked(read(bench), bench.study.spec)
    assert [row["trial"] for row in rows] == [1, 2, 0]


def test_epochs_have_their_columns_and_order(bench: Bench) -> None:
    """There is one row per epoch, by trial and epoch; selecting trials leaves the others out."""
    worker = bench.worker()
    for _ in range(3):
        finish(worker, claim_trial(worker))
    with bench.database.transaction() as connection:
        every = epoch_rows(connection, bench.study)
        some = epoch_rows(connection, bench.study, [2])
    assert [row[:2] for row in every] == [(t, e) for t in range(3) for e in (1, 2, 3)]
    assert [row[0] for row in some] == [2, 2, 2]
    assert all(len(row) == len(EPOCH_COLUMNS) for row in every)


def test_every_figure_of_an_epoch_can_be_read(bench: Bench) -> None:
    """Each field of an epoch's record is a column with its value."""
    worker = bench.worker()
    held = claim_trial(worker)
    whole = make_epoch(1, 0.5, val_auc=0.91, val_sensitivity=0.72, val_seconds=0.25)
    worker.record(held, [whole, make_epoch(2, 0.5, val_auc=math.nan, train_acc=math.nan)])
    with bench.database.transaction() as connection:
        first, second = (
            dict(zip(EPOCH_COLUMNS, row, strict=True))
            for row in epoch_rows(connection, bench.study)
        )
    assert first == {"trial": 0, **columns_of(whole)}
    assert second["val_auc"] is None
    assert math.isnan(second["train_acc"])


def test_factor_means_are_over_seeds_not_trials(bench: Bench) -> None:
    """A level's n counts seeds; a seed's value is the mean over the other factor's levels."""
    worker = bench.worker()
    losses = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    for loss in losses:
        finish(worker, claim_trial(worker), loss)
    optimizer, rate = factors(results_of(bench))
    adam = optimizer.levels[0]
    assert (optimizer.name, rate.name, adam.level) == ("optimizer", "lr", "adam")
    mean = adam.means["val_loss"]
    assert mean is not None
    assert (mean.n, adam.trials, adam.complete) == (2, 4, 4)
    assert mean.value == pytest.approx((0.15 + 0.55) / 2)


def test_factor_levels_count_what_their_means_lack(bench: Bench) -> None:
    """A level counts its pruned trials and flags that its mean is over survivors only."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1)])
    worker.prune(held, SETUP, "median at epoch 1")
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1, math.nan)])
    worker.prune(held, SETUP, "diverged at epoch 1")
    adam = factors(results_of(bench))[0].levels[0]
    assert (adam.trials, adam.complete, adam.pruned, adam.survivors_only) == (2, 1, 1, True)


def test_a_diverged_trial_is_not_called_pruned(bench: Bench) -> None:
    """A diverged trial's row and the error about its predictions say DIVERGED under any pruner."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1), make_epoch(2, math.nan)])
    worker.prune(held, SETUP, "diverged at epoch 2")
    (row,) = read(bench)
    assert (row["state"], row["reason"], row.lost) == ("DIVERGED", "diverged at epoch 2", True)
    with bench.database.transaction() as connection, pytest.raises(UserError, match="is DIVERGED"):
        predicted(connection, bench.study, 0, "val", "best")


def test_further_cells_are_what_training_measured(bench: Bench) -> None:
    """Class figures and both parts of the time are cells; unmeasured ones are empty."""
    worker = bench.worker()
    held = claim_trial(worker)
    curve = [make_epoch(1, 0.5), make_epoch(2, 0.4)]
    worker.record(held, curve)
    result = make_result(curve)
    best = replace(result.best, test_auc=0.91, test_sensitivity=0.6, val_specificity=math.nan)
    worker.complete(held, SETUP, DATASET, replace(result, best=best))
    (row,) = read(bench, further=True)
    assert (row["test_auc"], row["test_sensitivity"]) == (0.91, 0.6)
    assert (row["val_specificity"], row["last_test_auc"]) == (None, None)
    assert row["val_seconds"] == pytest.approx(2 * 0.002)
    assert row["train_seconds"] == pytest.approx(2 * 0.008)
    assert row["seconds_per_epoch"] == pytest.approx(0.01)
    assert set(row.further) == set(FURTHER)


def test_late_slopes_are_lines_through_the_last_epochs(bench: Bench) -> None:
    """Late slopes are least-squares lines over the last 40% of epochs: of ten, the last four."""
    losses = [9.0, 8.0, 1.0, 5.0, 3.0, 2.0, 0.50, 0.40, 0.45, 0.20]
    worker = bench.worker()
    finish(worker, claim_trial(worker), *losses)
    finish(worker, claim_trial(worker), 0.5, 0.4, 0.3, 0.2)
    long, short = read(bench, further=True)
    expected = linregress([7, 8, 9, 10], losses[6:]).slope
    assert long["late_val_slope"] == pytest.approx(expected, abs=1e-12)
    assert long["late_train_slope"] == 0.0
    assert short["late_val_slope"] is None


@pytest.mark.parametrize("at", ["best", "last"])
def test_every_view_has_its_figures(database: Database, at: str) -> None:
    """Each view by factor has its columns, at the epoch by which the study is judged."""
    bench = Bench.launch(database, make_spec(seeds=2, at=at))
    worker = bench.worker()
    for _ in range(6):
        finish(worker, claim_trial(worker), 0.5, 0.1, *[0.6] * 8)
    results = results_of(bench)
    for view in VIEWS.values():
        (rate,) = factors(results, view)
        assert set(rate.levels[0].means) == set(view)
    slope = factors(results, VIEWS["slope"])[0].levels[0].means
    value = slope["val_loss"]
    assert value is not None
    assert value.value == pytest.approx(0.1 if at == "best" else 0.6)
