"""A saved network without tuner: the code in its card, and the network as one file."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.winner.conftest import STUDY as SCANS
from tests.winner.conftest import Saved
from tuner.train.networks.models import build
from tuner.winner import kept
from tuner.winner.document import PREDICTIONS, read
from tuner.winner.exported import ONNX_PACKAGES
from tuner.winner.plain import network_lines

WITHOUT_TUNER = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tuner", "objectives"):
            raise ImportError(name)
sys.meta_path.insert(0, Refusing())
"""
ANN = {"model": "ann", "depth": 2, "width": 8, "dropout": 0.3, "batch_norm": True}
CNN = {"model": "cnn_gap", "pool_kernel": 2}


def card_code(folder: Path) -> str:
    """Return the code in the card."""
    found = re.search(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)
    assert found is not None
    return found[1]


def predicted(*cases: tuple[Path, Path]) -> list[list[float]]:
    """Run the code of folders' cards, each on an image, in a process without tuner."""
    runs = []
    for folder, image in cases:
        code = card_code(folder).replace("print(dict(", "print(list(").replace("logs.exp()", "logs")
        runs.append((str(folder), re.sub(r'"scan\.\w+"', repr(str(image)), code)))
    each = f"import os\nfor folder, code in {runs!r}: os.chdir(folder); exec(code, {{}})"
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", WITHOUT_TUNER + each],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values = [float(value) for value in re.findall(r", (-?[\d.e-]+)\)", done.stdout)]
    count = len(values) // len(cases)
    return [values[at * count : (at + 1) * count] for at in range(len(cases))]


@pytest.mark.processes
def test_the_cards_lines_predict_what_the_study_stored(saved: Saved) -> None:
    """16-bit TIFF files are read, resized, windowed and standardised by a few lines of PyTorch."""
    model = read(saved.folder)
    path = saved.folder / PREDICTIONS
    split = kept.read(path.read_bytes(), path, len(model.classes)).splits["test"]
    places = [0, 7, 15]
    found = predicted(*((saved.folder, saved.images / split.ids[place]) for place in places))
    np.testing.assert_allclose(found, split.log_probabilities[places], rtol=1e-4, atol=1e-4)
    assert len(card_code(saved.folder).splitlines()) < 35


@pytest.mark.processes
def test_the_lines_say_how_images_come_to_their_size(saved: Saved, tmp_path: Path) -> None:
    """Cropping, padding and another size are those of the study; bce has one output."""
    cases, stored = [], []
    for number, keys in enumerate(("fit = 'crop'", "fit = 'pad'", "image_size = 96")):
        text = SCANS.replace('name = "scans"', 'name = "other"').replace("epochs = 3", "epochs = 1")
        text = text.replace("lr = [1e-3, 1e-2]", "lr = [1e-3]").replace("image_size = 160", keys)
        text = text.replace('model = "cnn"', 'model = "ann"\nloss = "bce"')
        (saved.project.folder / "studies" / "other.toml").write_text(text)
        saved.project.run("launch", "--study", "other", "--workers", "1", "--no-check")
        folder = tmp_path / str(number)
        saved.project.run("best", "other", "--save", str(folder))
        saved.project.run("delete", "other", "--yes")
        path = folder / PREDICTIONS
        split = kept.read(path.read_bytes(), path, len(read(folder).classes)).splits["test"]
        cases.append((folder, saved.images / split.ids[3]))
        stored.append(split.log_probabilities[3])
    np.testing.assert_allclose(predicted(*cases), stored, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "parameters",
    [
        ANN,
        {**ANN, "batch_norm": False},
        CNN,
        {**CNN, "model": "cnn"},
        {"model": "resnet18"},
        {"model": "efficientnet_b0"},
        {"model": "densenet121"},
    ],
    ids=lambda parameters: str(parameters["model"]),
)
def test_every_network_that_comes_with_tuner_has_lines(
    parameters: dict[str, str | int | float], channels: int
) -> None:
    """The code builds a network that takes the weights and gives the same outputs."""
    network = build(parameters, (channels, 32, 32), 2).eval()
    lines = network_lines(network, parameters)
    assert lines is not None
    names: dict[str, nn.Module] = {}
    # Without its own weights, which must not take part in the comparison.
    with torch.device("meta"):
        exec("import torchvision\nfrom torch import nn\n" + "\n".join(lines), names)
    again = names["network"].eval()
    again.load_state_dict(network.state_dict(), assign=True)
    images = torch.randn(3, channels, 32, 32)
    torch.testing.assert_close(again(images), network(images))


def test_a_network_of_ones_own_has_none() -> None:
    """A user's class, even inside a Sequential, is not in torch."""

    class Own(nn.Flatten):
        pass

    assert network_lines(nn.Sequential(Own(), nn.Linear(4, 2)), {}) is None
    assert network_lines(Own(), {"model": "resnet18"}) is None


@pytest.mark.processes
def test_torchscript_is_written_and_checked(saved: Saved, tmp_path: Path) -> None:
    """One file goes from pixels to log-probabilities; --overwrite replaces a folder with one."""
    target = tmp_path / "model"
    said = saved.project.run("best", "scans", "--save", str(target), "--format", "torchscript")
    assert "model.pt maps pixels to log-probabilities" in " ".join(said.split())
    module = torch.jit.load(str(target / "model.pt"))  # type: ignore[no-untyped-call]
    logs = module(torch.zeros(4, 1, 160, 160))
    assert logs.shape == (4, 2)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(4))
    saved.project.run("best", "scans", "--save", str(target), "--overwrite")
    assert not (target / "model.pt").exists()
    assert json.loads((target / "model.json").read_text())["format"] == 1
    assert "goes with --save" in saved.project.run(
        "best", "scans", "--format", "torchscript", code=2
    )


@pytest.mark.processes
def test_onnx_is_written_or_said_what_is_missing(saved: Saved, tmp_path: Path) -> None:
    """Missing packages are reported before any training, with the command that installs them."""
    installed = all(importlib.util.find_spec(name) for name in ONNX_PACKAGES)
    ask = ("best", "scans", "--save", str(tmp_path / "model"), "--format", "onnx")
    said = saved.project.run(*ask, code=0 if installed else 2)
    assert (tmp_path / "model" / "model.onnx").is_file() is installed
    assert ("pip install onnx onnxscript onnxruntime" in said) is not installed
