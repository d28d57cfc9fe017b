"""Commands that read a study, and those that change it, on one trained study."""

import csv
import io
import json
from dataclasses import fields
from pathlib import Path

import pytest

from tests.cli.conftest import STUDY, Project
from tuner.records import OWN, Epoch

PRUNED = STUDY.replace(
    "[replicates]",
    '[search]\npruner = "threshold"\npruner_options = { upper = 1e-6 }\n[replicates]',
)


def test_looking_at_a_trained_study(trained_once: Project) -> None:
    """status, studies, table and events agree on what was trained, as text and as JSON."""
    seen = trained_once.json("status", "small", "--json")
    assert seen["counts"]["complete"] == seen["counts"]["ended"] == seen["counts"]["total"] == 4
    assert seen["epochs_recorded"] == 12
    assert "4/4 trials" in trained_once.run("status")
    (listed,) = trained_once.json("studies", "--json")
    assert (listed["study"], listed["state"], listed["trials"]["complete"]) == (
        "small",
        "complete",
        4,
    )
    assert "Which rate?" in trained_once.run("studies")
    table = trained_once.json("table", "small", "--json")
    assert [len(table["best"]), table["factors"][0]["name"]] == [4, "lr"]
    level = table["factors"][0]["levels"][0]
    assert level["means"]["val_loss"]["n"] == 2
    assert level["means"]["val_loss"]["low"] < level["means"]["val_loss"]["high"]
    told = trained_once.run("events", "small", "--trial", "0")
    assert "created" in told
    assert "complete" in told
    kinds = [
        json.loads(line)["kind"]
        for line in trained_once.run("events", "small", "--json").split("\n")[:-1]
    ]
    assert kinds.count("complete") == 5  # four trials and the study


def test_a_tables_intervals_say_what_they_are_over(trained_once: Project) -> None:
    """Intervals are over seeds only in `table`, and over seeds and images in `compare`."""
    assert "interval over seeds only" in trained_once.run("table", "small")
    assert (
        "Intervals cover the variation between seeds and between validation images"
        in trained_once.run("compare", "small")
    )


def test_export_of_the_best(trained_once: Project) -> None:
    """--best K --trials writes the K best trials by the metric, to a file or standard output."""
    ask = ("export", "--study", "small", "--best", "2", "--trials", "--format", "csv")
    text = trained_once.run(*ask)
    rows = list(csv.DictReader(io.StringIO(text)))
    losses = [float(row["val_loss"]) for row in rows]
    assert len(rows) == 2
    assert losses == sorted(losses)
    target = trained_once.folder / "out" / "all.json"
    trained_once.run("export", "--study", "small", "--format", "json", "-o", str(target))
    every = json.loads(target.read_text())
    assert min(row["val_loss"] for row in every) == losses[0]
    assert [row["trial"] for row in every] == [0, 1, 2, 3]


def test_export_replaces_no_work_of_somebodys(trained_once: Project) -> None:
    """An earlier export is replaced with a message; any other file only with --overwrite."""
    target = trained_once.folder / "kept.csv"
    ask = ("export", "--study", "small", "-o", "kept.csv")
    assert "replaced" not in trained_once.run(*ask)
    assert "4 rows: kept.csv (replaced)" in trained_once.run(*ask, "--best", "4")
    target.write_text("patient,finding\n")
    assert "kept.csv exists already" in trained_once.run(*ask, code=2)
    assert target.read_text() == "patient,finding\n"
    assert "(replaced)" in trained_once.run(*ask, "--overwrite")
    assert target.read_text().startswith("trial,")


def test_export_of_epochs(trained_once: Project) -> None:
    """--epochs writes one row per epoch, counted from 1."""
    text = trained_once.run("export", "--study", "small", "--epochs", "--best", "1", "--trials")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["trial", *(field.name for field in fields(Epoch) if field.name != OWN)]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {row["reused"] for row in rows} == {"false"}


def test_status_shows_the_queue(project: Project) -> None:
    """Status shows how many settings wait in the queue and which is next, without started ones."""
    rates = "1e-2, 0.1, 0.2, 0.3, 0.4"
    project.write_study("rates", STUDY.replace("1e-2", rates).replace("seeds = 2", "seeds = 1"))
    # Its worker has no such device and gives up; the brake pauses the study after three settings.
    project.run("launch", "--study", "rates", "--device", "cuda:7", "--workers", "1", code=1)
    assert "queued" not in project.run("status", "rates")
    assert project.json("status", "rates", "--json")["queued"] == []
    project.run("enqueue", "rates", "lr=0.4")
    assert "queued  1 setting; next lr=0.4\n" in project.run("status", "rates")
    project.run("enqueue", "rates", "lr=0.3")
    assert "queued  2 settings; next lr=0.4, then lr=0.3\n" in project.run("status", "rates")
    assert project.json("status", "rates", "--json")["queued"] == [{"lr": 0.4}, {"lr": 0.3}]
    project.run("launch", "--study", "rates", "--workers", "1")
    assert project.json("status", "rates", "--json")["queued"] == []


def test_deleting_asks_first(project: Project) -> None:
    """delete does nothing unless confirmed; with --yes the study is gone."""
    # A study without training: its only worker gives up at once because its device does not exist.
    project.run("launch", "--study", "small", "--device", "cuda:7", code=1)
    assert "Permanently delete small (0 ended trials" in project.run("delete", "small", code=130)
    assert len(project.json("studies", "--json")) == 1
    project.run("delete", "small", "--yes")
    assert project.json("studies", "--json") == []


@pytest.mark.parametrize(
    "words",
    [
        ("status", "smal"),
        ("table", "smal"),
        ("export", "--study", "smal"),
        ("logs", "smal"),
        ("events", "smal"),
        ("stop", "smal"),
        ("retry", "smal"),
        ("delete", "smal", "--yes"),
        ("table", "small@7"),
        ("logs", "small", "99"),
    ],
    ids=" ".join,
)
def test_unknown_names_are_told_with_the_nearest(
    trained_once: Project, words: tuple[str, ...]
) -> None:
    """An unknown study or trial exits with 2, and the message lists what exists."""
    out = trained_once.run(*words, code=2)
    assert "small" in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    "words",
    [
        *("table small", "compare small", "compare small --trials 0 1", "gap small"),
        *("influence small", "show small 0", "confusion small", "studies", "status small"),
    ],
)
def test_a_piped_line_ends_where_its_text_does(trained_once: Project, words: str) -> None:
    """Piped lines have no trailing spaces, and titles are not wrapped at the table's width."""
    lines = trained_once.run(*words.split()).splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    titles = [line for line in lines if line.startswith(("small: best", "small: all", "By lr"))]
    assert all(line.endswith((")", "alone", "accuracy", "intervals")) for line in titles)


def test_a_files_path_means_the_study_that_it_asks(trained_once: Project) -> None:
    """A study file's path stands for its stored study; one that is not stored is explained."""
    path = "studies/small.toml"
    for words in (("table", path), ("compare", path), ("gap", path), ("status", path)):
        assert trained_once.run(*words) == trained_once.run(words[0], "small")
    rows = trained_once.run("export", "--study", str(trained_once.folder / path))
    assert rows.splitlines()[1:] == trained_once.run("export", "--study", "small").splitlines()[1:]
    trained_once.write_study("untrained")
    said = trained_once.run("table", "studies/untrained.toml", code=2)
    assert "no study 'untrained' is stored" in said
    assert "tuner launch studies/untrained.toml" in said
    assert "Did you mean small?" in trained_once.run("table", "studies/smal.toml", code=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("compare", "small", "--metric", "test_lss"), "Did you mean test_loss"),
        (("compare", "small", "--by", "lrr"), "Did you mean lr?"),
        (("compare", "small", "--by", "lr", "--reference", "0.0011"), "Did you mean 0.001"),
        (("influence", "small", "--metric", "val_los"), "Did you mean val_loss"),
        (("table", "small", "--show", "clases"), "Did you mean classes?"),
        (("export", "--study", "small", "-o", "x.parqet"), "Did you mean .parquet"),
        (("table", "smal"), "Did you mean small?"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_a_misspelt_word_is_told_with_the_nearest(
    trained_once: Project, words: tuple[str, ...], told: str
) -> None:
    """A message that lists valid names also suggests the nearest one."""
    assert told in trained_once.run(*words, code=2)


def test_stop_and_retry_with_nothing_to_do(trained_once: Project) -> None:
    """Stopping a complete study and retrying one without failures say so, and change nothing."""
    assert "nothing to stop" in trained_once.run("stop", "small")
    assert "no failed trials" in trained_once.run("retry", "small")
    assert "Only failed trials can be retried; these did not fail: 1" in trained_once.run(
        "retry", "small", "1", code=2
    )


def test_validate_looks_for_paths_and_imports_the_model(project: Project) -> None:
    """A missing path and code that cannot be imported are faults; nothing is run."""
    text = STUDY.replace('"blobs"', '"chest_xray"').replace("hidden = 4", "")
    project.write_study("scans", f'{text}\n[data]\nsource = "folder"\npath = "../gone"\n')
    said = project.run("validate", "scans", code=2)
    assert "data.path: there is no file or folder" in said
    (project.folder / "gone").mkdir()
    assert "scans is valid" in project.run("validate", "scans")
    models = project.folder / "objectives" / "blobs" / "models.py"
    text = models.read_text()
    models.write_text("import no_such_library\n" + text)
    assert "No module named 'no_such_library'" in project.run("validate", "small", code=2)
    models.write_text(text.replace("def build(", "def construct("))
    assert "models.py has no build()" in project.run("validate", "small", code=2)
    models.write_text(text)
    assert "is valid" in project.run("validate", "small")


def test_validate_creates_nothing_and_needs_no_database(tmp_path: Path, project: Project) -> None:
    """validate prints the grid's size, by name, by path and as JSON, without a database."""
    nowhere = {"TUNER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    out = project.run("validate", "small", environ=nowhere)
    assert "grid of 2 configurations × 2 seeds = 4 trials" in out
    described = project.json(
        "validate", "studies/small.toml", "--set", "replicates.seeds=3", "--json"
    )
    assert (described["grid"], described["trials"]) == (2, 6)
    assert "Did you mean" in project.run("validate", "smal", code=2).replace("did", "Did")
    assert not (project.folder / ".tuner").exists()


def test_run_trains_one_configuration_and_records_nothing(project: Project) -> None:
    """run shows each epoch and the figures at best and last, without a database."""
    nowhere = {"TUNER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    out = project.run(
        "run", "small", "--set", "lr=1e-2", "--seed", "3", "--device", "cpu", environ=nowhere
    )
    assert "test acc" in out
    assert out.count("\n    ") >= 3
    described = project.json("run", "small", "--json", "--device", "cpu")
    assert described["parameters"]["lr"] == 1e-3
    assert len(described["epochs"]) == 3
    assert described["best"]["gap"] == pytest.approx(
        described["best"]["val_acc"] - described["best"]["test_acc"]
    )


def test_run_that_diverges_says_so(project: Project) -> None:
    """A loss that is not finite ends the run with exit code 1."""
    out = project.run(
        "run",
        "small",
        "--set",
        "lr=100",
        "--set",
        "optimizer=sgd",
        "--set",
        "batch_norm=false",
        "--set",
        "epochs=30",
        "--device",
        "cpu",
        code=1,
    )
    assert "diverged" in out


def test_pruned_trials_show_where_and_why(project: Project) -> None:
    """A study with only pruned trials exits with 0, states why, and shows no means."""
    project.write_study("hopeless", PRUNED)
    out = project.run("launch", "--study", "hopeless", "--workers", "1")
    assert "no trial is complete" in out
    rows = list(csv.DictReader((project.folder / ".tuner/results/hopeless.csv").open()))
    assert {row["state"] for row in rows} == {"PRUNED"}
    assert {row["reason"] for row in rows} == {"threshold at epoch 1"}


def test_worker_waits_for_its_study_in_vain(project: Project) -> None:
    """A worker whose study never appears exits with a clear error after its wait."""
    out = project.run("worker", "--study", "ghost", "--wait", "1", code=2)
    assert "There is no study 'ghost'" in out


def test_unreachable_server_is_told_without_its_password(project: Project) -> None:
    """An unreachable server exits with 3 and names the address, never the password."""
    url = "postgresql://tuner:s3cret-word@127.0.0.1:1/none"
    out = project.run("studies", "--database", url, code=3)
    assert "127.0.0.1" in out
    assert "s3cret-word" not in out
    assert "Traceback" not in out


def test_password_is_read_from_a_file(project: Project, tmp_path: Path) -> None:
    """TUNER_DATABASE_PASSWORD_FILE supplies what the URL leaves out; a missing file is reported."""
    from tuner.store.address import Address, parse

    whole = parse(project.environment["TUNER_DATABASE_URL"])
    password = whole.parameters["password"]
    bare = Address({k: v for k, v in whole.parameters.items() if k != "password"})
    secret = tmp_path / "password"
    secret.write_text(password + "\n")
    given = {"TUNER_DATABASE_URL": bare.url(), "TUNER_DATABASE_PASSWORD_FILE": str(secret)}
    assert "no studies yet" in project.run("studies", environ=given)
    given["TUNER_DATABASE_PASSWORD_FILE"] = str(tmp_path / "missing")
    assert "cannot be read" in project.run("studies", code=2, environ=given)
