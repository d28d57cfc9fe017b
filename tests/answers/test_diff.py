"""Two studies compared with each other: their files, and the settings that both have."""

from dataclasses import replace

import numpy as np
import pytest

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.diff import Diff, diff
from tuner.errors import UserError
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.spec.study import Spec
from tuner.store.database import Database

RATES = (1e-3, 1e-2)
TRUTH = images()


def named(name: str, rates: tuple[float, ...] = RATES, seeds: int = 4, epochs: int = 3) -> Spec:
    """Return a study of learning rates."""
    return make_spec(name, dimensions=(Choice("lr", rates),), seeds=seeds, epochs=epochs)


def store(
    database: Database, spec: Spec, accuracy: float, data: str = "data-0", truth: Images = TRUTH
) -> Bench:
    """Store a study with these test accuracies and a constant validation accuracy."""
    chance = np.random.default_rng(len(spec.name) + int(1000 * accuracy))

    def tell(*_: object) -> Told:
        logs = {
            split: hits(chance.random(len(of)) < (accuracy if split == "test" else 0.9), of)
            for split, of in truth.labels.items()
        }
        return Told(logs=logs, fingerprint=data)

    return fabricate(database, spec, tell, data={data: truth})


def between(one: Bench, other: Bench, metric: str | None = None) -> Diff:
    """Compare two studies."""
    with one.database.transaction() as connection:
        return diff(Results(connection, one.study), Results(connection, other.study), metric)


def test_files_and_results_are_told_apart(database: Database) -> None:
    """A diff lists changed keys with both values, and which study is better on its images."""
    one = store(database, named("one"), 0.7)
    other = store(database, named("other", epochs=5), 0.9, "data-1")
    found = between(one, other)
    assert [(c.key, c.stored, c.given) for c in found.changes] == [("fixed.epochs", 3, 5)]
    assert found.shared is not None
    assert (found.shared.settings, found.shared.seeds, found.shared.images) == (2, 4, 200)
    assert found.shared.differs
    assert 0.1 < found.shared.difference.low < 0.2 < found.shared.difference.high < 0.3
    assert "other is better than one in test_acc in 2 shared settings" in found.verdict
    back = between(other, one)
    assert "one is worse than other" in back.verdict


def test_only_settings_that_both_have_are_held_against_each_other(database: Database) -> None:
    """Rates and seeds that only one study has do not enter the difference."""
    one = store(database, named("one", seeds=3), 0.9)
    other = store(database, named("other", (1e-2, 1e-1)), 0.9, "data-1")
    found = between(one, other)
    assert found.shared is not None
    assert (found.shared.settings, found.shared.seeds) == (1, 3)
    assert "not distinguishable" in found.verdict
    alone = store(database, named("alone", (0.5,)), 0.9, "data-2")
    assert "their results cannot be compared" in between(one, alone).verdict


def test_other_images_and_a_single_seed_are_said(database: Database) -> None:
    """With different images the interval is over seeds; with one seed there is no verdict."""
    one = store(database, named("one"), 0.7)
    elsewhere = replace(TRUTH, ids={"test": tuple(f"other-{n}" for n in range(200))})
    other = store(database, named("other"), 0.9, "data-1", elsewhere)
    found = between(one, other)
    assert found.shared is not None
    assert found.shared.images == 0
    assert "not on the same images" in found.verdict
    single = store(database, named("single", seeds=1), 0.9, "data-2")
    assert "one seed cannot distinguish" in between(one, single).verdict


def test_figures_beside_the_usual_and_what_cannot_be_asked(database: Database) -> None:
    """Other metrics work; the same study twice and an unknown metric are refused."""
    one = store(database, named("one"), 0.7)
    other = store(database, named("other"), 0.9, "data-1")
    assert "in val_loss" in between(one, other, "val_loss").verdict
    with pytest.raises(UserError, match="compared with itself"):
        between(one, one)
    with pytest.raises(UserError, match="Unknown metric 'speed'"):
        between(one, other, "speed")
