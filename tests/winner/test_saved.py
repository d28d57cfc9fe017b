"""A saved network predicts what its study stored, to rounding, and new images as well."""

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.sources.damaged import damaged, whole_files
from tests.train.sources.image_files import deepen, draw, save
from tests.winner.conftest import Saved
from tuner.answers.winner import winner
from tuner.errors import DataError, ObjectiveError, UserError
from tuner.results import Results
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store.checkpoints import checkpoint_place, labels
from tuner.store.database import Database
from tuner.winner import document, saving
from tuner.winner.prediction import Opened, open_saved, predict_files, predict_split
from tuner.winner.saving import Workspace, order_of
from tuner.winner.training import Order, fulfil

Stored = dict[str, list[float]]


def quiet(_what: str, _done: int, _total: int) -> None:
    """Ignore progress."""


@pytest.fixture(scope="module")
def opened(saved: Saved) -> Opened:
    """Open the saved folder in this process."""
    return open_saved(saved.folder, [], "cpu")


@pytest.fixture(scope="module")
def stored(saved: Saved) -> Stored:
    """Return the stored predictions of the winner, from its export, by image id."""
    out = saved.project.json(
        *("export", "--study", "scans", "--predictions", "--best", "1", "--format", "json")
    )
    return {row["id"]: [row["p_normal"], row["p_pneumonia"]] for row in out if row["at"] == "best"}


@pytest.fixture
def copy(saved: Saved, tmp_path: Path) -> Path:
    """Yield a copy of the saved folder that may be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(saved.folder, folder)
    return folder


def shares(body: dict[str, Any]) -> Stored:
    """Return the predictions by name."""
    logs = np.exp(np.array(body["logs"], np.float64)).tolist()
    return dict(zip(body["names"], logs, strict=True))


def test_the_folder_holds_what_it_says(saved: Saved) -> None:
    """There are four files; the weights come from a checkpoint, and predict what was stored."""
    assert sorted(one.name for one in saved.folder.iterdir()) == sorted(document.FILES)
    model = document.read(saved.folder)
    assert model.origin == "the trial's last checkpoint"
    assert {name: (one.images, one.matches) for name, one in model.agreement.items()} == {
        "val": (8, True),
        "test": (16, True),
    }
    best = saved.project.json("table", "scans", "--best", "1", "--json")["best"][0]
    assert (model.trial, model.parameters["lr"]) == (best["trial"], best["lr"])
    assert model.reading.window is not None
    assert (model.reading.kind, model.reading.files) == ("16-bit", "alike")
    assert model.arithmetic.evaluation_batch == 5
    assert set(load_file(saved.folder / document.WEIGHTS)) > {"0.weight", "0.bias"}
    assert not [one for one in saved.folder.parent.iterdir() if one.name.startswith(".model")]


def test_the_card_has_the_figures(saved: Saved) -> None:
    """The card has the accuracies and intervals of `tuner show`, and states its limits."""
    card = (saved.folder / document.CARD).read_text("utf-8")
    model = document.read(saved.folder)
    shown = saved.project.json("show", "scans", str(model.trial), "--json")
    for split in ("val", "test"):
        found = shown["splits"][split]["accuracy"]
        value, low, high = (100 * found[name] for name in ("value", "low", "high"))
        assert f"{value:.1f}% ({low:.1f} to {high:.1f})" in card
    for words in ("Selected on validation images only", "sensitivity", "not a medical device"):
        assert words in card
    assert "All 16 test predictions match the stored ones " in card
    assert "Which rate?" in card


def test_the_test_split_is_predicted_as_stored(saved: Saved, stored: Stored) -> None:
    """`--split test` writes the numbers and columns of `tuner export --predictions`."""
    printed = saved.project.run("predict", "model", "--split", "test", "-o", "test.csv")
    assert "All 16 test predictions match the stored ones " in printed
    with (saved.project.folder / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        found = [float(row["p_normal"]), float(row["p_pneumonia"])]
        assert found == pytest.approx(stored[row["id"]], abs=1e-6)
        assert row["split"] == "test"
        assert (row["predicted"] == row["label"]) == (row["right"] == "true")


def test_predictions_replace_no_work_of_somebodys(saved: Saved) -> None:
    """Earlier predictions are replaced with a message; a file with other columns is kept."""
    file = saved.project.folder / "again.csv"
    ask = ("predict", "model", "--split", "val", "-o", "again.csv")
    assert "replaced" not in saved.project.run(*ask)
    assert "again.csv (replaced)" in saved.project.run(*ask)
    file.write_text("id,what I saw\n")
    assert "again.csv exists already" in saved.project.run(*ask, code=2)
    assert file.read_text() == "id,what I saw\n"


def test_files_are_predicted_as_stored_in_any_company(
    saved: Saved, opened: Opened, stored: Stored
) -> None:
    """Shuffled, a few, one by one, twice or renamed: an image's numbers are the stored ones."""
    paths = sorted((saved.images / "test").rglob("*.tif"))
    order = random.Random(1).sample(paths, len(paths))
    lists = [order, order[:3], *[[one] for one in paths], [paths[4], paths[4]]]
    for given in lists:
        body = predict_files(opened, [str(one) for one in given], quiet)
        assert body["names"] == [str(one) for one in given]
        assert set(body["known"]) == {"test"}
        for name, found in shares(body).items():
            wanted = stored[Path(name).relative_to(saved.images).as_posix()]
            assert found == pytest.approx(wanted, abs=1e-6)
        assert body["agreement"]["test"]["images"] == len(given)
        assert body["agreement"]["test"]["largest_difference"] < document.TOLERANCE
    other = shutil.copy(paths[7], saved.project.folder / "renamed.tif")
    body = predict_files(opened, [str(other)], quiet)
    wanted = stored[paths[7].relative_to(saved.images).as_posix()]
    assert shares(body)[str(other)] == pytest.approx(wanted, abs=1e-6)


def test_new_images_do_not_depend_on_their_company(opened: Opened, tmp_path: Path) -> None:
    """A new image has the same numbers, to rounding, alone and anywhere among others."""
    new = [str(save(tmp_path / f"{n}.tif", deepen(draw("new", n % 2, n)))) for n in range(7)]
    alone: Stored = {}
    for one in new:
        alone |= shares(predict_files(opened, [one], quiet))
    for order in (new, new[::-1]):
        found = shares(predict_files(opened, order, quiet))
        assert {name: pytest.approx(one, abs=1e-6) for name, one in alone.items()} == found
    assert predict_files(opened, new, quiet)["known"] == [""] * 7


def test_the_command_names_what_it_left_out(saved: Saved, tmp_path: Path) -> None:
    """A file that is no image, or of another depth, is named; the others are written; exit 1."""
    folder = tmp_path / "mixed"
    save(folder / "good.tif", deepen(draw("new", 1, 50)))
    save(folder / "=cmd.tif", deepen(draw("new", 1, 51)))
    save(folder / "shallow.png", draw("new", 1, 52))
    (folder / "torn.tif").write_bytes(b"II*\0 nothing")
    (folder / "notes.txt").write_text("no image by its name: not looked at")
    trained = saved.images / "train" / "normal" / "000.tif"
    everything = [str(folder), str(trained), str(tmp_path / "absent.png")]
    code, out = _run(saved, tmp_path, everything)
    assert code == 1
    for name, why in (
        ("shallow.png", "it is 8-bit, and the study's images are 16-bit"),
        ("torn.tif", "Skipped "),
        ("absent.png", "there is no such file"),
    ):
        assert any(name in line and why in line for line in out.splitlines()), out
    assert "notes.txt" not in out
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    val_or_train = {row["path"]: row["known"] for row in rows}
    assert len(rows) == 3
    assert val_or_train[str(folder / "good.tif")] == ""
    known = val_or_train[str(trained)]
    assert known in ("train", "val")
    assert ("used for training" in out) == (known == "train")
    assert all(row["path"].startswith(("/", "'=")) for row in rows)


def _run(saved: Saved, tmp_path: Path, images: list[str]) -> tuple[int | None, str]:
    process = saved.project.start("predict", "model", *images, "-o", str(tmp_path / "out.csv"))
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def test_a_formula_is_only_a_text(saved: Saved, tmp_path: Path) -> None:
    """A relative path that begins like a formula is escaped for spreadsheets."""
    save(saved.project.folder / "=1+1.tif", deepen(draw("new", 1, 60)))
    out = saved.project.run("predict", "model", "=1+1.tif")
    assert "\n'=1+1.tif,," in out


def test_changed_data_are_told(saved: Saved, opened: Opened, tmp_path: Path) -> None:
    """A changed or missing image of the split is an error, without numbers."""
    moved = tmp_path / "moved"
    shutil.copytree(saved.images, moved)
    body = predict_split(opened, "val", str(moved), tmp_path / "cache", quiet)
    assert body["agreement"]["val"]["images"] == 8
    assert body["agreement"]["val"]["largest_difference"] < document.TOLERANCE
    save(moved / "test" / "normal" / "000.tif", deepen(draw("new", 0, 70)))
    with pytest.raises(DataError, match="have changed"):
        predict_split(opened, "test", str(moved), tmp_path / "cache", quiet)
    with pytest.raises(DataError, match="there is no folder"):
        predict_split(opened, "test", str(tmp_path / "gone"), tmp_path / "cache", quiet)


def test_arrays_are_predicted_as_files_are(saved: Saved, opened: Opened, tmp_path: Path) -> None:
    """A stack in an NPY file or an NPZ archive counts as that many images, numbered."""
    files = sorted((saved.images / "test" / "normal").glob("*.tif"))
    stack = np.stack([np.asarray(Image.open(one)) for one in files]).astype(np.uint16)
    np.save(tmp_path / "stack.npy", stack)
    np.savez(tmp_path / "stack.npz", test_images=stack[:2], test_labels=np.zeros(2, np.int64))
    np.save(tmp_path / "one.npy", stack[3])
    np.save(tmp_path / "bytes.npy", stack.astype(np.uint8))
    names = [str(tmp_path / name) for name in ("stack.npy", "stack.npz", "one.npy", "bytes.npy")]
    body = predict_files(opened, names, quiet)
    wanted = shares(predict_files(opened, [str(one) for one in files], quiet))
    found = shares(body)
    rows = list(wanted.values())
    close = [pytest.approx(row, abs=1e-6) for row in rows]
    assert [found[f"{names[0]}#{n}"] for n in range(8)] == close
    assert [found[f"{names[1]}#test_images#{n}"] for n in range(2)] == close[:2]
    assert found[f"{names[2]}#0"] == close[3]
    [[path, why]] = body["faults"]
    assert path == names[3]
    assert "uint8" in why


def test_damaged_files_are_named_and_the_others_predicted(saved: Saved, tmp_path: Path) -> None:
    """Damaged files are named, the others predicted as if alone, and the exit code is 1."""
    whole = sorted((saved.images / "test").rglob("*.tif"))[:6]
    for number, path in enumerate(whole):
        shutil.copy(path, tmp_path / f"whole{number}.tif")
    names = []
    for number, (name, content) in enumerate(damaged(whole_files(tmp_path / "scratch"), 4, 80)):
        names.append(f"damaged{number:02d}{Path(name).suffix}")
        (tmp_path / names[-1]).write_bytes(content)
    shutil.rmtree(tmp_path / "scratch")
    (tmp_path / "empty.png").touch()
    found = saved.project.json("predict", "model", str(tmp_path), "--json", code=1)
    told = {Path(one["path"]).name: one["why"] for one in found["unreadable"]}
    read = {Path(one["path"]).name: one for one in found["images"]}
    assert {*told, *read} == {*names, "empty.png", *(f"whole{n}.tif" for n in range(6))}
    assert told["empty.png"] == "the file is empty"
    assert len(told) > 60
    assert "Traceback" not in " ".join(told.values())
    alone = saved.project.json("predict", "model", *map(str, whole), "--json")["images"]
    for number, one in enumerate(alone):
        wanted = pytest.approx(one["log_p_normal"], abs=1e-5)
        assert read[f"whole{number}.tif"]["log_p_normal"] == wanted


def test_damage_is_told(copy: Path) -> None:
    """A flipped bit in either file of numbers is detected before anything is predicted."""
    for name in (document.WEIGHTS, document.PREDICTIONS):
        content = bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} does not match|{name} is damaged"):
            open_saved(copy, [], "cpu")
        content[-1] ^= 1
        (copy / name).write_bytes(content)
    open_saved(copy, [], "cpu")
    (copy / document.WEIGHTS).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        open_saved(copy, [], "cpu")
    with pytest.raises(UserError, match=r"holds no model\.json"):
        open_saved(copy / "nowhere", [], "cpu")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format"),
        ({"objective": "../evil"}, "objective"),
        ({"objective": "no_such_objective"}, "There is no objective"),
        ({"objective": "digits"}, "does not fit objective 'digits'"),
        ({"inputs": [1, 100_000, 100_000]}, "more than 1 GB"),
        ({"classes": ["one"]}, "classes"),
        ({"extra": 1}, "extra"),
        ({"parameters": {"lr": 1e-3, "model": "cnn", "depth": 10**6}}, "depth"),
        ({"parameters": {"lr": 1e-3, "model": "ann"}}, "do not fit the network"),
        ({"weights_sha256": "0" * 64}, "does not match model.json"),
        ({"trial": "3"}, "trial"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_a_strangers_document_is_checked(copy: Path, change: dict[str, Any], told: str) -> None:
    """Any change in model.json is refused by name; nothing is built or run from it."""
    path = copy / document.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((UserError, ObjectiveError), match=told):
        open_saved(copy, [], "cpu")


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the bytes of the largest tensor that was really allocated."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and inspect its result."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            self.bytes = max(self.bytes, result.nbytes)
        return result


def test_a_network_larger_than_its_weights_is_never_built(copy: Path) -> None:
    """A width of 4,096 in model.json, within the declared 65,536, is refused and not built."""
    path = copy / document.NAME
    text = json.loads(path.read_text())
    text["parameters"] = {**text["parameters"], "model": "ann", "width": 4096, "depth": 50}
    path.write_text(json.dumps(text))
    with (
        Largest() as largest,  # type: ignore[no-untyped-call]
        pytest.raises(UserError, match="The weights do not fit the network"),
    ):
        open_saved(copy, [], "cpu")
    assert largest.bytes < 4096 * 4096


def test_a_document_without_the_options_of_files_is_read_as_before(copy: Path) -> None:
    """A model.json from before `fit` and `depths` stretches images, and takes one kind."""
    path = copy / document.NAME
    text = json.loads(path.read_text())
    for key in ("fit", "depths"):
        del text["reading"][key]
        del text["data"][key]
    path.write_text(json.dumps(text))
    opened = open_saved(copy, [], "cpu")
    assert (opened.model.reading.fit, opened.model.reading.depths) == ("stretch", "same")
    assert (opened.model.data["fit"], opened.model.data["depths"]) == ("stretch", "same")


def test_what_is_no_document_is_told(copy: Path) -> None:
    """Text that is not JSON, JSON that is not a table, and a huge file are refused."""
    for content in (b"", b"[1]", b"\xff\xfe", b"{" * 10_000, b" " * (document.LARGEST + 1)):
        (copy / document.NAME).write_bytes(content)
        with pytest.raises(UserError, match="is not what"):
            document.read(copy)


def test_a_folder_of_others_is_never_replaced(saved: Saved, tmp_path: Path) -> None:
    """Files that are not tuner's, and a saved model without --overwrite, are left untouched."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    said = saved.project.run("best", "scans", "--save", str(foreign), "--overwrite", code=2)
    assert "not a saved model (thesis.tex)" in said
    said = saved.project.run("best", "scans", "--save", "model", code=2)
    assert "--overwrite replaces it" in said
    assert (foreign / "thesis.tex").read_text() == "years of work"


def test_without_checkpoints_the_winner_is_trained_again(saved: Saved, tmp_path: Path) -> None:
    """The weights equal those from the checkpoint bit for bit; the old folder is replaced."""
    target = tmp_path / "again"
    shutil.copytree(saved.folder, target)
    saved.project.run(
        *("best", "scans", "--save", str(target), "--overwrite"),
        environ={"TUNER_CHECKPOINTS": "off"},
    )
    model = document.read(target)
    assert model.origin.startswith("trained again from its first epoch")
    assert all(one.matches for one in model.agreement.values())
    assert (target / document.WEIGHTS).read_bytes() == (
        saved.folder / document.WEIGHTS
    ).read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["again"]


def test_another_machines_checkpoint_is_found_by_its_trial(saved: Saved, tmp_path: Path) -> None:
    """With other arithmetic the trial's own last weights are used, and their agreement reported."""
    url = saved.project.environment["TUNER_DATABASE_URL"]
    home = saved.project.folder / ".tuner"
    folder = tmp_path / "folder"
    folder.mkdir()
    with Database.open(Settings(home=home, database_url=url)) as database:
        with database.transaction() as connection:
            study = studies.find(connection, StudyRef("scans"))
            found = winner(Results(connection, study))
            stored = saving.stored(Results(connection, study), found)
        machine = Workspace(
            cache=home / "cache",
            folders=(),
            checkpoints=checkpoint_place(Settings(home=home), study.spec),
            labels={found.number: labels(study, found.number)},
            device="cpu",
        )
    (folder / document.PREDICTIONS).write_bytes(stored.content())
    order = order_of(found, machine, folder)
    model, _ = fulfil(Order.read({**order, "threads": 2}), quiet)
    assert model.origin.endswith("other numerics or by another version of tuner")
    mine, theirs = (load_file(one / document.WEIGHTS) for one in (folder, saved.folder))
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    assert model.agreement["test"].largest_difference < 1e-3
    assert model.agreement["test"].changed_classes == 0
    # A checkpoint from a training whose epochs were replaced is not this trial's network.
    [trial] = order["trials"]
    other = {**order, "threads": 2, "trials": [{**trial, "last_val_loss": -1.0}]}
    replaced, _ = fulfil(Order.read(other), quiet)
    assert replaced.origin.startswith("trained again")
