"""Replicates that train on different divisions into training and validation."""

import re
from pathlib import Path

import pytest

from tests.spec.conftest import GRID, RATES, STUDY, Read
from tuner.errors import StudyFileError
from tuner.spec.identity import compare, fingerprint
from tuner.spec.load import load
from tuner.spec.parameters import Declarations, Parameter
from tuner.spec.study import Spec

REPLICATES = "[replicates]\nseeds = 5\nsplits = {}\n"


def divided(_objective: str, _folder: Path) -> Declarations:
    """Stand in for an objective with divisible data and models that read a file."""
    from tests.spec.conftest import DECLARATIONS

    seed = Parameter("split_seed", "int", 0, "seed of the train/validation split", low=0)
    weights = Parameter("weights", "text", "", "file to start from")
    return Declarations(
        parameters={**DECLARATIONS.parameters, "weights": weights},
        data={**DECLARATIONS.data, "split_seed": seed},
    )


def study(tmp_path: Path, splits: int, more: str = "") -> Spec:
    """Load a study of five seeds over this many divisions."""
    path = tmp_path / "small.toml"
    path.write_text(STUDY + GRID + RATES + REPLICATES.format(splits) + more)
    return load(path, (), divided)


def split_seeds(spec: Spec) -> list[object]:
    """Return the division that each of the five seeds trains on."""
    return [spec.job({"lr": 1e-3}, seed).data["split_seed"] for seed in range(5)]


def test_every_seed_has_its_division(tmp_path: Path) -> None:
    """Seeds cycle through the divisions, starting with the file's own."""
    assert split_seeds(study(tmp_path, 5)) == [0, 1, 2, 3, 4]
    assert split_seeds(study(tmp_path, 2)) == [0, 1, 0, 1, 0]
    assert split_seeds(study(tmp_path, 5, "[data]\nsplit_seed = 10\n")) == [10, 11, 12, 13, 14]


def test_one_division_is_the_file_s(tmp_path: Path) -> None:
    """Without splits every seed has the same images."""
    assert split_seeds(study(tmp_path, 1, "[data]\nsplit_seed = 7\n")) == [7] * 5


def test_another_number_of_divisions_is_another_study(tmp_path: Path) -> None:
    """Another number of divisions is another study; writing 1 is the same as leaving it out."""
    (tmp_path / "without").mkdir()
    path = tmp_path / "without" / "small.toml"
    path.write_text(STUDY + GRID + RATES + "[replicates]\nseeds = 5\n")
    plain = load(path, (), divided)
    assert fingerprint(study(tmp_path, 1)) == fingerprint(plain)
    difference = compare(plain, study(tmp_path, 5))
    assert [change.key for change in difference.changes] == ["replicates.splits"]
    assert not difference.extends


def test_a_stored_study_keeps_its_divisions(tmp_path: Path) -> None:
    """A worker with only the stored study divides as the file says."""
    spec = study(tmp_path, 5)
    assert split_seeds(Spec.from_json(spec.to_json())) == split_seeds(spec)


def test_more_divisions_than_seeds_are_a_fault(tmp_path: Path) -> None:
    """Divisions that no seed would reach are refused."""
    with pytest.raises(StudyFileError, match=re.escape("6 splits need as many seeds, got 5")):
        study(tmp_path, 6)


def test_a_division_chosen_twice_is_a_fault(tmp_path: Path) -> None:
    """The space and the seeds cannot both choose the division."""
    with pytest.raises(StudyFileError, match=r"varies in \[space\] already"):
        study(tmp_path, 5, '[space."data.split_seed"]\nvalues = [0, 1]\n')


def test_an_objective_that_cannot_divide_is_a_fault(read: Read) -> None:
    """splits is a fault for data that can be divided in only one way."""
    with pytest.raises(StudyFileError, match="has only one split"):
        read(STUDY + GRID + RATES + REPLICATES.format(5))


def test_a_file_of_weights_lies_beside_the_study(tmp_path: Path) -> None:
    """A relative path of weights starts at the study file's folder."""
    spec = study(tmp_path, 1, '[fixed]\nweights = "start.safetensors"\n')
    assert spec.job({}, 0).parameters["weights"] == str(tmp_path / "start.safetensors")
    assert study(tmp_path, 1).job({}, 0).parameters["weights"] == ""
