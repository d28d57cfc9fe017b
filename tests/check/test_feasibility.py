"""A file's settings are checked against its data before a study exists."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.check.test_examination import clean
from tuner.check.examination import examine
from tuner.check.feasibility import check_data, check_paths, remarks
from tuner.check.findings import warnings
from tuner.check.quick import configurations, examine_data
from tuner.errors import StudyFileError
from tuner.questions import Checker
from tuner.spec.load import check
from tuner.spec.study import Spec
from tuner.train.objective import find

STUDY = """
[study]
name = "scans"
question = "Which?"
objective = "chest_xray"
[budget]
trials = "grid"
"""


def spec_of(text: str, folder: Path, objective: str = "chest_xray") -> Spec:
    """Read a study of a shipped objective."""

    def declared(objective: str, _folder: Path):  # type: ignore[no-untyped-def]
        return find(objective, []).objective.declarations()

    study = STUDY.replace("chest_xray", objective)
    return check(tomllib.loads(study + text), (), declared, folder / "scans.toml")


def contents(images: int, *classes: str) -> dict[str, dict[str, object]]:
    """Return the contents of a training split as an examination reports them."""
    return {"train": {"images": images, "classes": dict.fromkeys(classes, 1)}}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[space]\nlr = [1e-3, 1e-2]\n[fixed]\nloss = "bce"', "fixed.loss"),
        ('[space]\nloss = ["ce", "bce"]', "space.loss"),
    ],
)
def test_bce_with_three_classes_is_a_fault_of_the_file(text: str, key: str, tmp_path: Path) -> None:
    """BCE with three classes is a fault that names the key and the classes; with two it is none."""
    spec = spec_of(text, tmp_path)
    with pytest.raises(StudyFileError) as raised:
        check_data(spec, contents(30, "covid", "normal", "pneumonia"))
    assert f"{key}: 'bce' has one output" in str(raised.value)
    assert "3 (covid, normal, pneumonia)" in str(raised.value)
    check_data(spec, contents(30, "normal", "pneumonia"))


def test_a_batch_larger_than_the_training_set_is_remarked(tmp_path: Path) -> None:
    """A batch larger than the training set is remarked on, for the largest size in the file."""
    for text in (
        "[space]\nbatch_size = [16, 64]",
        "[space]\nlr = [1e-3, 1e-2]\n[fixed]\nbatch_size = 64",
    ):
        spec = spec_of(text, tmp_path)
        (said,) = remarks(spec, contents(40, "a", "b"))
        assert said.startswith("batch_size = 64 is more than the 40 training images")
        assert not list(remarks(spec, contents(64, "a", "b")))


def test_paths_of_a_file_must_be_there(tmp_path: Path) -> None:
    """Data and starting weights are resolved from the study file; all missing ones are listed."""
    text = (
        '[space]\n"data.path" = ["here", "gone"]\n'
        '[fixed]\nmodel = "resnet18"\nweights = "w.safetensors"\n[data]\nsource = "folder"\n'
    )
    (tmp_path / "here").mkdir()
    with pytest.raises(StudyFileError) as raised:
        check_paths(spec_of(text, tmp_path), "scans.toml")
    told = {fault.key: fault.message for fault in raised.value.faults}
    assert told == {
        "space.data.path": f"there is no file or folder {tmp_path / 'gone'}",
        "fixed.weights": f"there is no file or folder {tmp_path / 'w.safetensors'}",
    }
    with pytest.raises(StudyFileError, match=r"data\.path: source = 'npz' needs the path"):
        check_paths(spec_of('[space]\nlr = [1, 2]\n[data]\nsource = "npz"', tmp_path), "s")
    check_paths(spec_of("[space]\nlr = [1, 2]", tmp_path), "s")


def test_a_test_set_of_one_class_is_told(tmp_path: Path) -> None:
    """A test set of one class is reported, without a second remark on uneven shares."""
    data = clean(tmp_path)
    assert data.test is not None
    only = data.test.labels == 0
    test = replace(
        data.test,
        images=data.test.images[only],
        labels=data.test.labels[only],
        ids=tuple(name for name, taken in zip(data.test.ids, only, strict=True) if taken),
    )
    found = " ".join(warnings(examine(replace(data, test=test), {}, quick=True)))
    assert "all 8 test images are of class normal: test accuracy only measures how often" in found
    assert "of the training images but" not in found


def test_a_look_at_real_data_finds_the_fault(tmp_path: Path) -> None:
    """BCE on ten digits is refused by a launch's examination before anything is stored."""
    text = '[space]\nlr = [1e-3, 1e-2]\n[fixed]\nloss = "bce"\nbatch_size = 4096'
    spec = spec_of(text, tmp_path, "digits")
    checker = Checker(tmp_path, (), lambda *_: None)
    with pytest.raises(StudyFileError, match=r"fixed\.loss: 'bce' .* the data have 10 \(0, 1, 2"):
        examine_data(spec, configurations(spec)[0], checker, quick=True)
    trained = spec_of(text.replace("bce", "ce"), tmp_path, "digits")
    found = examine_data(trained, configurations(trained)[0], checker, quick=True)
    assert any("batch_size = 4096 is more than the 1" in said for said in found.warnings)
