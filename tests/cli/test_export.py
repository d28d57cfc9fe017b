"""`tuner export` for a thesis: which rows and columns, how many digits, which caption."""

import csv
import io
import json

import pytest

from tests.cli.conftest import Project

ASK = ("export", "--study", "small")


def test_tables_for_people_are_those_of_tuner_table(trained_once: Project) -> None:
    """Settings with their means where there are seeds; all columns with --wide or --columns."""
    text = trained_once.run(*ASK, "--format", "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| lr | val loss | val acc (%) | test acc (%) | gap (points) | n |"
    assert len(lines) == 4
    assert " ± " in lines[2]
    tex = trained_once.run(*ASK, "--format", "latex", "--digits", "1", "--best", "1")
    assert r"\pm" in tex
    assert tex.count(r"\\") == 2
    assert "attempts" in trained_once.run(*ASK, "--format", "latex", "--wide")
    picked = trained_once.run(*ASK, "--format", "markdown", "--columns", "trial,val_acc")
    assert picked.startswith("| trial | val_acc (%) |")
    assert len(picked.splitlines()) == 6


def test_settings_are_rows_of_means(trained_once: Project) -> None:
    """--settings exports each mean with its limits, the best setting first."""
    rows = list(csv.DictReader(io.StringIO(trained_once.run(*ASK, "--settings"))))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert float(rows[0]["val_loss"]) <= float(rows[1]["val_loss"])
    assert float(rows[0]["val_loss_low"]) <= float(rows[0]["val_loss"])
    assert {row["n"] for row in rows} == {"2"}


def test_the_best_are_settings_with_their_trials(trained_once: Project) -> None:
    """--best takes every complete seed of the best settings; --trials the best single trials."""
    ranked = trained_once.json("table", "small", "--json")["settings"]
    seeds = [[seed["trial"] for seed in one["seeds"]] for one in ranked]
    for count in (1, 2):
        wanted = [trial for setting in seeds[:count] for trial in setting]
        for what in ((), ("--epochs",), ("--predictions",)):
            text = trained_once.run(*ASK, *what, "--best", str(count))
            rows = csv.DictReader(io.StringIO(text))
            found = list(dict.fromkeys(int(row["trial"]) for row in rows))
            assert found == wanted if not what else sorted(found) == sorted(wanted)
    single = trained_once.json("table", "small", "--json")["best"][0]["trial"]
    for what in ((), ("--epochs",), ("--predictions",)):
        text = trained_once.run(*ASK, *what, "--best", "1", "--trials")
        assert {int(row["trial"]) for row in csv.DictReader(io.StringIO(text))} == {single}
    table = trained_once.run(*ASK, "--trials", "--format", "markdown", "--best", "1")
    assert table.startswith("| trial | lr | seed |")
    said = trained_once.run(*ASK, "--settings", "--trials", code=2)
    assert "leave it out with --settings" in said


def test_rows_are_picked_sorted_and_rounded(trained_once: Project) -> None:
    """Conditions may be on any column, come before --best, and leave the columns as they are."""
    plain = trained_once.run(*ASK)
    text = trained_once.run(
        *ASK, "--where", "lr=0.01", "--where", "test_auc>0", "--sort", "-seed", "--digits", "2"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0] == plain.splitlines()[0]
    assert [(row["lr"], row["seed"]) for row in rows] == [("0.01", "1"), ("0.01", "0")]
    assert all(len(row["val_loss"]) <= 4 for row in rows)
    worse = trained_once.run(*ASK, "--where", "lr=0.001", "--best", "1", "--format", "json")
    assert [(row["lr"], row["seed"]) for row in json.loads(worse)] == [(0.001, 0), (0.001, 1)]
    epochs = trained_once.run(*ASK, "--epochs", "--where", "epoch=3", "--sort", "val_loss")
    losses = [float(row["val_loss"]) for row in csv.DictReader(io.StringIO(epochs))]
    assert len(losses) == 4
    assert losses == sorted(losses)
    assert "No row matches --where lr=7" in trained_once.run(*ASK, "--where", "lr=7")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--where", "modle=cnn"), "There is no column 'modle'"),
        (("--sort", "val_los"), "Did you mean val_loss"),
        (("--caption", "x"), "are for LaTeX"),
        (("--format", "latex", "--label", "tab:x"), "--label needs --caption"),
        (("--format", "latex", "--caption", "x", "--label", "a b"), "use letters, digits"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_what_cannot_be_is_told(trained_once: Project, words: tuple[str, ...], told: str) -> None:
    """An unknown column, and a caption or label that LaTeX cannot contain, are refused."""
    assert told in trained_once.run(*ASK, *words, code=2)
