"""The winner of studies of every shape: without a test set, with three classes, with one trial."""

from typing import Any

import numpy as np
import pytest

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.winner import Winner, described, figures, sentences, winner
from tuner.errors import UnknownStudyError, UserError
from tuner.records import Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.statistics.proportions import wilson
from tuner.store.database import Database

RATES = (1e-3, 1e-2, 1e-1)


def study(database: Database, data: Images, *, pruned: float | None = None, **shape: Any) -> Bench:
    """Store a study whose last learning rate is the best, by share of correct images."""
    chance = np.random.default_rng(1)

    def logs(labels: Any, expected: float) -> Any:
        right = chance.random(len(labels)) < expected
        if len(data.classes) == 2:
            return hits(right, labels)
        shares = np.full((len(labels), len(data.classes)), 0.1)
        shares[np.arange(len(labels)), np.where(right, labels, (labels + 1) % 3)] = 0.8
        return np.asarray(np.log(shares), np.float32)

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        if chosen["lr"] == pruned:
            return Told(state="PRUNED", val_loss=9.0)
        expected = 0.6 + 0.1 * RATES.index(float(chosen["lr"]))
        return Told(logs={name: logs(one, expected) for name, one in data.labels.items()})

    spec = make_spec("won", dimensions=(Choice("lr", shape.pop("rates", RATES)),), **shape)
    return fabricate(database, spec, tell, data={"data-0": data})


def read(bench: Bench, number: int | None = None) -> Winner:
    """Read a study's winner."""
    with bench.database.transaction() as connection:
        return winner(Results(connection, bench.study), number)


def test_the_winner_has_its_figures(database: Database) -> None:
    """The winner has its seeds' means, figures by class, the gap and the selection bias."""
    found = read(study(database, images(300, 200), seeds=3))
    assert found.settings == {"lr": 0.1}
    assert found.setting is not None
    assert (found.setting.rank, found.over_seeds["val_acc"].n) == (1, 3)
    rates = found.rates["test"]
    assert (rates.positives, rates.negatives) == (100, 100)
    share = round(rates.sensitivity.value * 100)
    assert rates.sensitivity == wilson(share, 100)
    assert found.selection_bias is not None
    assert found.setting_gap is not None
    assert described(found)["splits"]["test"]["sensitivity"]["low"] == rates.sensitivity.low
    table = figures(found)
    head, rows = table.head, table.rows
    assert len(head) == len(rows[0]) == len(rows[1]) == 9


def test_without_a_test_set_nothing_is_made_up(database: Database) -> None:
    """Without a test set there is no gap and no cause, and the words say that test is unknown."""
    found = read(study(database, images(300, 0), seeds=2))
    assert found.gap is None
    assert found.selection_bias is not None
    assert [one.split for one in found.splits] == ["val"]
    assert any("There is no test set" in one for one in sentences(found))
    assert not any("Cause" in one for one in sentences(found))
    assert described(found)["study_gap"] is None


def test_three_classes_have_no_sensitivity(database: Database) -> None:
    """With three classes there are no columns for sensitivity, specificity and AUC."""
    labels = {"val": np.arange(90) % 3, "test": np.arange(60) % 3}
    found = read(study(database, Images(labels, classes=("a", "b", "c")), seeds=2))
    assert not found.rates
    table = figures(found)
    head, rows = table.head, table.rows
    assert "sensitivity" not in head
    assert {len(row) for row in rows} == {len(head)}


def test_limits_are_accuracies_that_can_be(database: Database) -> None:
    """The limits of an accuracy over two seeds far apart are cut to 0 and 1."""
    chance = iter([0.5, 0.99] * 2)
    truth = images(100, 100)

    def tell(_chosen: dict[str, Value], _seed: int) -> Told:
        share = next(chance)
        logs = {
            name: hits(np.arange(len(labels)) < share * len(labels), labels)
            for name, labels in truth.labels.items()
        }
        return Told(logs=logs)

    spec = make_spec("apart", dimensions=(Choice("lr", (1e-3,)),), seeds=2)
    found = read(fabricate(database, spec, tell, data={"data-0": truth}))
    mean = found.over_seeds["test_acc"]
    assert (mean.low, mean.high) == (0.0, 1.0)


def test_one_trial_is_its_own_winner(database: Database) -> None:
    """With a single trial, there is neither selection bias nor a second seed."""
    found = read(study(database, images(), rates=(1e-3,), seeds=1))
    assert found.selection_bias is None
    assert any("the only completed seed of its setting" in one for one in sentences(found))


def test_what_is_not_complete_is_no_winner(database: Database) -> None:
    """Pruned and missing trials are reported; the best of the others wins."""
    bench = study(database, images(), pruned=0.1, seeds=1)
    assert read(bench).settings == {"lr": 0.01}
    with pytest.raises(UserError, match="is pruned"):
        read(bench, 2)
    with pytest.raises(UnknownStudyError, match="no trial 7"):
        read(bench, 7)


def test_nothing_complete_is_told(database: Database) -> None:
    """A study without a complete trial has no winner yet."""
    bench = study(database, images(), rates=(0.1,), pruned=0.1, seeds=1)
    with pytest.raises(UserError, match="is complete yet"):
        read(bench)
