"""`tuner compare` and `tuner gap` on a trained study, as text and as JSON."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import STUDY, Project


def test_settings_are_compared_in_words(trained_once: Project) -> None:
    """A table with intervals and n, and a sentence that says which differences are significant."""
    shown = trained_once.run("compare", "small")
    assert "small: settings by val_loss, 95% intervals" in shown
    assert "On test, lr=0.0" in shown
    assert "best" in shown
    assert "2 seeds" in shown
    assert "distinguishable" in shown or "is worse than" in shown


def test_programs_get_everything(trained_once: Project) -> None:
    """JSON has fractions, limits, counts and the verdict; differences are those of the means."""
    (one,) = trained_once.json("compare", "small", "--json")["comparisons"]
    assert (one["factor"], one["metric"], one["n"]) == ("lr", "val_loss", 2)
    means = {level["level"]: level["mean"]["value"] for level in one["levels"]}
    for level in one["levels"]:
        if level["difference"] is not None:
            apart = means[level["level"]] - means[one["reference"]]
            assert abs(level["difference"]["value"] - apart) < 1e-12
            assert level["difference"]["low"] <= apart <= level["difference"]["high"]
    rows = trained_once.json("export", "--study", "small", "--format", "json")
    for rate, mean in means.items():
        stored = [row["val_loss"] for row in rows if row["lr"] == rate]
        assert abs(sum(stored) / len(stored) - mean) < 1e-9


def test_two_trials_are_compared_by_their_predictions(trained_once: Project) -> None:
    """Two trials' accuracies are the stored ones; images that only one has right decide."""
    found = trained_once.json("compare", "small", "--trials", "0", "1", "--json")
    rows = {
        row["trial"]: row
        for row in trained_once.json("export", "--study", "small", "--format", "json")
    }
    for one in found["trials"]:
        assert abs(one["accuracy"]["value"] - rows[one["trial"]]["test_acc"]) < 1e-9
        assert abs(one["nll"] - rows[one["trial"]]["test_loss"]) < 1e-6
    apart = (found["only_first_right"] - found["only_second_right"]) / found["images"]
    assert abs(found["difference"]["value"] - apart) < 1e-12
    confused = [
        trained_once.json("confusion", "small", "--trial", str(number), "--json")
        for number in (0, 1)
    ]
    for place, one in ((1, found["classes"][0]), (0, found["classes"][1])):
        shares = [share["value"] for share in one["trials"]]
        assert shares == pytest.approx([each["recall"][place] for each in confused])
        assert one["difference"]["value"] == pytest.approx(shares[0] - shares[1])
        assert one["difference"]["low"] <= one["difference"]["value"] <= one["difference"]["high"]
        assert one["class"] == confused[0]["classes"][place]
    assert sum(one["images"] for one in found["classes"]) == found["images"]
    for side in ("only_first_right", "only_second_right"):
        assert sum(one[side] for one in found["classes"]) == found[side]
    shown = trained_once.run("compare", "small", "--trials", "0", "1")
    assert "sensitivity (" in shown
    assert "McNemar, exact" in shown
    assert "not their settings" in " ".join(shown.split())


def test_what_cannot_be_compared_is_told(trained_once: Project) -> None:
    """Unknown trials, metrics and levels and conflicting options get one line each."""
    for arguments, words in (
        (("small", "--trials", "0", "99"), "has no trial 99"),
        (("small", "--trials", "1", "1"), "compared with itself"),
        (("small", "--by", "depth"), "does not vary 'depth'"),
        (("small", "--metric", "accuracy"), "Unknown metric 'accuracy'"),
        (("small", "--by", "lr", "--reference", "7"), "no level '7'"),
        (("small", "--trials", "0", "1", "--by", "lr"), "drop the other options"),
        (("small", "--split", "val"), "--split needs --trials"),
        (("nowhere",), "nowhere"),
    ):
        said = trained_once.run("compare", *arguments, code=2)
        assert words in said
        assert "Traceback" not in said


def test_gap_is_told_with_its_cause(trained_once: Project) -> None:
    """`gap` gives size, use of selection, selection bias and cause, as text and JSON."""
    shown = " ".join(trained_once.run("gap", "small").split())
    assert "settings, by validation accuracy" in shown
    assert "nothing to explain" in shown
    assert "selection bias" in shown
    found = trained_once.json("gap", "small", "--json")
    rows = trained_once.json("export", "--study", "small", "--format", "json")
    assert abs(found["gap"]["value"] - sum(row["gap"] for row in rows) / len(rows)) < 1e-9
    assert found["cause"].removeprefix("neither: ") in found["verdict"]
    assert len(found["trials"]) == len(rows)
    assert found["optimism"]["trials"] == len(rows)


def test_sheets_are_exported(trained_once: Project) -> None:
    """Comparisons and predictions are exported; the probabilities give the stored accuracy."""
    target = trained_once.folder / "out.json"
    trained_once.run("export", "--study", "small", "--comparisons", "-o", str(target))
    levels = trained_once.json("compare", "small", "--json")["comparisons"][0]["levels"]
    rows = json.loads(target.read_text())
    assert [row["mean"] for row in rows] == [level["mean"]["value"] for level in levels]
    rows = trained_once.json(
        "export", "--study", "small", "--predictions", "--best", "1", "--format", "json"
    )
    best = trained_once.json("export", "--study", "small", "--best", "1", "--format", "json")[0]
    mine = [row for row in rows if row["trial"] == best["trial"]]
    test = [row["right"] for row in mine if (row["split"], row["at"]) == ("test", "best")]
    assert sum(test) / len(test) == best["test_acc"]
    shares = [value for name, value in rows[0].items() if name.startswith("p_")]
    assert abs(sum(shares) - 1) < 1e-6
    trained_once.run("export", "--study", "small", "-o", str(trained_once.folder / "all.xlsx"))
    said = trained_once.run("export", "--study", "small", "-o", "all.pdf", code=2)
    assert "unknown extension .pdf" in said
    said = trained_once.run("export", "--study", "small", "--epochs", "--predictions", code=2)
    assert "cannot be combined" in said


def test_influence_is_told(trained_once: Project) -> None:
    """Each metric has its shares and their significant order."""
    shown = trained_once.run("influence", "small")
    assert "val_loss: shares of the variance" in shown
    found = trained_once.json("influence", "small", "--json")["influences"]
    assert [one["metric"] for one in found] == ["val_loss", "test_acc", "gap"]


def test_two_studies_are_held_against_each_other(trained_once: Project) -> None:
    """`diff` lists the changed keys, and whether the shared settings differ."""
    trained_once.write_study("wider", STUDY.replace("hidden = 4", "hidden = 8"))
    trained_once.run("launch", "--study", "wider", "--workers", "1")
    shown = " ".join(trained_once.run("diff", "small", "wider").split())
    assert "fixed.hidden 4 8" in shown
    assert "2 shared settings" in shown
    found = trained_once.json("diff", "small", "wider", "--json")
    assert found["shared"]["settings"] == 2
    assert found["shared"]["n"] == 2
    assert found["changes"] == [{"key": "fixed.hidden", "stored": 4, "given": 8}]
    assert "compared with itself" in trained_once.run("diff", "small", "small", code=2)


def test_a_version_means_itself(trained_once: Project) -> None:
    """With a second version stored, launching the first file shows only the first version."""
    text = STUDY.replace("[1e-3, 1e-2]", "[1e-3]")
    trained_once.write_study("twice", text)
    trained_once.run("launch", "--study", "twice", "--workers", "1")
    second = text.replace("hidden = 4", "hidden = 8").replace("seeds = 2", "seeds = 3")
    trained_once.write_study("twice", second)
    trained_once.run("launch", "--study", "twice", "--workers", "1", "--new-version")
    trained_once.write_study("twice", text)
    shown = trained_once.run("launch", "--study", "twice", "--workers", "1")
    assert "twice@1 is complete: 2 trials" in shown
    assert "twice@2" not in shown
    assert len(trained_once.json("export", "--study", "twice@1", "--format", "json")) == 2
    script = (
        "import tuner; print(len(tuner.open('twice@1').trials), len(tuner.open('twice').trials))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=trained_once.folder,
        env=dict(trained_once.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "3"]


def test_with_two_versions_the_version_is_always_named(trained_once: Project) -> None:
    """With two versions, every list, table and file names the version; ambiguity is refused."""
    text = STUDY.replace("[1e-3, 1e-2]", "[1e-3]").replace("seeds = 2", "seeds = 1")
    trained_once.write_study("pair", text)
    trained_once.run("launch", "--study", "pair", "--workers", "1")
    assert "pair: best 1 of 1" in trained_once.run("table", "pair")
    trained_once.write_study("pair", text.replace("hidden = 4", "hidden = 8"))
    trained_once.run("launch", "--study", "pair", "--workers", "1", "--new-version")
    titles = {one["study"] for one in trained_once.json("studies", "--json")}
    assert {"pair@1", "pair@2"} <= titles
    assert "pair" not in titles
    assert "pair@2: best 1 of 1" in trained_once.run("table", "pair")
    assert "pair@1: best 1 of 1" in trained_once.run("table", "pair@1")
    assert "pair is pair@2, the newest of 2 versions." in trained_once.run(
        "export", "--study", "pair"
    )
    assert "1 rows of pair@2: p.csv" in trained_once.run("export", "--study", "pair", "-o", "p.csv")
    trained_once.run("plot", "pair", "history")
    assert (trained_once.folder / "pair@2-history.svg").is_file()
    said = trained_once.run("diff", "pair", "pair@2", code=2)
    assert "`tuner diff pair@1 pair@2`" in said
    assert "tuner delete pair@1" in trained_once.run("delete", "pair", "--yes", code=2)
    trained_once.run("delete", "pair@2", "--yes")
    assert "pair: best 1 of 1" in trained_once.run("table", "pair")
