"""The contract of every shipped objective: declarations, data and models that fit together."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tuner.errors import DataError
from tuner.records import Job, Value
from tuner.spec.parameters import SHARED, Parameter
from tuner.train.objective import Data, FoundObjective, find
from tuner.train.places import shipped_folder
from tuner.train.workbench import Workbench

SMALL: Mapping[str, Mapping[str, Value]] = {
    "chest_xray": {
        "image_size": 32,
        "train_images": 24,
        "val_images": 12,
        "test_images": 12,
    }
}
"""[data] keys that make an objective's data quick to prepare."""

NAMES = sorted(init.parent.name for init in shipped_folder().glob("*/__init__.py"))


def nothing(*_: object) -> None:
    """Stand in for progress and `alive`."""


@pytest.fixture(params=NAMES)
def found(request: pytest.FixtureRequest) -> FoundObjective:
    """Return each shipped objective in turn."""
    return find(str(request.param), [])


def defaults(declared: Mapping[str, Parameter]) -> dict[str, Value]:
    """Return every declared parameter with its default."""
    return {name: parameter.default for name, parameter in declared.items()}


def small_data(found: FoundObjective) -> dict[str, Value]:
    """Return an objective's data keys for small data."""
    return {**defaults(found.objective.declarations().data), **SMALL.get(found.name, {})}


def load(found: FoundObjective, cache: Path) -> Data:
    """Load an objective's small data."""
    return found.load_data(small_data(found), cache, nothing)


def test_objectives_are_shipped() -> None:
    """Objectives are found, so that the tests below check something."""
    assert {"chest_xray", "digits"} <= set(NAMES)


def test_declarations_are_whole(found: FoundObjective) -> None:
    """Defaults are admissible, descriptions exist, and the trainer's own names are not used."""
    declared = found.objective.declarations()
    for parameter in (*declared.parameters.values(), *declared.data.values()):
        assert parameter.fault(parameter.default) is None, parameter.name
        assert parameter.meaning
    assert not {parameter.name for parameter in found.objective.parameters} & set(SHARED)


def test_declarations_load_without_torch(found: FoundObjective) -> None:
    """Declarations can be loaded without torch, as the command line does."""
    code = (
        f"import sys; from tuner.train.objective import find; find({found.name!r}, []);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_are_a_function_of_their_keys(found: FoundObjective, tmp_path: Path) -> None:
    """Drawn again, and read back from the cache, the data are the same in every byte."""
    first = load(found, tmp_path / "a")
    for again in (load(found, tmp_path / "a"), load(found, tmp_path / "b")):
        assert again.fingerprint == first.fingerprint
        assert again.classes == first.classes
        assert again.train.images.tobytes() == first.train.images.tobytes()
        assert again.val.labels.tobytes() == first.val.labels.tobytes()
        assert again.val.ids == first.val.ids


def test_splits_share_no_example(found: FoundObjective, tmp_path: Path) -> None:
    """No id is in two splits or twice in one."""
    data = load(found, tmp_path)
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    ids = [name for split in splits for name in split.ids]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_models_give_the_outputs_asked_for(found: FoundObjective, outputs: int) -> None:
    """Every model takes one or three channels, unequal sides and any number of outputs."""
    declared = found.objective.declarations().parameters
    kinds = declared["model"].choices if "model" in declared else ("",)
    assert kinds
    for kind in kinds:
        for inputs in ((1, 32, 32), (3, 40, 36)):
            model = found.build_model({**defaults(declared), "model": kind}, inputs, outputs)
            assert model(torch.zeros(4, *inputs)).shape == (4, outputs)


def test_an_objective_trains_from_any_folder(found: FoundObjective, tmp_path: Path) -> None:
    """Copied elsewhere, as a user would do to change it, it trains an epoch and has a result."""
    shutil.copytree(found.folder, tmp_path / "mine" / found.name)
    workbench = Workbench("cpu", 1, tmp_path / "cache", [tmp_path / "mine"], nothing)
    parameters = {**defaults(found.objective.declarations().parameters), "epochs": 1}
    run = workbench.begin(Job(found.name, parameters, small_data(found), seed=0))
    assert len(list(run.epochs(nothing))) == 1
    assert run.result().best.epoch == 1


def test_the_reports_network_has_the_reports_layers() -> None:
    """Report C's network of "16 layers" at 256×256, counted as modules and by its weights."""
    found = find("chest_xray", [])
    model = found.build_model(defaults(found.objective.declarations().parameters), (1, 256, 256), 1)
    kinds = [type(module).__name__ for module in model.children()]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 3, "Linear"]
    hidden = (65536 * 64 + 64) + 2 * (64 * 64 + 64) + 3 * 2 * 64
    assert sum(weight.numel() for weight in model.parameters()) == hidden + 64 + 1


def test_depth_width_and_normalisation_are_the_parameters() -> None:
    """Depth counts hidden blocks; batch_norm = false leaves normalisation out."""
    found = find("chest_xray", [])
    parameters = defaults(found.objective.declarations().parameters)
    chosen = {**parameters, "depth": 5, "width": 7, "batch_norm": False, "dropout": 0.0}
    model = found.build_model(chosen, (1, 8, 8), 2)
    kinds = [type(module).__name__ for module in model.children()]
    assert kinds == ["Flatten", *["Linear", "ReLU", "Dropout"] * 5, "Linear"]
    shapes = [tuple(weight.shape) for weight in model.parameters() if weight.ndim == 2]
    assert shapes == [(7, 64), (7, 7), (7, 7), (7, 7), (7, 7), (2, 7)]


def test_digits_are_the_same_images_in_every_study(tmp_path: Path) -> None:
    """No key changes the test set, and every split has all ten classes of the 1,797 images."""
    found = find("digits", [])
    data = [
        found.load_data({**small_data(found), **keys}, tmp_path, nothing)
        for keys in ({}, {"split_seed": 1}, {"folds": 5, "split_seed": 2})
    ]
    assert data[0].test is not None
    tested = data[0].test.ids
    for one in data:
        assert one.test is not None
        splits = (one.train, one.val, one.test)
        assert sum(len(split.ids) for split in splits) == 1797
        assert one.test.ids == tested
        for split in splits:
            counts = np.bincount(split.labels, minlength=10)
            assert counts.min() / counts.max() > 0.9
    assert len({one.fingerprint for one in data}) == 3
    assert len({one.val.ids for one in data}) == 3


def test_digits_keep_their_grey_values(tmp_path: Path) -> None:
    """scikit-learn's values from 0 to 16 become 0 to 255, under the image's own number."""
    from sklearn.datasets import load_digits

    found = find("digits", [])
    data = load(found, tmp_path)
    known = load_digits()
    for split in (data.train, data.val, data.test):
        assert split is not None
        places = [int(name.removeprefix("digit-")) - 1 for name in split.ids]
        assert np.abs(split.images / 255 * 16 - known.images[places]).max() < 0.04
        assert np.array_equal(split.labels, known.target[places])


def test_digits_without_scikit_learn_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without scikit-learn the error has the command that installs it."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'tuner\[digits\]'"):
        load(find("digits", []), tmp_path)


def test_digits_are_learnt(tmp_path: Path) -> None:
    """A few epochs of either network classify nine of ten unseen digits correctly."""
    found = find("digits", [])
    declared = found.objective.declarations()
    workbench = Workbench("cpu", 1, tmp_path, [], nothing)
    for kind, epochs in (("ann", 8), ("small_cnn", 4)):
        parameters = {**defaults(declared.parameters), "model": kind, "epochs": epochs, "lr": 3e-3}
        run = workbench.begin(Job("digits", parameters, small_data(found), seed=0))
        list(run.epochs(nothing))
        best = run.result().best
        assert best.test_acc is not None
        assert best.test_acc > 0.9
