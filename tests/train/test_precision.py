"""Precision and memory format: the choice, its reason, and what stays float32."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.train.blobs import nothing
from tuner.errors import UserError
from tuner.records import Job, Value
from tuner.train import precision
from tuner.train.objective import find
from tuner.train.precision import choose_arithmetic, supports_bf16
from tuner.train.workbench import Workbench

CPU = torch.device("cpu")
DENSE = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
CONVOLVING = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())

needs_bf16 = pytest.mark.skipif(
    not supports_bf16(CPU), reason="this CPU has no bfloat16 arithmetic"
)


def capable(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    """Pretend that every device has bfloat16, or none."""
    monkeypatch.setattr(precision, "supports_bf16", lambda _device: able)


@pytest.mark.parametrize(
    ("asked", "able", "model", "chosen", "last", "words"),
    [
        ("auto", True, CONVOLVING, "bf16", True, "fraction of the time"),
        ("auto", True, DENSE, "fp32", False, "gain nothing"),
        ("auto", False, CONVOLVING, "fp32", True, "no bfloat16"),
        ("fp32", True, CONVOLVING, "fp32", True, "as the study asks"),
        ("bf16", True, DENSE, "bf16", False, "as the study asks"),
    ],
)
def test_a_choice_comes_with_its_reason(
    asked: str,
    able: bool,
    model: nn.Module,
    chosen: str,
    last: bool,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """auto takes bf16 if it is available and pays off; the note has the choice and the reason."""
    capable(monkeypatch, able)
    found = choose_arithmetic(asked, CPU, model)
    assert (found.precision, found.channels_last) == (chosen, last)
    assert words in found.note()
    assert found.note().startswith(chosen)


def test_bf16_that_is_not_to_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that asks for bf16 does not silently get another precision."""
    capable(monkeypatch, able=False)
    with pytest.raises(UserError, match="no bfloat16 arithmetic; use precision = 'fp32'"):
        choose_arithmetic("bf16", CPU, CONVOLVING)


def job(**parameters: Value) -> Job:
    """Return a short job of the chest X-ray objective's CNN."""
    declared = find("chest_xray", []).objective.declarations()
    chosen = {name: one.default for name, one in declared.parameters.items()}
    chosen |= {"model": "cnn", "epochs": 2, **parameters}
    data = {name: one.default for name, one in declared.data.items()}
    data |= {"image_size": 32, "train_images": 24, "val_images": 8, "test_images": 8}
    return Job("chest_xray", chosen, data, seed=0)


def bench(cache: Path) -> Workbench:
    """Return a workbench on the CPU."""
    return Workbench("cpu", 1, cache, [], nothing_done)


def nothing_done(*_: object) -> None:
    """Stand in for progress."""


@needs_bf16
def test_weights_and_memory_stay_float32(tmp_path: Path) -> None:
    """bf16 is only for a step's products: weights, Adam's moments and figures are float32."""
    run = bench(tmp_path).begin(job(precision="bf16"))
    list(run.epochs(nothing))
    state = run.state()
    kinds = {value.dtype for value in state.weights.values()}
    kinds |= {held.dtype for held in state.optimizer.values()}
    assert kinds == {torch.float32}
    assert run.setup.notes["precision"].startswith("bf16, channels last")


@needs_bf16
def test_precisions_differ_and_do_not_share_checkpoints(tmp_path: Path) -> None:
    """Their figures differ slightly, so their paths differ from the first epoch on."""
    workbench = bench(tmp_path)
    jobs = [job(precision=name) for name in ("fp32", "bf16")]
    losses = []
    for one in jobs:
        run = workbench.begin(one)
        losses.append([epoch.train_loss for epoch in run.epochs(nothing)])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert set(workbench.path(jobs[0])).isdisjoint(workbench.path(jobs[1]))


def test_restored_memory_lies_as_the_weights_lie(tmp_path: Path) -> None:
    """Files have no memory format; after a resume Adam's moments are channels last again."""
    workbench = bench(tmp_path)
    trained, resumed = workbench.begin(job()), workbench.begin(job())
    next(trained.epochs(nothing))
    state = trained.state()
    plain = {name: value.contiguous().clone() for name, value in state.optimizer.items()}
    resumed.restore(replace(state, optimizer=plain))
    held = [value for value in resumed.state().optimizer.values() if value.shape == (32, 32, 3, 3)]
    assert len(held) == 4  # Two kernels of this shape, each with a mean and a square.
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in held)
