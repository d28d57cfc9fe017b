"""Users' objectives: arrays, drawn images, and files that tuner cannot read itself."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, Project
from tests.conftest import own_database
from tests.train.blobs import DATA, DECLARATIONS, MODELS, write_objective
from tests.train.sources.image_files import draw, save
from tuner.settings import SECRET_VARIABLES
from tuner.store.address import Address
from tuner.winner import document
from tuner.winner.prediction import open_saved, predict_files

STUDY = """
[study]
name = "{name}"
question = "Does it work?"
objective = "{objective}"

[budget]
trials = "grid"

[search]
at = "last"

[space]
lr = [1e-3, 1e-2]

[fixed]
epochs = 2
{fixed}

[data]
{data}
"""

SPYING = DATA.replace(
    "    cache.mkdir(parents=True, exist_ok=True)\n",
    "    cache.mkdir(parents=True, exist_ok=True)\n"
    '    (cache / "seen").write_text("\\n".join(__import__("os").environ))\n',
)

READING = '''
"""Images read upside down, which tuner's own decoder would not do."""

from pathlib import Path

import numpy as np
from PIL import Image

from tuner.train.sources.assemble import assemble
from tuner.train.sources.pool import Pool


def {read}(path, data):
    """Return one image's pixels."""
    return np.asarray(Image.open(path).convert("L"))[::-1]


def load(data, cache, progress):
    """Return the splits."""
    folder = Path(data["path"])
    files = sorted(folder.glob("*/*/*.png"))
    return assemble(
        Pool(
            images=np.stack([{read}(file, data) for file in files]),
            labels=np.array([file.parent.name == "pneumonia" for file in files], dtype=np.int64),
            ids=tuple(file.relative_to(folder).as_posix() for file in files),
            parts=tuple(file.parts[-3] for file in files),
            classes=("normal", "pneumonia"),
        ),
        data,
        cache,
    )
'''

OF_FILES = '''
"""Images from files."""

from tuner.spec.parameters import Parameter
from tuner.train.objective import Objective
from tuner.train.sources.declared import KEYS

OBJECTIVE = Objective(
    parameters=[
        Parameter("hidden", "int", 4, "hidden units", low=1),
        Parameter("batch_norm", "bool", False, "normalise the hidden layer"),
    ],
    data=KEYS,
)
'''


@dataclass(frozen=True)
class Workplace:
    """A project with three objectives, on a database with a secret address."""

    project: Project

    def train(self, name: str, objective: str, fixed: str = "", data: str = "") -> None:
        """Write a study and launch it."""
        text = STUDY.format(name=name, objective=objective, fixed=fixed, data=data)
        (self.project.folder / "studies" / f"{name}.toml").write_text(text)
        self.project.run("launch", "--study", name, "--workers", "1", "--no-check")


@pytest.fixture(scope="module")
def workplace(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workplace]:
    """Make the project, without checkpoints, so that its code runs when a model is saved."""
    with own_database(server, template) as address:
        folder = tmp_path_factory.mktemp("own") / "project"
        (folder / "studies").mkdir(parents=True)
        objectives = folder / "objectives"
        write_objective(objectives / "blobs", DECLARATIONS, SPYING, MODELS)
        write_objective(objectives / "told", OF_FILES, READING.format(read="read"), MODELS)
        write_objective(objectives / "untold", OF_FILES, READING.format(read="turned"), MODELS)
        for split, count in (("train", 12), ("test", 4)):
            for label, name in enumerate(("normal", "pneumonia")):
                for n in range(count):
                    save(folder / "images" / split / name / f"{n}.png", draw(split, label, n, 8))
        environment = {
            "TUNER_DATABASE_URL": address.url(show_password=True),
            "TUNER_CHECKPOINTS": "off",
            "PGPASSFILE": str(folder / "nothing"),
        }
        yield Workplace(Project(folder, {**os.environ, **QUICK, **environment}))


def seen(project: Project) -> set[str]:
    """Return the environment variables of the objective's code in its last run."""
    return set((project.folder / ".tuner" / "cache" / "seen").read_text().splitlines())


def test_no_objective_sees_the_password(workplace: Workplace) -> None:
    """Neither saving nor predicting shows it; the last weights are saved as the study says."""
    project = workplace.project
    workplace.train("blobs", "blobs", "hidden = 4")
    for command in (("best", "blobs", "--save", "blobs"), ("predict", "blobs", "--split", "test")):
        (project.folder / ".tuner" / "cache" / "seen").unlink()
        project.run(*command)
        assert "PATH" in seen(project)
        assert not seen(project) & set(SECRET_VARIABLES)
    model = document.read(project.folder / "blobs")
    assert (model.at, model.epoch) == ("last", 2)
    assert model.origin.startswith("trained again")
    assert model.reading.files == "unchecked"


def test_files_for_an_objective_of_arrays(workplace: Workplace) -> None:
    """A file is stretched to the arrays' shape, and a test image is recognised."""
    project = workplace.project
    opened = open_saved(project.folder / "blobs", [project.folder / "objectives"], "cpu")
    data = opened.found.load_data(opened.model.data, project.folder / "cache", lambda *_: None)
    assert data.test is not None
    test, large = project.folder / "test.png", project.folder / "large.png"
    Image.fromarray(data.test.images[3]).save(test)
    save(large, draw("new", 0, 0, 40))
    save(project.folder / "colour.npy.png", np.zeros((6, 6, 3), np.uint8))
    np.save(project.folder / "colour.npy", np.zeros((2, 3, 6, 6), np.uint8))
    given = [test, large, project.folder / "colour.npy", project.folder / "colour.npy.png"]
    body = predict_files(opened, [str(one) for one in given], lambda *_: None)
    assert body["known"] == ["test", "", ""]
    wanted = opened.held.splits["test"].log_probabilities[3].tolist()
    assert body["logs"][0] == pytest.approx(wanted, abs=1e-5)
    [[path, why]] = body["faults"]
    assert path.endswith("colour.npy")
    assert "the network takes (1, 6, 6)" in why


@pytest.mark.parametrize("name", ["told", "untold"])
def test_files_that_only_the_objective_can_read(workplace: Workplace, name: str) -> None:
    """With `read` predictions equal the stored ones; without it only splits can be predicted."""
    project = workplace.project
    workplace.train(name, name, data='path = "../images"')
    saved = project.json("best", name, "--save", name, "--json")["saved"]
    assert saved["files"] == {"told": "own", "untold": "unlike"}[name]
    assert saved["agreement"]["test"]["matches"]
    opened = open_saved(project.folder / name, [project.folder / "objectives"], "cpu")
    paths = sorted(str(one) for one in (project.folder / "images" / "test").rglob("*.png"))
    body = predict_files(opened, paths, lambda *_: None)
    if name == "untold":
        assert len(body["faults"]) == 8
        assert "give its data.py a function read" in body["faults"][0][1]
        return
    assert body["agreement"]["test"]["images"] == 8
    assert body["agreement"]["test"]["largest_difference"] < document.TOLERANCE
    assert not body["faults"]


def test_weights_that_predict_otherwise_are_refused(workplace: Workplace) -> None:
    """After a change of the objective the difference is reported and nothing saved by default."""
    project = workplace.project
    models = project.folder / "objectives" / "told" / "models.py"
    before = models.read_text()
    models.write_text(before.replace("nn.Dropout(0.2)", "nn.Dropout(0.5)"))
    try:
        said = project.run("best", "told", "--save", "other", code=2)
        assert "Some of 8 test predictions differ from the stored ones by up to" in said
        assert "more than the tolerance of 1e-4" in said
        assert "Nothing was saved" in said
        assert not (project.folder / "other").exists()
        project.run("best", "told", "--save", "other", "--allow-different")
        agreement = document.read(project.folder / "other").agreement["test"]
        assert agreement.largest_difference > document.TOLERANCE
        assert not agreement.matches
        card = (project.folder / "other" / "README.md").read_text("utf-8")
        assert "differ from the stored ones by up to" in card
        printed = project.run("predict", "other", "--split", "test", code=1)
        assert "differ from the stored ones" in printed
    finally:
        models.write_text(before)


def test_data_that_changed_are_refused(workplace: Workplace) -> None:
    """A winner whose images have changed cannot be saved."""
    project = workplace.project
    path = project.folder / "images" / "train" / "normal" / "0.png"
    before = path.read_bytes()
    save(path, draw("another", 0, 99, 8))
    try:
        said = project.run("best", "told", "--save", "late", code=2)
    finally:
        path.write_bytes(before)
    assert "The data are not those that the trial was trained on" in said
    assert not (project.folder / "late").exists()
