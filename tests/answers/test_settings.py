"""Settings over their seeds, in a real database: the steady one ranks above the lucky one."""

from typing import Any

import numpy as np
import pytest

from tests.answers.fabricate import Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.plain import plain
from tuner.answers.settings import Setting, best_sentence, settings, short_names
from tuner.answers.winner import choice, seeds, winner
from tuner.errors import UserError
from tuner.records import Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.store.database import Database
from tuner.store.overview import overview

LUCKY, STEADY = 0.1, 0.01
SHARES: dict[float, tuple[float | str, ...]] = {
    LUCKY: (0.93, 0.5, 0.5),
    STEADY: (0.85, 0.86, 0.84),
}
"""The share of correct images, by learning rate and seed; a text is a state."""


def study(database: Database, shares: dict[float, tuple[float | str, ...]] = SHARES) -> Bench:
    """Store a study of learning rates with given accuracies on validation and on test."""
    truth = images(200, 100)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        share = shares[float(chosen["lr"])][seed]
        if isinstance(share, str):
            return Told(state=share, val_loss=9.0)
        logs = {
            split: hits(np.arange(len(labels)) < share * len(labels), labels)
            for split, labels in truth.labels.items()
        }
        return Told(logs=logs)

    spec = make_spec(
        "lucky",
        dimensions=(Choice("lr", tuple(shares)),),
        seeds=len(next(iter(shares.values()))),
        metric="val_acc",
    )
    return fabricate(database, spec, tell, data={"data-0": truth})


def read(bench: Bench) -> list[Setting]:
    """Read the study's settings."""
    with bench.database.transaction() as connection:
        return settings(Results(connection, bench.study))


def test_the_steady_setting_is_ranked_above_the_lucky_one(database: Database) -> None:
    """0.85, 0.86 and 0.84 rank above 0.93, 0.5 and 0.5, although these include the best trial."""
    bench = study(database)
    found = read(bench)
    assert [dict(one.values) for one in found] == [{"lr": STEADY}, {"lr": LUCKY}]
    val, test = found[0].means["val_acc"], found[0].means["test_acc"]
    assert val is not None
    assert test is not None
    assert val.value == pytest.approx(0.85)
    assert val.n == 3
    assert test.value == pytest.approx(0.85)
    trials = [row for setting in found for row in setting.seeds]
    assert max(trials, key=lambda row: row["val_acc"])["lr"] == LUCKY


def test_its_median_seed_stands_for_it(database: Database) -> None:
    """The setting's network is that of its median seed, 0.85."""
    bench = study(database)
    best = read(bench)[0].median
    assert best is not None
    assert best["val_acc"] == 0.85


def test_the_study_ends_with_the_steady_setting(database: Database) -> None:
    """The study's final network is the median seed's, shown with the figures of the other seeds."""
    bench = study(database)
    with bench.database.transaction() as connection:
        found = winner(Results(connection, bench.study))
        seen = overview(connection, bench.study).best
    assert found.settings == {"lr": STEADY}
    assert found.trial.row.value == 0.85
    assert found.trial.rank == 3
    assert [cells[-2:] for cells in seeds(found).rows][:3] == [
        ("0.0", "this network"),
        ("0.0", ""),
        ("0.0", ""),
    ]
    assert "the best of 2 settings so far by mean val_acc" in choice(found)
    assert "trial 1 (seed 0), the setting's median seed" in choice(found)
    assert found.selection_bias is not None
    assert (found.selection_bias.settings, found.selection_bias.trials) == (2, 6)
    assert seen is not None
    assert (seen.chosen, seen.number, seen.seeds) == ({"lr": STEADY}, 1, 3)
    assert seen.mean is not None
    assert seen.mean["value"] == pytest.approx(0.85)


def test_another_seed_of_the_best_setting_can_be_taken(database: Database) -> None:
    """Another seed of the best setting can be chosen; an unknown one is refused with the list."""
    bench = study(database)
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        found = winner(results, seed=1)
        assert (found.settings, found.trial.row.value) == ({"lr": STEADY}, 0.86)
        assert "selected by its seed" in choice(found)
        with pytest.raises(UserError, match="no complete trial with seed 7; it has 0, 1, 2"):
            winner(results, seed=7)


def test_the_closing_words_name_it(database: Database) -> None:
    """The closing words name the best setting, its validation figure first, then test."""
    bench = study(database)
    with bench.database.transaction() as connection:
        said = best_sentence(Results(connection, bench.study))
    assert said == (
        "The best of 2 settings by val_acc is lr=0.01: mean val_acc 85.0% over 3 seeds (95% "
        "interval: 82.5 to 87.5). "
        "On test, its accuracy is 85.0% (95% interval over seeds: 82.5 to 87.5)."
    )


def test_what_became_of_lost_seeds_is_told(database: Database) -> None:
    """Lost seeds are counted by state; a setting with all seeds ranks above the others."""
    shares: dict[float, tuple[float | str, ...]] = {
        0.1: (0.99, "DIVERGED", 0.99),
        0.01: (0.7, 0.7, 0.7),
        0.001: ("FAILED", "PRUNED", "PRUNED"),
    }
    bench = study(database, shares)
    found = read(bench)
    told: list[Any] = [(one.values["lr"], one.rank, one.complete, one.lost) for one in found]
    assert told == [
        (0.01, 1, 3, ""),
        (0.1, 2, 2, "1 diverged"),
        (0.001, None, 0, "2 pruned, 1 failed"),
    ]
    assert plain(found[2])["means"]["val_acc"] is None


def test_settings_are_called_by_what_they_differ_in(database: Database) -> None:
    """Names leave out what all settings have in common."""
    bench = study(database)
    found = read(bench)
    assert list(short_names(found, bench.study.spec).values()) == ["lr=0.01", "lr=0.1"]
    assert list(short_names(found[:1], bench.study.spec).values()) == ["lr=0.01"]
