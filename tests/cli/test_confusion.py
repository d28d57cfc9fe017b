"""`tuner confusion` on a trained study agrees with its tables."""

import json
import re

from tests.cli.conftest import Project


def test_counts_give_the_tables_accuracies(trained_once: Project) -> None:
    """For either split and epoch the counts give the accuracy in the export."""
    row = json.loads(trained_once.run("export", "--study", "small", "--format", "json"))[1]
    for split, at, prefix in (("val", "best", ""), ("test", "last", "last_")):
        found = trained_once.json(
            *("confusion", "small", "--trial", "1", "--split", split, "--at", at, "--json")
        )
        right = sum(found["counts"][k][k] for k in range(2))
        assert right / sum(map(sum, found["counts"])) == row[f"{prefix}{split}_acc"]
        assert found["accuracy"] == row[f"{prefix}{split}_acc"]
        assert (found["split"], found["at"], found["trial"]) == (split, at, 1)
        assert found["epoch"] == (row["best_epoch"] if at == "best" else 3)
        assert sum(found["images"]) == (40 if split == "val" else 30)


def test_the_best_trial_is_shown_on_the_test_images(trained_once: Project) -> None:
    """Without options it shows the best trial's confusion matrix on the test set."""
    first = trained_once.json("table", "small", "--best", "1", "--json")["settings"][0]
    trials = trained_once.json("table", "small", "--json")["best"]
    leader = next(row for row in trials if row["trial"] == first["median_trial"])
    out = trained_once.run("confusion", "small")
    assert f"small: trial {leader['trial']}, test images, best epoch {leader['best_epoch']}" in out
    assert re.search(r"^class0 +\d+ +[\d·]+ +15 +\d+\.\d%", out, re.MULTILINE), out
    assert re.search(r"^precision +[\d–]+%? +[\d–]+%?", out, re.MULTILINE), out
    assert f"accuracy {100 * leader['test_acc']:.1f}%" in out


def test_what_does_not_exist_is_told(trained_once: Project) -> None:
    """An unknown study or trial exits with 2 and says what to do."""
    assert "small has no trial 99" in trained_once.run(
        "confusion", "small", "--trial", "99", code=2
    )
    assert "small" in trained_once.run("confusion", "smal", code=2)
