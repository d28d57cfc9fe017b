"""Trials that pause, trained for real: no bit and no epoch is lost or trained twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scenes import Scene
from tests.harness.processes import kill, trainers_of, until
from tests.store.specs import Bench
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.train.checkpoints.tree import Tree
from tuner.work.housekeeping import survey

RATES = [0.001, 0.01, 0.03, 0.1]
EPOCHS = 7
PROMOTE = {
    "allocator": "promote",
    "allocator_options": {"first": 1, "eta": 2, "finish": len(RATES)},
}


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Scene:
    """Set up the scene of one test."""
    return Scene(settings, database, tmp_path)


def launch(scene: Scene, name: str, search: dict[str, Any] | None = None) -> Bench:
    """Store a study of four learning rates."""
    return scene.launch(name, space={"lr": RATES}, fixed={"epochs": EPOCHS}, search=search or {})


def results(bench: Bench) -> tuple[dict[Any, Any], dict[Any, bytes]]:
    """Return curves and predictions by learning rate, without times."""
    rates = {row.trial_id: row.chosen["lr"] for row in bench.rows(t.trial)}
    curves = {
        (rates[row.trial_id], row.epoch): (row.train_loss, row.val_loss, row.val_acc)
        for row in bench.rows(t.epoch)
    }
    predictions = {
        (rates[row.trial_id], row.split, row.moment): bytes(row.log_probabilities)
        for row in bench.rows(t.prediction)
    }
    return curves, predictions


def test_pausing_changes_no_bit_and_trains_no_epoch_twice(scene: Scene) -> None:
    """Paused at every rung and trained to their end, trials have the same stored results."""
    paused = launch(scene, "paused", PROMOTE)
    assert scene.work("paused").state == "complete"
    assert scene.trained() == len(RATES) * EPOCHS
    pauses = [row for row in paused.rows(t.event) if row.kind == "trial paused"]
    assert len(pauses) == len(RATES) * len((1, 2, 4))
    whole = launch(scene, "whole")
    assert scene.work("whole").state == "complete"
    assert results(paused) == results(whole)


def test_a_lost_checkpoint_costs_epochs_and_no_result(scene: Scene) -> None:
    """Without checkpoints each stretch is trained from the start, with the same figures."""
    bench = launch(scene, "forgetful", PROMOTE)
    nowhere = replace(scene.settings, checkpoints="off")
    assert scene.work("forgetful", settings=nowhere).state == "complete"
    assert scene.trained() == len(RATES) * (1 + 2 + 4 + EPOCHS)
    assert len(bench.rows(t.epoch)) == len(RATES) * EPOCHS
    assert not [row for row in bench.rows(t.event) if row.kind == "retrained"]


def test_the_checkpoint_of_a_paused_trial_is_kept_whatever_the_limit(scene: Scene) -> None:
    """One trial is to be finished: the others keep only the checkpoint they resume from."""
    options = {**PROMOTE["allocator_options"], "finish": 1}  # type: ignore[dict-item]
    bench = launch(scene, "few", {**PROMOTE, "allocator_options": options})
    assert scene.work("few").state == "complete"
    promised = {row.checkpoint for row in bench.rows(t.lease) if row.state == "paused"}
    tree = Tree(str(scene.settings.home / "checkpoints"))
    assert promised
    assert tree.known(promised) == promised
    room = survey(tree, bench.database, limit=0)
    kept = {entry.key for entry in room.entries} - {entry.key for entry in room.removable}
    assert kept == promised


def test_keep_none_leaves_only_what_paused_trials_resume_from(scene: Scene) -> None:
    """A paused trial's checkpoint is removed when the trial has ended, whatever space is free."""
    options = {"first": 2, "eta": 2, "finish": 2}
    bench = scene.launch(
        "none",
        space={"lr": RATES[2::-1]},
        fixed={"epochs": 3},
        search={"allocator": "promote", "allocator_options": options},
        checkpoints={"keep": "none"},
    )
    assert scene.work("none").state == "complete"
    promised = {row.checkpoint for row in bench.rows(t.lease) if row.state == "paused"}
    assert promised
    tree = Tree(str(scene.settings.home / "checkpoints"))
    assert {entry.key for entry in tree.listing()} == promised


def test_kills_lose_no_stretch(scene: Scene) -> None:
    """After a kill in a stretch, decisions stand, and each epoch is stored once."""
    bench = launch(scene, "killed", PROMOTE)
    for stretches in (3, 7):
        worker = scene.start_worker("killed")
        until(lambda n=stretches: len(bench.rows(t.stretch)) >= n, "stretches")  # type: ignore[misc]
        kill(worker.pid, *trainers_of(worker.pid))
    before = {row.stretch_id: row.saw for row in bench.rows(t.stretch)}
    assert scene.work("killed").state == "complete"
    after = {row.stretch_id: row.saw for row in bench.rows(t.stretch)}
    assert before.items() <= after.items()
    assert len(after) == len(RATES) * 4
    assert len(bench.rows(t.epoch)) == len(RATES) * EPOCHS
    assert {row.state for row in bench.rows(t.outcome)} == {"COMPLETE"}
