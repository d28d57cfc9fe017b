"""Settings compared with the best one: chosen on validation, checked on test."""

from typing import Any

import numpy as np
import pytest

from tests.answers.fabricate import Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.compare import Comparison, compare
from tuner.answers.setting_comparison import check, check_sentence, compare_settings, why_not
from tuner.errors import UserError
from tuner.records import Value
from tuner.results.results import Results
from tuner.spec.space import Choice
from tuner.store.database import Database

DEPTHS, RATES, LOSSES = (1, 2), (0.1, 0.01), ("bce", "focal")


def study(database: Database, *, lost: bool = False, seeds: int = 3, **more: Any) -> Bench:
    """Store a grid in which depth 2 with rate 0.01 is best on validation, and worst on test.

    With `lost` it diverged under its last seed.
    """
    chance = np.random.default_rng(4)
    truth = images(400, 400)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        best = chosen["depth"] == 2 and chosen["lr"] == 0.01
        if best and lost and seed == seeds - 1:
            return Told(state="DIVERGED", val_loss=9.0)
        share = {"val": 0.95 if best else 0.7, "test": 0.6 if best else 0.7}
        return Told(
            logs={
                split: hits(chance.random(len(labels)) < share[split], labels)
                for split, labels in truth.labels.items()
            }
        )

    dimensions = (Choice("depth", DEPTHS), Choice("lr", RATES), Choice("loss", LOSSES))
    spec = make_spec("grid", dimensions=dimensions, seeds=seeds, metric="val_acc", **more)
    return fabricate(database, spec, tell, data={"data-0": truth})


def compared(bench: Bench) -> tuple[Comparison, Comparison]:
    """Compare the settings of a study, on validation and on test."""
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        found = compare_settings(results)
        assert found is not None
        checked = check(results, found, whole=True)
        assert checked is not None
    return found, checked


def test_settings_are_compared_with_the_best_by_the_studys_metric(database: Database) -> None:
    """Both settings of the best pair are tied and the six others are worse; n counts seeds."""
    found, _ = compared(study(database))
    assert found.factor == "depth,lr,loss"
    assert found.measure.name == "val_acc"
    assert (found.paired, found.seeds, found.images) == (True, 3, 400)
    assert set(found.tied) == {"depth=2 lr=0.01 loss=bce", "depth=2 lr=0.01 loss=focal"}
    assert sum(row.differs for row in found.rows) == 6
    assert f"6 of the other 7 are worse than {found.reference}." in found.sentences


def test_test_images_check_what_validation_chose(database: Database) -> None:
    """The reference stays the setting chosen on validation, even if others do better on test."""
    found, checked = compared(study(database))
    assert checked.measure.name == "test_acc"
    assert checked.reference == found.reference
    assert checked.named
    said = check_sentence(checked)
    assert said.startswith(f"On test, {found.reference} has an accuracy of ")
    assert said.endswith("6 others are significantly better.")


def test_a_setting_that_lost_a_seed_is_not_the_best(database: Database) -> None:
    """A setting that lost a seed is set aside with the reason; the others keep all their seeds."""
    found, _ = compared(study(database, lost=True))
    assert found.reference not in ("depth=2 lr=0.01 loss=bce", "depth=2 lr=0.01 loss=focal")
    assert found.seeds == 3
    assert (
        "depth=2 lr=0.01 loss=bce is not compared: only 2 of its 3 seeds are complete (1 diverged)."
        in found.sentences
    )


def test_combinations_of_some_factors_are_compared_in_the_same_places(database: Database) -> None:
    """With two of three factors named, a seed's value is the mean over the third."""
    bench = study(database)
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        (found,) = compare(results, by=("depth,lr",), metric="val_acc")
        with pytest.raises(UserError, match="does not vary 'width'"):
            compare(results, by=("depth,width",))
    assert (found.paired, found.seeds, found.places) == (True, 3, 2)
    assert found.tied == ("depth=2 lr=0.01",)
    assert [row.standing.trials for row in found.rows] == [6, 6, 6, 6]


def test_one_seed_gives_no_comparison_of_settings(database: Database) -> None:
    """With one seed only factors are compared, not settings."""
    bench = study(database, seeds=1)
    with bench.database.transaction() as connection:
        assert compare_settings(Results(connection, bench.study)) is None


def test_too_many_settings_are_ranked_and_not_compared(database: Database) -> None:
    """More than 50 settings are not compared; the answer says where they are ranked."""
    truth = images(10, 10)

    def tell(_chosen: dict[str, Value], _seed: int) -> Told:
        right = np.arange(10) < 7
        return Told(logs={split: hits(right, of) for split, of in truth.labels.items()})

    rates = tuple(1.0 / n for n in range(1, 52))
    spec = make_spec("many", dimensions=(Choice("lr", rates),), seeds=2)
    bench = fabricate(database, spec, tell, data={"data-0": truth})
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        assert compare_settings(results) is None
        assert why_not(results).startswith("There are too many settings (51) to compare one by one")
