"""A trial resumed with different arithmetic: what remains is one complete training run."""

from typing import Any

import numpy as np
import pytest

from tests.faults.proof import kinds
from tests.faults.scenery import UNHARMED, Scene, Sizes
from tests.harness.processes import kill, trainers_of, until
from tests.store.specs import Bench
from tests.train.blobs import nothing
from tuner.records import Epoch
from tuner.store import tables as t
from tuner.train.workbench import Workbench

SIZES = Sizes(rates=(0.02,), epochs=60, images=1200, batch_size=600)
HIDDEN = "hidden = 1024"
"""Wide enough that two threads divide the work, and sum in another order than one."""


@pytest.fixture
def bench(scene: Scene) -> Bench:
    """Store a study of one trial with early stopping by patience."""
    path = scene.folder / "wide.toml"
    patience = "epochs = 60\npatience = 12"
    path.write_text(SIZES.text().replace("hidden = 4", HIDDEN).replace("epochs = 60", patience))
    return Bench.launch(scene.database, scene.read(path))


def test_another_number_of_threads_trains_one_network(scene: Scene, bench: Bench) -> None:
    """A killed trial resumed with two threads has only the new training's results.

    It may end earlier or later than what was stored; either way epochs, best epoch and predictions
    are those of an uninterrupted second training.
    """
    # Slow enough to be killed in time: patience would end it about a dozen epochs later.
    first = scene.start(pause="0.05")
    until(lambda: len(bench.rows(t.epoch)) >= 9, "nine epochs")
    kill(first.pid, *trainers_of(first.pid))
    stored = {row.epoch: row.val_loss for row in bench.rows(t.epoch)}
    second = scene.start(UNHARMED, "--threads", "2")
    assert second.wait(120) == 0, scene.said()
    assert kinds(bench)["retrained"] == 1
    assert kinds(bench)["attempt failed"] == 0
    (row,) = bench.rows(t.outcome)
    curve = sorted(bench.rows(t.epoch), key=lambda one: one.epoch)
    assert [one.epoch for one in curve] == list(range(1, row.last_epoch + 1))
    assert stored != {one.epoch: one.val_loss for one in curve if one.epoch in stored}
    wanted, results = trained(scene, bench, threads=2)
    assert [(one.train_loss, one.val_loss) for one in curve] == wanted
    kept = {
        (one.split, one.moment): bytes(one.log_probabilities) for one in bench.rows(t.prediction)
    }
    assert kept == results


def trained(
    scene: Scene, bench: Bench, threads: int
) -> tuple[list[tuple[float, float]], dict[Any, bytes]]:
    """Train the study's trial in this process, without any fault."""
    import torch

    before = torch.get_num_threads()
    workbench = Workbench("cpu", threads, scene.blobs.cache, [scene.blobs.folder], lambda *_: None)
    try:
        (row,) = bench.rows(t.trial)
        run = workbench.begin(bench.study.spec.job(row.chosen, row.seed))
        curve: list[Epoch] = list(run.epochs(nothing))
        found = {
            (one.split, one.at): np.ascontiguousarray(one.log_probabilities, "<f4").tobytes()
            for one in run.result().predictions
        }
    finally:
        torch.set_num_threads(before)
    return [(one.train_loss, one.val_loss) for one in curve], found
