"""An ensemble as one file: TorchScript and ONNX give the network's own predictions."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from tuner.winner import exported
from tuner.winner.document import EXPORTS, Model
from tuner.winner.predictor import Averaged

NEEDS_ONNX = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in exported.ONNX_PACKAGES),
    reason="the extra onnx is not installed",
)


def member(outputs: int) -> nn.Module:
    """Return a small network with layers that behave differently in training."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(3 * 6 * 6, outputs),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # torch plans to replace the exporter of both formats
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("form", ["torchscript", pytest.param("onnx", marks=NEEDS_ONNX)])
def test_an_ensemble_is_written_as_one_file(
    form: exported.Form, outputs: int, tmp_path: Path
) -> None:
    """It returns the log of the members' mean probabilities, for batches of any size."""
    torch.manual_seed(0)
    model = cast("Model", SimpleNamespace(reading=SimpleNamespace(mean=[90.0], scale=[0.02])))
    whole = exported.Whole(Averaged([member(outputs) for _ in range(3)]), model).eval()
    write: Any = {"torchscript": exported._torchscript, "onnx": exported._onnx}[form]
    run = write(whole, torch.zeros(2, 1, 8, 8), tmp_path / EXPORTS[form])
    for size in (1, 5):
        pixels = torch.randint(0, 256, (size, 1, 8, 8)).to(torch.float32)
        with torch.inference_mode():
            wanted = whole(pixels).numpy()
        np.testing.assert_allclose(run(pixels), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.exp(run(pixels)).sum(axis=1), 1, rtol=1e-5)
