"""The gap of a study: its size, whether selection helps, selection bias, and the cause."""

from typing import Any

import numpy as np
import pytest

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.gap import Cause, Gap, Probed, cause, gap, sentences
from tuner.errors import UserError
from tuner.records import Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.statistics.proportions import newcombe
from tuner.statistics.selection import Candidates, selection_bias
from tuner.statistics.variance import Interval
from tuner.store import checks
from tuner.store.database import Database

RATES = tuple(10.0**-k for k in range(6))
TRUTH = images(300, 200)


def study(
    database: Database,
    val: Any,
    test: Any,
    *,
    seeds: int = 3,
    train: float = 0.97,
    data: Images = TRUTH,
) -> Bench:
    """Store a study whose trials have these accuracies on both splits."""
    chance = np.random.default_rng(1)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        expected = {"val": val(chosen, seed), "test": test(chosen, seed)}
        logs = {
            split: hits(chance.random(len(labels)) < expected[split], labels)
            for split, labels in data.labels.items()
        }
        return Told(logs=logs, train_acc=train)

    spec = make_spec("gaps", dimensions=(Choice("lr", RATES),), seeds=seeds)
    return fabricate(database, spec, tell, data={"data-0": data})


def measured(bench: Bench) -> Gap:
    """Measure a study's gap."""
    with bench.database.transaction() as connection:
        return gap(Results(connection, bench.study))


def steady(accuracy: float) -> Any:
    """Return a constant accuracy."""
    return lambda *_: accuracy


def test_a_gap_is_measured_over_seeds_and_images(database: Database) -> None:
    """95% against 75% is a gap of 20 points, with an interval and two tables."""
    found = measured(study(database, steady(0.95), steady(0.75)))
    assert found.gap.low < 0.2 < found.gap.high
    assert found.gap.low > 0.1
    assert (found.seeds, found.val_images, found.test_images) == (3, 300, 200)
    assert len(found.settings) == 6
    assert all(len(one.trials) == 3 for one in found.settings)
    assert len(found.trials) == 18
    first = found.trials[0]
    wanted = newcombe(first.val_acc * 300, 300, first.test_acc * 200, 200)
    assert (first.gap.low, first.gap.high) == (wanted.low, wanted.high)
    assert sentences(found)[0].startswith("Test accuracy is below validation accuracy: 9")


def test_no_gap_is_called_sampling_error(database: Database) -> None:
    """Equal accuracies are not distinguishable, and the cause is sampling error."""
    found = measured(study(database, steady(0.9), steady(0.9), train=0.9))
    assert found.gap.low < 0 < found.gap.high
    assert found.cause == "neither: within sampling error"
    assert "not distinguishable" in sentences(found)[0]


@pytest.mark.parametrize("train", [0.9, 0.99])
def test_a_shift_is_told_although_accuracy_does_not_show_it(
    database: Database, train: float
) -> None:
    """Test images that a classifier tells apart are warned of, if validation differs less."""
    bench = study(database, steady(0.9), steady(0.9), train=train)

    def said(val: float, test: float) -> str:
        probes = probed(test)
        probes[0] |= {"auc": val, "low": val - 0.02, "high": val + 0.02}
        with database.transaction() as connection:
            checks.keep(connection, bench.study.study_id, {"data": [{"probes": probes}]})
        return " ".join(sentences(measured(bench)))

    warning = "However, the test images come from a different distribution"
    assert warning in said(0.5, 0.95)
    assert warning not in said(0.9, 0.9)
    assert warning not in said(0.5, 0.5)


def test_choosing_on_validation_is_judged(database: Database) -> None:
    """Selection on validation helps if test follows it, and harms if test is reversed."""
    rising = lambda chosen, _seed: 0.6 + 0.06 * RATES.index(chosen["lr"])  # noqa: E731
    falling = lambda chosen, _seed: 0.9 - 0.06 * RATES.index(chosen["lr"])  # noqa: E731
    helps = measured(study(database, rising, rising))
    assert helps.correlation is not None
    assert helps.correlation.low > 0
    assert "Better on validation means better on test" in " ".join(sentences(helps))
    with database.transaction() as connection:
        assert connection
    harms = measured(study_named(database, rising, falling))
    assert "Better on validation means worse on test" in " ".join(sentences(harms))


def study_named(database: Database, val: Any, test: Any) -> Bench:
    """Store another study on separate data."""
    chance = np.random.default_rng(2)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        expected = {"val": val(chosen, seed), "test": test(chosen, seed)}
        logs = {
            split: hits(chance.random(len(of)) < expected[split], of)
            for split, of in TRUTH.labels.items()
        }
        return Told(logs=logs, fingerprint="data-1")

    spec = make_spec("other", dimensions=(Choice("lr", RATES),), seeds=3)
    return fabricate(database, spec, tell, data={"data-1": TRUTH})


def test_stored_probes_decide_the_cause(database: Database) -> None:
    """The cause uses the newest stored probe, from `tuner check` or from a launch."""
    bench = study(database, steady(0.95), steady(0.75), train=0.95)
    unseen = measured(bench)
    assert unseen.cause == "not examined"
    assert "Run `tuner check gaps@1` to check them" in " ".join(sentences(unseen))
    with database.transaction() as connection:
        checks.keep(connection, bench.study.study_id, {"data": [{"probes": probed(0.9)}]})
    found = measured(bench)
    assert found.cause == "different distribution"
    assert "AUC 0.90" in " ".join(sentences(found))
    with database.transaction() as connection:
        checks.keep(connection, bench.study.study_id, {"data": [{"probes": probed(0.51)}]})
    assert measured(bench).cause == "unexplained"


def probed(test: float) -> list[dict[str, Any]]:
    """Return two probes in their stored form."""
    return [
        {"first": "train", "second": name, "auc": auc, "low": auc - 0.04, "high": auc + 0.04}
        for name, auc in (("val", 0.5), ("test", test))
    ]


APART = Interval(0.2, 0.15, 0.25)
NONE = Interval(0.0, -0.02, 0.02)
SHIFTED = {"val": Probed(NONE.scaled(1)), "test": Probed(Interval(0.9, 0.85, 0.95))}


@pytest.mark.parametrize(
    ("gap_seen", "fitted", "shift", "wanted"),
    [
        (APART, APART, True, "both"),
        (APART, NONE, True, "different distribution"),
        (NONE, APART, False, "overfitting"),
        (NONE, APART, True, "overfitting"),
        (NONE, NONE, False, "neither: within sampling error"),
        (APART, NONE, False, "unexplained"),
        (APART, None, None, "not examined"),
    ],
)
def test_cause_follows_from_what_is_seen(
    gap_seen: Interval, fitted: Interval | None, shift: bool | None, wanted: Cause
) -> None:
    """Each combination of gap, overfitting and shift gives its cause."""
    val, far = Probed(Interval(0.5, 0.46, 0.54)), Probed(Interval(0.9, 0.85, 0.95))
    images_seen = {} if shift is None else {"val": val, "test": far if shift else val}
    assert cause(gap_seen, fitted, images_seen) == wanted


def test_one_seed_is_over_images_alone(database: Database) -> None:
    """With one seed the gap is over images alone, says so, and gives no training figure."""
    found = measured(study(database, steady(0.95), steady(0.75), seeds=1))
    assert found.fitted is None
    assert "one seed" in sentences(found)[0]
    assert "without the variation between seeds" in " ".join(sentences(found))


def test_without_a_test_set_the_way_out_is_told(database: Database) -> None:
    """Without a test set there is no gap; the message refers to the documentation."""
    data = images(100, 0)
    chance = np.random.default_rng(3)
    spec = make_spec("untested", seeds=2)

    def tell(*_: object) -> Told:
        return Told(logs={"val": hits(chance.random(100) < 0.9, data.labels["val"])})

    bench = fabricate(database, spec, tell, data={"data-0": data})
    with pytest.raises(UserError, match="has no test set"):
        measured(bench)
    nothing = fabricate(database, make_spec("empty"), lambda *_: None, data={})
    with pytest.raises(UserError, match="No trial of empty is complete"):
        measured(nothing)


def test_luck_of_the_winner_is_what_it_is() -> None:
    """The estimated selection bias of 36 equal trials is about the true one."""
    chance = np.random.default_rng(4)
    said, true = [], []
    for _ in range(40):
        quality = 0.9 + 0.02 * chance.standard_normal(36)
        values = (chance.random((36, 400)) < quality[:, None]).astype(float)
        everything = np.arange(36)
        tried = Candidates(values.mean(axis=1), everything // 3, everything, values)
        found = selection_bias(tried, larger=True)
        assert found is not None
        assert found.over_seeds
        said.append(found.value)
        true.append(values.mean(axis=1).max() - 0.9)
    assert np.mean(said) == pytest.approx(np.mean(true), rel=0.2)


def test_seeds_that_only_contenders_have_do_not_move_the_mean(database: Database) -> None:
    """If only two of six settings have further seeds, the gap is over these two, and says so."""
    chance = np.random.default_rng(6)

    def tell(chosen: dict[str, Value], seed: int) -> Told | None:
        good = chosen["lr"] in RATES[:2]
        if seed and not good:
            return None
        expected = 0.95 if good else 0.6
        logs = {
            split: hits(chance.random(len(labels)) < expected, labels)
            for split, labels in TRUTH.labels.items()
        }
        return Told(logs=logs)

    spec = make_spec("contended", dimensions=(Choice("lr", RATES),), seeds=4)
    found = measured(fabricate(database, spec, tell, data={"data-0": TRUTH}))
    assert found.val_acc.low < 0.95 < found.val_acc.high
    assert found.val_acc.high - found.val_acc.low < 0.06
    assert found.without_peers == 4
    said = " ".join(sentences(found))
    counted = "they count in the table and the rank correlation, but not in the gap."
    assert f"4 complete trials belong to settings with missing seeds; {counted}" in said


def test_images_of_their_own_under_one_seed_still_leave_an_interval(database: Database) -> None:
    """With one seed and a validation split per setting, the gap still has an interval."""
    chance = np.random.default_rng(7)
    data = {
        f"own-{n}": Images(TRUTH.labels, {"val": tuple(f"{n}-{i}" for i in range(300))})
        for n in range(len(RATES))
    }

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        logs = {
            split: hits(chance.random(len(labels)) < 0.9, labels)
            for split, labels in TRUTH.labels.items()
        }
        return Told(logs=logs, fingerprint=f"own-{RATES.index(float(chosen['lr']))}")

    spec = make_spec("redivided", dimensions=(Choice("lr", RATES),), seeds=1)
    found = measured(fabricate(database, spec, tell, data=data))
    assert not found.images_shared
    assert found.gap.high - found.gap.low > 0.05


def test_luck_is_told_among_all_though_images_of_the_best_are_read() -> None:
    """The bias is that among all 400 trials, even if only the best 20 have their images read."""
    chance = np.random.default_rng(8)
    values = (chance.random((400, 300)) < 0.85).astype(float)
    settings, means = np.arange(400) // 2, values.mean(axis=1)
    order = np.argsort(-means)
    few, every = order[:20], np.arange(400)
    some = selection_bias(Candidates(means, settings, few, values[few]), larger=True)
    all_of = selection_bias(Candidates(means, settings, every, values), larger=True)
    assert some is not None
    assert all_of is not None
    assert some.trials == 400
    assert some.value == pytest.approx(all_of.value, rel=0.35)
