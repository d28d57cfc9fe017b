"""`tuner.load`: a saved network in this process."""

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tuner
from tests.winner.conftest import Saved
from tuner.errors import DataError, UserError


def test_files_are_predicted_as_by_the_command(saved: Saved) -> None:
    """A folder, or files of it, in two lines; equal to `tuner predict` except for last digits."""
    test = saved.images / "test"
    with contextlib.chdir(saved.project.folder):
        model = tuner.load("model")
        found = model.predict(test)
        first = model.predict(found.path[0])
    told = pd.DataFrame(saved.project.json("predict", "model", str(test), "--json")["images"])
    assert list(found.path) == list(told.path)
    assert list(found.predicted) == list(told.predicted)
    for name in model.classes:
        np.testing.assert_allclose(found[f"p_{name}"], told[f"p_{name}"], atol=1e-6)
    assert len(first) == 1
    assert first.probability[0] == pytest.approx(found.probability[0], abs=1e-6)
    assert "trial" in repr(model)


def test_arrays_are_predicted_as_the_files_they_come_from(saved: Saved) -> None:
    """One image or many, as an array or a tensor; the network takes the output of preprocess."""
    files = sorted((saved.images / "test").rglob("*.tif"))[:3]
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    with contextlib.chdir(saved.project.folder):
        model = tuner.load("model")
    by_file = model.predict([str(file) for file in files])
    by_array = model.predict(arrays)
    assert list(by_array.columns) == [name for name in by_file.columns if name != "path"]
    np.testing.assert_array_equal(by_array.probability, by_file.probability)
    assert len(model.predict(arrays[0])) == 1
    with torch.inference_mode():
        outputs = model.network(model.preprocess(arrays))
    assert outputs.shape[0] == 3
    shares = outputs.softmax(1) if outputs.shape[1] > 1 else outputs.sigmoid()
    np.testing.assert_allclose(shares[:, -1].numpy(), by_array[f"p_{model.classes[-1]}"], atol=1e-5)
    assert not model.network.training


def test_what_cannot_be_predicted_is_told(saved: Saved, tmp_path: Path) -> None:
    """A file that is no image, another depth and a folder without a model are refused."""
    torch.set_num_threads(2)
    with contextlib.chdir(saved.project.folder):
        model = tuner.load("model")
    assert torch.get_num_threads() == 2
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        model.predict(tmp_path / "broken.png")
    with pytest.raises(DataError, match="the study's images are uint16"):
        model.predict(np.zeros((4, 160, 160), np.uint8))
    with pytest.raises(UserError, match=r"holds no model\.json"):
        tuner.load(tmp_path)
