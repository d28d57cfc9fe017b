"""What only a GPU can show: recorded steps and packs train like single steps.

    make gpu

Skipped without a GPU. What can be tested without one is in test_graphs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.blobs import DATA, DECLARATIONS, untimed, write_blobs, write_objective
from tuner.records import Epoch, Job, Value
from tuner.train.abreast import Abreast
from tuner.train.run import Run
from tuner.train.workbench import Workbench

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

EPOCHS = 6
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"scheduler": "cosine", "lr": 1e-2},
    "onecycle": {"scheduler": "onecycle", "lr": 1e-2},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "focal": {"loss": "focal", "focal_gamma": 2.0, "class_weights": "balanced"},
    "smoothed": {"label_smoothing": 0.1},
    "augmented": {"augment": 0.5},
    "many steps": {"batch_size": 2},
}
NETWORKS = '''
"""Networks for a GPU: one that can be recorded, and some that cannot."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional

KIND = "{kind}"


class Network(nn.Module):
    def __init__(self, parameters, inputs, outputs):
        super().__init__()
        channels, height, width = inputs
        hidden = parameters["hidden"]
        self.first = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(hidden, outputs)
        self.steps = 0

    def forward(self, images):
        found = functional.relu(images + self.dropout(self.norm(self.first(images))))
        if KIND == "reads" and self.training and found.max().item() > 1e9:
            raise ValueError("too bright")
        if KIND == "counts" and self.training:
            self.steps += 1
            found = found * (1 + self.steps / 100)
        if KIND == "draws" and self.training:
            found = found * random.uniform(0.9, 1.1) * np.random.uniform(0.9, 1.1)
        if KIND == "synchronizes" and self.training:
            torch.cuda.synchronize()
        if KIND == "draws on the CPU" and self.training:
            found = found * torch.rand(1).to(found.device, non_blocking=True)
        return self.last(found.mean((2, 3)))


def build(parameters, inputs, outputs):
    return Network(parameters, inputs, outputs)
'''


def workbench(place: Path, kind: str = "", device: str = "cuda:0") -> Workbench:
    """Open a workbench on the blobs, or on a network of the given kind."""
    if not (place / "objectives").exists():
        if kind:
            folder = place / "objectives" / "blobs"
            write_objective(folder, DECLARATIONS, DATA, NETWORKS.replace("{kind}", kind))
        else:
            write_blobs(place)
    return Workbench(device, 1, place / "cache", [place / "objectives"], lambda *_: None)


def job(seed: int = 0, **chosen: Any) -> Job:
    """Return a job whose epoch has eight whole batches and a short one."""
    usual: dict[str, Value] = {"plain": True, "hidden": 8, "epochs": EPOCHS, "batch_size": 12}
    data: dict[str, Value] = {"train_images": 103, "classes": 2, "contrast": 40.0, "floats": False}
    return Job(
        "blobs", {**usual, "batch_norm": True, **chosen}, {**data, "each": 0}, seed, "val_loss"
    )


def trained(run: Run, *, recorded: bool = True) -> list[Epoch]:
    """Train a run to its end."""
    recording = run.training.recorded
    assert recording is not None
    if not recorded:
        recording.graph.obstacle = "steps are taken one by one"
        for forward in run._validation.recorded:
            forward.graph.obstacle = "as it comes"
    epochs = list(run.epochs(lambda: None))
    assert recorded is (not recording.graph.obstacle), recording.graph.obstacle
    assert bool(recording.graph._recordings) is recorded
    return epochs


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", ["", "convolves"])
def test_a_recorded_run_is_the_run_step_by_step(kind: str, setting: str, tmp_path: Path) -> None:
    """A recorded run equals the run step by step, bit for bit: same kernels, same draws."""
    bench = workbench(tmp_path, kind)
    one = job(**SETTINGS[setting])
    curves = [trained(bench.begin(one), recorded=recorded) for recorded in (True, False)]
    assert [untimed(epoch) for epoch in curves[0]] == [untimed(epoch) for epoch in curves[1]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_resumed_is_the_run_uninterrupted(precision: str, tmp_path: Path) -> None:
    """Whether its first steps are recorded or not."""
    bench = workbench(tmp_path, "convolves")
    one = job(precision=precision)
    whole = trained(bench.begin(one))
    part = bench.begin(one)
    for epoch in part.epochs(lambda: None):
        if epoch.epoch == 2:
            break
    resumed = bench.begin(one)
    resumed.restore(part.state())
    rest = list(resumed.epochs(lambda: None))
    assert [untimed(epoch) for epoch in rest] == [untimed(epoch) for epoch in whole[2:]]


@pytest.mark.parametrize("kind", ["reads", "counts", "draws", "draws on the CPU", "synchronizes"])
def test_what_a_replay_would_miss_is_trained_step_by_step(kind: str, tmp_path: Path) -> None:
    """A network that reads its values, counts its steps, or draws with Python's random."""
    run = workbench(tmp_path, kind).begin(job())
    curve = list(run.epochs(lambda: None))
    recording = run.training.recorded
    assert recording is not None
    assert recording.graph.obstacle
    assert len(curve) == EPOCHS
    if kind == "counts":
        assert run.training.learner.model.steps == EPOCHS * len(run.training.bounds)
    if kind == "synchronizes":
        # It was only noticed when recording failed; dropout's random numbers are unaffected.
        assert "could not record" in recording.graph.obstacle
        step_by_step = trained(workbench(tmp_path, kind).begin(job()), recorded=False)
        assert [untimed(epoch) for epoch in curve] == [untimed(epoch) for epoch in step_by_step]


def test_a_gpu_trains_what_a_cpu_does(tmp_path: Path) -> None:
    """Without dropout the first epoch's figures agree to rounding."""
    own = [workbench(tmp_path, "convolves", device) for device in ("cuda:0", "cpu")]
    one = job(epochs=1, lr=1e-4, precision="fp32")
    for bench in own:
        bench.begin(one)
    first, second = (next(iter(bench.begin(one).epochs(lambda: None))) for bench in own)
    assert first.val_loss == pytest.approx(second.val_loss, rel=1e-2)


def together(bench: Workbench, jobs: list[Job], sizes: list[int]) -> list[Run]:
    """Train runs in packs, with the number of members per epoch in `sizes`."""
    runs = [bench.begin(one) for one in jobs]
    abreast = Abreast()
    for run in runs:
        abreast.mark(run, 8)
        assert run.together, abreast.obstacle(run)
    abreast._pays = lambda *_: True  # type: ignore[method-assign]
    for size in sizes:
        for start in range(0, len(runs), size):
            for _ in abreast.epochs(runs[start : start + size], lambda: None):
                pass
    return runs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["", "convolves"])
def test_members_of_packs_train_as_alone(kind: str, precision: str, tmp_path: Path) -> None:
    """To rounding, in packs of one, two and four, joining and leaving, with equal draws."""
    bench = workbench(tmp_path, kind)
    if not kind and precision == "bf16":
        pytest.skip("one network in bfloat16 is enough")
    jobs = [
        job(seed, lr=10.0 ** -(2 + seed / 2), weight_decay=seed / 100, precision=precision)
        for seed in range(4)
    ]
    single = together(bench, jobs, [1] * EPOCHS)
    for sizes in ([4] * EPOCHS, [2, 4, 1, 2, 4, 4]):
        packed = together(bench, jobs, sizes)
        for one, other in zip(single, packed, strict=True):
            mine, theirs = ([epoch.train_loss for epoch in run.curve] for run in (one, other))
            share = 2e-3 if precision == "fp32" else 5e-2
            np.testing.assert_allclose(mine, theirs, rtol=share)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_recorded_pack_is_the_pack_step_by_step(setting: str, tmp_path: Path) -> None:
    """A recorded pack equals the pack step by step, bit for bit."""
    bench = workbench(tmp_path, "convolves")
    jobs = [job(seed, **SETTINGS[setting]) for seed in range(3)]
    recorded = together(bench, jobs, [3] * EPOCHS)
    by_steps = [bench.begin(one) for one in jobs]
    abreast = Abreast()
    for run in by_steps:
        abreast.mark(run, 8)
    abreast._pays = lambda *_: True  # type: ignore[method-assign]
    for _ in range(EPOCHS):
        for _ in abreast.epochs(by_steps, lambda: None):
            (ready,) = abreast._ready.values()
            assert ready.recorded is not None
            assert ready.recorded.graph.obstacle in ("", "by steps")
            ready.recorded.graph.obstacle = "by steps"
    for one, other in zip(recorded, by_steps, strict=True):
        mine, theirs = ([untimed(epoch) for epoch in run.curve] for run in (one, other))
        assert mine == theirs
