"""An objective with its own metrics: one ranks the study, and every command shows them."""

import csv
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import tuner
from tests.cli.conftest import STUDY, Project, make_project
from tests.conftest import own_database
from tests.train.blobs import DECLARATIONS
from tuner.settings import from_environment
from tuner.store import tables as t
from tuner.store.address import Address
from tuner.store.database import Database

DECLARED = DECLARATIONS.replace(
    "from tuner.train.objective import Objective",
    "from tuner.records import Metric\nfrom tuner.train.objective import Objective",
).replace(
    "    data=[",
    """    metrics=[
        Metric("dice", "higher", "Dice coefficient of the probabilities and class 1."),
        Metric("worst_patient", "lower", "Largest error of a patient.", unit="number"),
    ],
    data=[""",
)
METRICS = '''
"""Two metrics: one of labels and probabilities, one that looks at patients too."""

import numpy as np


def dice(labels, probabilities):
    """Return the soft Dice coefficient of class 1."""
    positive = probabilities[:, 1]
    return 2 * positive[labels == 1].sum() / (positive.sum() + (labels == 1).sum())


def worst_patient(labels, probabilities, patients):
    """Return the largest mean error of a patient's images."""
    errors = 1 - probabilities[np.arange(len(labels)), labels]
    names = np.array(patients)
    return max(errors[names == name].mean() for name in set(patients))
'''
OWN = (
    STUDY.replace('name = "small"', 'name = "own"').replace("seeds = 2", "seeds = 3")
    + '\n[search]\nmetric = "val_dice"\nmetrics = ["f1"]\n\n[data]\neach = 2\n'
)


def write_metrics(project: Project, declared: str = DECLARED, functions: str = METRICS) -> None:
    """Add metrics to the project's objective."""
    package = project.folder / "objectives" / "blobs"
    (package / "__init__.py").write_text(declared)
    (package / "metrics.py").write_text(functions)


@pytest.fixture(scope="module")
def trained(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Launch a study ranked by its objective's own metric, with real workers."""
    with own_database(server, template) as address:
        folder = tmp_path_factory.mktemp("own") / "project"
        project = make_project(folder, {"TUNER_DATABASE_URL": address.url(show_password=True)})
        write_metrics(project)
        project.write_study("own", OWN)
        project.run("launch", "--study", "own", "--workers", "1")
        yield project


def rows_of(text: str) -> list[dict[str, str]]:
    """Read an export."""
    return list(csv.DictReader(io.StringIO(text)))


def test_the_studys_own_metric_chooses_the_best_epoch_and_ranks(trained: Project) -> None:
    """Each trial's best epoch has its best dice, which also ranks settings and trials."""
    epochs = rows_of(trained.run("export", "--study", "own", "--epochs"))
    trials = rows_of(trained.run("export", "--study", "own"))
    for trial in trials:
        mine = [float(row["val_dice"]) for row in epochs if row["trial"] == trial["trial"]]
        assert float(trial["val_dice"]) == max(mine)
        assert int(trial["best_epoch"]) == mine.index(max(mine)) + 1
        assert float(trial["last_val_dice"]) == mine[-1]
    listed = trained.run("table", "own", "--trials", "--best", "6").splitlines()
    heads = next(line for line in listed if "val dice" in line)
    assert heads.index("val dice") < heads.index("test dice") < heads.index("val loss")
    by_dice = sorted(trials, key=lambda row: -float(row["val_dice"]))
    table = trained.json("table", "own", "--json")
    assert [row["trial"] for row in table["best"]] == [int(row["trial"]) for row in by_dice]
    assert table["settings"][0]["means"]["val_dice"]["value"] > 0
    assert "2 settings by val_dice (best epoch)" in trained.run("table", "own")


def test_stored_figures_are_what_the_functions_return(trained: Project) -> None:
    """Both metrics follow from the exported predictions, on validation and on test."""
    space: dict[str, object] = {}
    exec(METRICS, space)
    rows = rows_of(trained.run("export", "--study", "own", "--predictions"))
    trials = rows_of(trained.run("export", "--study", "own"))
    assert trials
    for trial in trials:
        for split in ("val", "test"):
            mine = [
                row
                for row in rows
                if (row["trial"], row["split"], row["at"]) == (trial["trial"], split, "best")
            ]
            labels = np.array([int(row["label"] == "class1") for row in mine])
            shares = np.array([[float(row["p_class0"]), float(row["p_class1"])] for row in mine])
            patients = tuple(row["patient"] for row in mine)
            dice, worst = space["dice"], space["worst_patient"]
            assert callable(dice)
            assert callable(worst)
            assert float(trial[f"{split}_dice"]) == pytest.approx(dice(labels, shares))
            found = float(trial[f"{split}_worst_patient"])
            assert found == pytest.approx(worst(labels, shares, patients))
        gap = float(trial["val_dice"]) - float(trial["test_dice"])
        assert float(trial["gap_dice"]) == pytest.approx(gap)
        # Lower is better: a positive gap still means that test is worse.
        gap = float(trial["test_worst_patient"]) - float(trial["val_worst_patient"])
        assert float(trial["gap_worst_patient"]) == pytest.approx(gap)


def test_a_verdict_on_an_own_metric_covers_other_patients(trained: Project) -> None:
    """Values computed on resampled patients let an own metric be judged like F1."""
    said = " ".join(trained.run("compare", "own").split())
    assert "by val_dice" in said
    assert "between seeds and between validation patients" in said
    assert "has a dice of" in said  # its value on test
    sizes = {"val_dice": (40, 20), "test_dice": (30, 15), "test_f1": (30, 15)}
    for metric, size in sizes.items():
        comparisons = trained.json("compare", "own", "--metric", metric, "--json")["comparisons"]
        found = comparisons[0]
        assert (found["images"], found["patients"]) == size
    lower = trained.json("compare", "own", "--metric", "val_worst_patient", "--json")
    assert lower["comparisons"][0]["larger_is_better"] is False


def test_trials_stored_without_resampled_values_are_judged_over_seeds(trained: Project) -> None:
    """Trials without resampled values are judged over seeds, and every answer says so."""
    with without_resampled_values(trained):
        said = " ".join(trained.run("compare", "own").split())
        assert "not between images, because val_dice was not computed on resampled images" in said
        error = trained.run("influence", "own", "--metric", "val_dice", code=2)
        assert "val_dice was not computed on resampled images" in " ".join(error.split())
        assert "by f1" not in trained.run("influence", "own", "--metric", "val_f1")
        gap = " ".join(trained.run("gap", "own").split())
        assert "is not estimated, because val_dice was not computed" in gap
        own = {one["metric"]: one for one in trained.json("gap", "own", "--json")["own_metrics"]}
        assert (own["dice"]["over_images"], own["f1"]["over_images"]) == (False, True)


@pytest.mark.parametrize("trials", [[0, 1, 2, 3, 4, 5], [1, 4]], ids=["all", "some"])
def test_values_from_before_patients_were_named_are_not_used(
    trained: Project, trials: list[int]
) -> None:
    """Values resampled by image, before patients were named, are not used: they ignore patients."""
    with resampled_by_image(trained, trials):
        said = " ".join(trained.run("compare", "own").split())
        assert "not between images, because val_dice was not computed on resampled" in said
        assert "patients: " not in said
        trained.run("influence", "own", "--metric", "val_dice", code=2)
        assert "Selection bias in the best" in " ".join(trained.run("gap", "own").split())
        own = {one["metric"]: one for one in trained.json("gap", "own", "--json")["own_metrics"]}
        assert own["dice"]["over_images"] is False
        trained.run("show", "own", "1")
        assert trained.json("compare", "own", "--metric", "val_f1", "--json")["comparisons"][0][
            "patients"
        ]


@contextmanager
def resampled_by_image(project: Project, trials: list[int]) -> Iterator[None]:
    """Temporarily store these trials' values as from before patients were named.

    The data have two images per patient, so there are twice as many values.
    """
    with without_resampled_values(project) as rows, opened(project) as database:
        with database.transaction() as connection:
            wanted = sa.select(t.trial.c.trial_id).where(t.trial.c.number.in_(trials))
            mine = set(connection.scalars(wanted))
            changed = [
                row | {"content": row["content"] * (2 if row["trial_id"] in mine else 1)}
                for row in rows
            ]
            connection.execute(sa.insert(t.resampled), changed)
        yield


@contextmanager
def without_resampled_values(project: Project) -> Iterator[list[dict[str, Any]]]:
    """Remove the stored values on resamples temporarily, and yield them."""
    with opened(project) as database:
        with database.transaction() as connection:
            removed = connection.execute(sa.delete(t.resampled).returning(t.resampled))
            rows = [{**row, "content": bytes(row["content"])} for row in removed.mappings()]
        # Of six trials: two metrics, two splits, two moments.
        assert len(rows) == 6 * 8
        try:
            yield rows
        finally:
            with database.transaction() as connection:
                connection.execute(sa.delete(t.resampled))
                connection.execute(sa.insert(t.resampled), rows)


def opened(project: Project) -> AbstractContextManager[Database]:
    """Open the project's database."""
    return Database.open(from_environment(project.environment))


def test_gap_show_best_and_pictures_have_it(trained: Project) -> None:
    """The metric's gap, a trial's curve, the winner's seeds and the pictures have it."""
    gap = trained.run("gap", "own")
    assert "dice:" in gap
    assert "not estimated" not in gap
    own = {one["metric"]: one for one in trained.json("gap", "own", "--json")["own_metrics"]}
    assert set(own) == {"dice", "worst_patient", "f1"}
    assert (own["dice"]["over_images"], own["f1"]["over_images"]) == (True, True)
    shown = trained.run("show", "own", "0")
    assert "worst_patient" in shown
    assert "of 6 by val_dice" in shown
    assert 0 < trained.json("show", "own", "0", "--json")["epochs"][0]["val_dice"] < 1
    best = trained.run("best", "own")
    assert "by mean val_dice" in best
    assert "test dice" in best
    trained.run("plot", "own", "curves", "-o", "curves.svg")
    assert "validation dice" in (trained.folder / "curves.svg").read_text("utf-8")
    trained.run("report", "own", "-o", "report.html")
    assert "val dice" in (trained.folder / "report.html").read_text("utf-8")


def test_python_has_the_columns(trained: Project) -> None:
    """The frames of `tuner.open` have the same columns as the exports."""
    database = trained.environment["TUNER_DATABASE_URL"]
    with tuner.open("own", database=database) as study:
        trials, epochs = study.trials, study.epochs
        assert {"val_dice", "test_dice", "last_val_dice", "val_f1"} <= set(trials.columns)
        assert epochs.groupby("trial").val_dice.max().tolist() == trials.val_dice.tolist()
        assert study.compare("lr").verdict


def test_the_saved_network_is_that_of_the_metric(trained: Project) -> None:
    """Saving the network trains nothing: its checkpoint was stored under the same key."""
    said = trained.run("best", "own", "--save", "saved")
    assert "Saved in saved" in said
    assert "predictions match the stored ones" in said
    assert "Dice coefficient" in (trained.folder / "saved" / "README.md").read_text("utf-8")


def test_another_metric_makes_another_study(trained: Project) -> None:
    """With another metric the study is not continued: its trials have no such figure."""
    text = OWN.replace('metrics = ["f1"]', 'metrics = ["f1", "brier"]')
    trained.write_study("own", text)
    said = trained.run("launch", "--study", "own", "--workers", "1", code=2)
    assert "search.metrics" in said
    trained.write_study("own", OWN)
    assert "own is complete" in trained.run("launch", "--study", "own", "--workers", "1")


BROKEN = {
    "missing": (METRICS.replace("def dice", "def dise"), "has no dice()"),
    "raises": (
        METRICS.replace("    positive =", "    positive = labels.missing or"),
        "metrics.py, line 9 failed: AttributeError",
    ),
    "nothing": (
        METRICS.replace("    return 2 * positive", "    2 * positive"),
        "returned NoneType",
    ),
    "nan": (
        METRICS.replace("    return 2 * positive", "    return np.nan * positive"),
        "metrics.py, line 7 returned nan for the validation images",
    ),
    "per cent": (
        METRICS.replace("    return 2 * positive", "    return 200 * positive"),
        "a share is between 0 and 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_metric_is_found_before_a_launch(project: Project, name: str) -> None:
    """`check` and `launch` name the file and line of a broken metric, and create nothing."""
    functions, told = BROKEN[name]
    write_metrics(project, functions=functions)
    project.write_study("own", OWN)
    for command in (("check", "own", "--quick"), ("launch", "--study", "own")):
        said = " ".join(project.run(*command, code=2).split())
        assert told in said
        assert "metrics.py" in said
    assert project.json("studies", "--json") == []


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (DECLARED.replace('"dice", "higher", ', '"dice", meaning='), "argument: 'better'"),
        (DECLARED.replace('"dice", "higher", ', '"dice", "up", '), "write 'higher' or 'lower'"),
        (DECLARED.replace('"dice"', '"acc"'), "tuner has a metric of this name"),
        (DECLARED.replace('"dice"', '"f1"'), "tuner has a metric of this name"),
        (DECLARED.replace('"dice"', '"worst_patient"'), "declared twice"),
        (DECLARED.replace('"dice"', '"Dice 1"'), "a name has lower-case letters"),
        (
            DECLARED.replace('Parameter("hidden"', 'Parameter("val_dice"'),
            "like the column of a metric",
        ),
    ],
)
def test_a_wrong_declaration_is_told(project: Project, declared: str, told: str) -> None:
    """Direction, name and columns are checked whenever an objective is loaded."""
    write_metrics(project, declared)
    project.write_study("own", OWN)
    assert told in " ".join(project.run("validate", "own", code=2).split())


def test_an_unknown_metric_is_told_with_those_there_are(project: Project) -> None:
    """An unknown metric is refused with the objective's own among the names, and the nearest."""
    write_metrics(project)
    project.write_study("own", OWN.replace("val_dice", "val_dise"))
    said = " ".join(project.run("validate", "own", code=2).split())
    assert "val_worst_patient, got 'val_dise'; did you mean val_dice?" in said
    project.write_study("own", OWN.replace('"f1"', '"f2"'))
    assert "expected a list of f1" in " ".join(project.run("validate", "own", code=2).split())


def test_a_metric_that_needs_every_class_cannot_rank_without_one(project: Project) -> None:
    """A metric that needs every class cannot rank without one; as an extra one it stays empty."""
    needing = DECLARED.replace(
        '"Dice coefficient of the probabilities and class 1."',
        '"Dice.", needs_every_class=True',
    )
    write_metrics(project, needing)
    package = project.folder / "objectives" / "blobs"
    data = (package / "data.py").read_text()
    one_class = "labels = np.arange(count, dtype=np.int64) % (1 if seed == 1 else 2)"
    package.joinpath("data.py").write_text(
        data.replace('labels = np.arange(count, dtype=np.int64) % data["classes"]', one_class)
    )
    project.write_study("own", OWN)
    said = " ".join(project.run("check", "own", "--quick", code=2).split())
    assert (
        "val_dice cannot be the metric: the validation split has no image of class class1" in said
    )
    project.write_study("own", OWN.replace('metric = "val_dice"\n', "").replace("3", "1"))
    project.run("launch", "--study", "own", "--workers", "1", "--no-check")
    (first, *_) = rows_of(project.run("export", "--study", "own"))
    assert first["val_dice"] == ""
    assert first["test_dice"] != ""


def test_a_metric_that_fails_while_training_fails_its_trial(project: Project) -> None:
    """A metric that fails in training fails its trial with file and line; earlier epochs stay."""
    late = METRICS.replace(
        "    positive = probabilities[:, 1]\n",
        "    positive = probabilities[:, 1]\n    CALLS.append(1)\n"
        "    assert len(CALLS) < 5, 'too often'\n",
    ).replace("import numpy as np\n", "import numpy as np\n\nCALLS = []\n")
    write_metrics(project, functions=late)
    text = OWN.replace("seeds = 3", "seeds = 1").replace("lr = [1e-3, 1e-2]", "lr = [1e-3]")
    project.write_study("own", text + "\n[limits]\nattempts = 1\n")
    project.run("launch", "--study", "own", "--workers", "1", code=1)
    (trial,) = rows_of(project.run("export", "--study", "own"))
    assert trial["state"] == "FAILED"
    assert "metrics.py, line 13 failed: AssertionError: too often" in trial["reason"]


def test_the_pruner_follows_the_own_metric(project: Project) -> None:
    """A threshold on dice stops trials, in the metric's own direction and unit."""
    write_metrics(project)
    options = "\n[search.pruner_options]\nlower = 0.99\n"
    text = OWN.replace("[search]\n", '[search]\npruner = "threshold"\n')
    project.write_study("own", text + options)
    project.run("launch", "--study", "own", "--workers", "1")
    rows = rows_of(project.run("export", "--study", "own"))
    assert {row["state"] for row in rows} == {"PRUNED"}
    assert all(row["last_val_dice"] for row in rows)
