"""The ensemble of the best setting's seeds: what it averages; test data choose nothing."""

from dataclasses import replace

import numpy as np
import pytest

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.ensemble import Ensemble, described, ensemble, figures, sentences
from tuner.errors import UserError
from tuner.records import READY, Metric, Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.statistics.clusters import Clusters
from tuner.statistics.proportions import share_of
from tuner.store.database import Database
from tuner.train.ready_metrics import f1

TRUTH = images(200, 200, each=4)


def study(
    database: Database,
    *,
    seeds: int = 3,
    truths: tuple[Images, ...] = (TRUTH,),
    metrics: tuple[Metric, ...] = (),
) -> Bench:
    """Store two rates, of which 0.01 is better on validation and worse on test."""
    chance = np.random.default_rng(8)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        share = {"val": 0.9, "test": 0.6} if chosen["lr"] == 0.01 else {"val": 0.7, "test": 0.8}
        at = seed % len(truths)
        return Told(
            logs={
                split: hits(chance.random(len(labels)) < share[split], labels)
                for split, labels in truths[at].labels.items()
            },
            fingerprint=f"data-{at}",
        )

    spec = make_spec("rates", dimensions=(Choice("lr", (0.1, 0.01)),), seeds=seeds)
    spec = replace(spec, metrics=metrics)
    data = {f"data-{at}": truth for at, truth in enumerate(truths)}
    return fabricate(database, spec, tell, data=data)


def asked(bench: Bench) -> Ensemble:
    """Return the ensemble of a stored study."""
    with bench.database.transaction() as connection:
        return ensemble(Results(connection, bench.study))


def test_it_averages_the_probabilities_of_the_setting_that_validation_chose(
    database: Database,
) -> None:
    """The ensemble averages the probabilities of all seeds of the setting chosen on validation."""
    bench = study(database)
    found = asked(bench)
    assert found.setting.values == {"lr": 0.01}
    assert [member.seed for member in found.members] == [0, 1, 2]
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        read = [results.predicted(member.trial, "test") for member in found.members]
    shares = np.mean([np.exp(one.log_probabilities) for one in read], axis=0)
    stored = found.predictions["test"]
    np.testing.assert_allclose(np.exp(stored.log_probabilities), shares, rtol=1e-5)
    right = (shares[:, 1] >= 0.5) == (stored.labels == 1)
    assert TRUTH.patients is not None
    wanted = share_of(right, Clusters.of(TRUTH.patients["test"]))
    own = found.splits["test"]
    assert own.figures.accuracy == wanted
    assert own.figures.patients == 50
    assert own.loss == pytest.approx(-np.log(shares[np.arange(200), stored.labels]).mean())
    # Three networks with independent errors are better together.
    accuracies = [member.splits["test"].figures.accuracy.value for member in found.members]
    assert own.figures.accuracy.value > max(accuracies)
    assert own.rates is not None
    table = figures(found)
    assert [row[:2] for row in table.rows[:4]] == [
        ("val", "ensemble"),
        ("val", "seed 0"),
        ("val", "seed 1"),
        ("val", "seed 2"),
    ]
    said = " ".join(sentences(found))
    assert "Selected on validation images only: the best of 2 settings so far" in said
    assert "of all 3 of its seeds (trials 1, 3 and 5)" in said
    body = described(found)
    assert body["splits"]["test"]["patients"] == 50
    assert [member["trial"] for member in body["members"]] == [1, 3, 5]


def test_a_metric_of_the_study_is_computed_from_the_averaged_probabilities(
    database: Database,
) -> None:
    """The ensemble's F1 is shown beside its seeds'; a declared metric needs its code."""
    found = asked(study(database, metrics=(READY["f1"], Metric("dice", "higher", "Overlap."))))
    stored = found.predictions["test"]
    wanted = f1(stored.labels, np.exp(stored.log_probabilities.astype(np.float64)))
    own = found.splits["test"].figures.own
    assert set(own) == {"f1"}
    assert own["f1"].value == pytest.approx(wanted)
    assert own["f1"].low < wanted < own["f1"].high
    assert figures(found).head[-2:] == ("f1", "dice")
    said = " ".join(sentences(found))
    assert f"Its f1 on test is {100 * wanted:.1f}% (" in said
    assert "that of its seeds " in said
    assert "Its dice is not known: it cannot be computed from stored predictions." in said
    assert described(found)["metrics"]["test"]["ensemble"]["f1"]["value"] == pytest.approx(wanted)


def test_one_seed_is_no_ensemble(database: Database) -> None:
    """A study with one seed per setting has no ensemble."""
    with pytest.raises(UserError, match="one seed per setting"):
        asked(study(database, seeds=1))


def test_seeds_of_different_divisions_are_refused(database: Database) -> None:
    """Seeds with different divisions have no ensemble: one trained on another's validation."""
    other = replace(TRUTH, ids={"val": tuple(f"other-{n}" for n in range(200))})
    with pytest.raises(UserError, match="have different val images"):
        asked(study(database, truths=(TRUTH, other)))
