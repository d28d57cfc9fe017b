"""An ensemble of seeds, saved as one network, predicts the mean of the stored predictions."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import tuner
from tests.winner.conftest import STUDY, Saved
from tests.winner.test_plain import predicted
from tuner.winner import document, kept

SEEDS = (
    STUDY.replace('name = "scans"', 'name = "seeds"')
    .replace("epochs = 3", "epochs = 2")
    .replace("image_size = 160", "image_size = 64")
    .replace("[space]", "[replicates]\nseeds = 3\n\n[space]")
)


@dataclass(frozen=True)
class SavedEnsemble:
    """The project, the folder, and the members' stored predictions on test."""

    saved: Saved
    folder: Path
    shares: dict[str, list[float]]
    """The mean probability of each class, by image."""


@pytest.fixture(scope="module")
def made(saved: Saved) -> SavedEnsemble:
    """Train a study with three seeds and save their ensemble, with a file of TorchScript."""
    project = saved.project
    (project.folder / "studies" / "seeds.toml").write_text(SEEDS)
    project.run("launch", "--study", "seeds", "--workers", "1", "--no-check")
    said = project.run(
        *("best", "seeds", "--ensemble", "--save", "ensemble", "--format", "torchscript")
    )
    assert "All 16 test predictions match the stored ones " in said
    rows = project.json(
        *("export", "--study", "seeds", "--predictions", "--best", "1", "--format", "json")
    )
    mine = [row for row in rows if row["at"] == "best" and row["split"] == "test"]
    shares = {
        name: np.mean(
            [[row["p_normal"], row["p_pneumonia"]] for row in mine if row["id"] == name], axis=0
        ).tolist()
        for name in {row["id"] for row in mine}
    }
    assert len(mine) == 3 * len(shares)
    return SavedEnsemble(saved, project.folder / "ensemble", shares)


def test_it_predicts_the_mean_of_its_members(made: SavedEnsemble) -> None:
    """`tuner predict`, `tuner.load` and TorchScript give the mean stored for three seeds."""
    project = made.saved.project
    body = project.json("predict", "ensemble", "--split", "test", "--json")
    assert body["stored"]["test"]["largest_difference"] < document.TOLERANCE
    assert (body["trial"], len(body["members"])) == (None, 3)
    for row in body["images"]:
        found = [row["p_normal"], row["p_pneumonia"]]
        assert found == pytest.approx(made.shares[row["id"]], abs=1e-5)
    with contextlib.chdir(project.folder):
        model = tuner.load("ensemble")
        files = sorted(made.saved.images.glob("test/*/*.tif"))[:3]
        frame = model.predict([str(file) for file in files])
    assert "ensemble of 3 seeds" in repr(model)
    for file, share in zip(files, frame.p_normal, strict=True):
        wanted = made.shares[file.relative_to(made.saved.images).as_posix()]
        assert share == pytest.approx(wanted[0], abs=1e-5)
    module = torch.jit.load(str(made.folder / "model.pt"))  # type: ignore[no-untyped-call]
    logs = module(torch.zeros(2, 1, 64, 64))
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(2))


def test_its_document_and_card_name_the_members(made: SavedEnsemble) -> None:
    """They have each member's trial, seed and epoch, the figures of each, and runnable PyTorch."""
    best = made.saved.project.json("best", "seeds", "--json")
    model = document.read(made.folder)
    seeds = {one["seed"]: one["trial"] for one in best["setting"]["seeds"]}
    assert {one.seed: one.trial for one in model.members} == seeds
    assert model.trial == best["trial"]
    card = (made.folder / document.CARD).read_text("utf-8")
    assert card.startswith("# seeds, ensemble of 3 seeds\n")
    for line in ("| test | ensemble |", "| test | seed 2 |", "| trial | seed | weights of epoch |"):
        assert line in card
    assert "Selected on validation images only" in card
    path = made.folder / document.PREDICTIONS
    split = kept.read(path.read_bytes(), path, 2).splits["test"]
    found = predicted((made.folder, made.saved.images / split.ids[5]))
    np.testing.assert_allclose(found[0], split.log_probabilities[5], rtol=1e-4, atol=1e-4)


def test_a_member_that_is_missing_is_refused(made: SavedEnsemble, tmp_path: Path) -> None:
    """A document with fewer members than weights is refused."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in document.FILES:
        (folder / name).write_bytes((made.folder / name).read_bytes())
    text = json.loads((folder / document.NAME).read_text())
    text["members"] = text["members"][:2]
    (folder / document.NAME).write_text(json.dumps(text))
    said = made.saved.project.run("predict", str(folder), "--split", "test", code=2)
    assert "The weights do not fit the network" in " ".join(said.split())


def test_what_is_no_ensemble_is_refused(made: SavedEnsemble) -> None:
    """One seed per setting, and --ensemble with a single seed or trial, are refused."""
    project = made.saved.project
    assert "one seed per setting" in project.run("best", "scans", "--ensemble", code=2)
    said = project.run("best", "seeds", "--ensemble", "--seed", "1", code=2)
    assert "cannot be combined with --trial or --seed" in said


def test_without_checkpoints_every_member_is_trained_again(
    made: SavedEnsemble, tmp_path: Path
) -> None:
    """The weights equal those from the checkpoints."""
    target = tmp_path / "again"
    made.saved.project.run(
        *("best", "seeds", "--ensemble", "--save", str(target)),
        environ={"TUNER_CHECKPOINTS": "off"},
    )
    model = document.read(target)
    assert all(one.origin.startswith("trained again") for one in model.members)
    assert model.weights_sha256 == document.read(made.folder).weights_sha256
