"""Deep images keep their information: windowed by the training split, and learnt from equally."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.train.sources.image_files import chest, deepen, write_folder, write_npy
from tuner.records import Job, Value
from tuner.train.objective import find
from tuner.train.sources.window import find_window
from tuner.train.workbench import Workbench

Pixels = NDArray[Any]

DEEP: dict[str, Callable[[Pixels], Pixels]] = {
    "uint16": deepen,
    "float32": lambda image: image.astype(np.float32) / 255,
    "float64": lambda image: image.astype(np.float64) * 3 - 500,
    "int16": lambda image: image.astype(np.int16) * 8 - 1000,
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_arrays_become_the_same_8_bits(kind: str, tmp_path: Path) -> None:
    """In any unit the windowed images differ from each other only by rounding."""
    plain = chest(tmp_path, source="npy", path=str(write_npy(tmp_path / "u8")))
    deep = chest(tmp_path, source="npy", path=str(write_npy(tmp_path / "deep", DEEP[kind])))
    assert deep.train.images.dtype == np.uint8
    assert deep.train.ids == plain.train.ids
    for ours, theirs in ((deep.train, plain.train), (deep.val, plain.val), (deep.test, plain.test)):
        assert ours is not None
        assert theirs is not None
        correlation = np.corrcoef(ours.images.reshape(-1), theirs.images.reshape(-1))[0, 1]
        assert correlation > 0.9995
    assert any("windowed to 8 bits" in note for note in deep.notes)
    assert not any("windowed" in note for note in plain.notes)


def test_limits_are_the_training_split_s(tmp_path: Path) -> None:
    """A brighter test set does not change the window; it is clipped by it."""
    path = write_npy(tmp_path / "n", deepen)
    for name in ("test_normal.npy", "test_pneumonia.npy"):
        np.save(path / name, np.load(path / name) + np.uint16(30000))
    shifted = chest(tmp_path, source="npy", path=str(path))
    plain = chest(tmp_path, source="npy", path=str(write_npy(tmp_path / "p", deepen)))
    assert shifted.train.images.tobytes() == plain.train.images.tobytes()
    assert shifted.test is not None
    assert (shifted.test.images == 255).all()


def test_sixteen_bit_files_are_windowed(tmp_path: Path) -> None:
    """16-bit PNG files give the same images as arrays of them."""
    files = chest(
        tmp_path / "c", source="folder", path=str(write_folder(tmp_path / "f", ".png", deepen))
    )
    arrays = chest(tmp_path / "c", source="npy", path=str(write_npy(tmp_path / "n", deepen)))
    assert files.test is not None
    assert arrays.test is not None
    # The windows are those of different divisions, so almost the same.
    difference = files.test.images.astype(int) - arrays.test.images.astype(int)
    assert np.abs(difference).max() <= 2


def test_an_image_of_one_value_has_a_window() -> None:
    """Constant images are windowed without a division by zero."""
    images = np.full((4, 8, 8), 700, dtype=np.uint16)
    window = find_window(images, np.arange(4))
    assert window is not None
    assert set(np.unique(window.apply(images))) <= {0, 255}


def accuracy(cache: Path, path: Path) -> float:
    """Train the CNN a few epochs on a folder of arrays and return its best accuracy."""
    declared = find("chest_xray", []).objective.declarations()
    parameters: dict[str, Value] = {n: p.default for n, p in declared.parameters.items()}
    parameters |= {"model": "cnn", "epochs": 4, "lr": 3e-3, "batch_size": 16}
    data: dict[str, Value] = {n: p.default for n, p in declared.data.items()}
    data |= {"source": "npy", "path": str(path)}
    bench = Workbench("cpu", 1, cache, [], lambda *_: None)
    run = bench.begin(Job("chest_xray", parameters, data, seed=0))
    return max(epoch.val_acc for epoch in run.epochs(lambda: None))


def test_a_cnn_learns_as_well_from_a_detector_s_values(tmp_path: Path) -> None:
    """Images from 0 to 4095 in uint16, and the same in uint8, are both learnt."""

    def faint(image: Pixels) -> Pixels:
        """Put an image into a small part of the range, where 8 of 16 bits would lose it."""
        return (image.astype(np.uint16) * 16 // 8 + 1000).astype(np.uint16)

    eight = accuracy(tmp_path / "c", write_npy(tmp_path / "u8"))
    deep = accuracy(tmp_path / "c", write_npy(tmp_path / "deep", deepen))
    low = accuracy(tmp_path / "c", write_npy(tmp_path / "faint", faint))
    assert eight >= 0.9
    assert deep >= eight - 0.05
    assert low >= eight - 0.05
