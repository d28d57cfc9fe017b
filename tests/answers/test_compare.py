"""Comparisons of a stored study's settings: the verdict, its scope, and what it leaves out."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.columns import units
from tuner.answers.compare import Comparison, Options, cells, compare
from tuner.answers.plain import plain
from tuner.answers.sheets.contents import comparisons
from tuner.errors import UserError
from tuner.records import FRACTION, SHARE, Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.spec.study import Replicates, Spec
from tuner.store.database import Database

KINDS = ("cosine", "exponential", "step")
TRUTH = images()
Accuracy = Callable[[dict[str, Value], int], float]


def schedules(seeds: int = 5, *more: Choice, **search: Any) -> Spec:
    """Return a study of three schedules."""
    return make_spec("sched", dimensions=(Choice("scheduler", KINDS), *more), seeds=seeds, **search)


def told(accuracy: float, chance: np.random.Generator, data: Images = TRUTH) -> Told:
    """Return a complete trial with this expected accuracy on every split."""
    return Told(
        logs={
            split: hits(chance.random(len(labels)) < accuracy, labels)
            for split, labels in data.labels.items()
        }
    )


def by_accuracy(database: Database, spec: Spec, accuracy: Accuracy, seed: int = 1) -> Bench:
    """Store a study whose trials predict each image correctly with the given probability."""
    chance = np.random.default_rng(seed)
    return fabricate(database, spec, lambda chosen, at: told(accuracy(chosen, at), chance))


def judged(bench: Bench, *asked: str | None, **more: Any) -> Comparison:
    """Compare by scheduler, on test unless asked otherwise, and return the comparison."""
    more = {"metric": "test_acc", **more}
    with bench.database.transaction() as connection:
        (found,) = compare(Results(connection, bench.study), by=("scheduler",), **more)
    return found


def one_is_worse(chosen: dict[str, Value], _seed: int) -> float:
    """Return the accuracy of a schedule: step is worse than the other two."""
    return 0.75 if chosen["scheduler"] == "step" else 0.95


def test_a_real_difference_is_told_and_equals_are_tied(database: Database) -> None:
    """Step is 20 points worse and is called so; the other two are tied."""
    found = judged(by_accuracy(database, schedules(), one_is_worse))
    assert found.measure.name == "test_acc"
    assert set(found.tied) == {"cosine", "exponential"}
    worse = next(row for row in found.rows if row.standing.level == "step")
    assert worse.against is not None
    assert worse.against.differs
    assert -0.3 < worse.against.difference.low < -0.2 < worse.against.difference.high < -0.1
    assert "step is worse than" in found.verdict
    assert "are not distinguishable" in found.verdict
    assert "5 seeds, 200 images" in found.verdict
    assert all(row.n == 5 for row in found.rows)


def test_a_plan_is_told_with_how_rough_it_is(database: Database) -> None:
    """A plan states its uncertainty: a range in words, and both ends in JSON."""
    found = judged(
        by_accuracy(database, schedules(3), lambda *_: 0.9), options=Options(resolve=4.0)
    )
    made = found.plan
    assert made is not None
    assert made.seeds is not None
    assert made.low is not None
    (words,) = [one for one in found.sentences if "to detect" in one or "about 8 times" in one]
    more = r"about \d+ more seeds? \(\d+ (to [\d,]+|or more)\) to detect a difference of 4 points"
    assert re.search(rf"{more}|about 8 times in 10", words)
    assert made.low <= made.seeds <= (made.high or 1000)


@pytest.mark.parametrize(
    ("metric", "resolve", "said"),
    [
        ("test_acc", 100.0, "differ by at most 100. Give it in points, such as 1."),
        ("test_auc", 1.0, "differ by at most 1. Give it as a fraction, such as 0.01."),
    ],
)
def test_a_difference_that_cannot_be_is_not_planned_for(
    database: Database, metric: str, resolve: float, said: str
) -> None:
    """A difference of 1 in AUC, meant as one point, is refused with the right unit."""
    bench = by_accuracy(database, schedules(2), lambda *_: 0.9)
    with pytest.raises(UserError, match=said):
        judged(bench, metric=metric, options=Options(resolve=resolve))


def test_a_mean_has_its_unit_with_or_without_the_difference(database: Database) -> None:
    """The unit of a mean does not depend on which other columns are exported."""
    bench = by_accuracy(database, schedules(2), lambda *_: 0.9)
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        assert units(("level", "mean"), results, compared="test_acc")["mean"] == SHARE
        assert (
            units(("mean_low", "difference"), results, compared="val_auc")["mean_low"] == FRACTION
        )


def test_means_are_those_of_the_stored_figures(database: Database) -> None:
    """Means computed from predictions equal those of the trials' rows."""
    bench = by_accuracy(database, schedules(3), one_is_worse)
    from tuner.results import trial_rows

    with bench.database.transaction() as connection:
        rows = trial_rows(connection, bench.study)
    for metric in ("test_acc", "val_acc", "val_loss", "test_loss", "gap"):
        found = judged(bench, metric=metric)
        assert {row.standing.level for row in found.rows} == {one["scheduler"] for one in rows}
        for row in found.rows:
            stored = [one[metric] for one in rows if one["scheduler"] == row.standing.level]
            assert row.mean is not None
            assert row.mean.value == pytest.approx(np.mean(stored), abs=1e-7), metric


def test_smaller_is_better_where_it_is(database: Database) -> None:
    """For loss and gap the smallest value is the best."""
    bench = by_accuracy(database, schedules(), one_is_worse)
    found = judged(bench, metric="val_loss")
    assert "step" not in found.tied
    assert "step is worse than" in found.verdict
    assert "nats" in found.verdict


def test_named_reference_is_held_against_all(database: Database) -> None:
    """With --reference every level is compared with that one; an unknown level is refused."""
    bench = by_accuracy(database, schedules(), one_is_worse)
    found = judged(bench, options=Options(reference="step"))
    assert found.reference == "step"
    assert "cosine is better than step" in found.verdict
    with pytest.raises(UserError, match="no level 'linear'"):
        judged(bench, options=Options(reference="linear"))


def test_one_seed_gives_no_verdict(database: Database) -> None:
    """With one seed nothing is called different, however large the difference."""
    found = judged(by_accuracy(database, schedules(1), one_is_worse))
    assert "a single seed cannot rule out chance" in found.verdict
    assert "only the variation between these 200 images" in found.verdict
    assert not any(row.against and row.against.differs for row in found.rows)
    assert found.plan is None


def test_one_seed_without_images_has_no_interval(database: Database) -> None:
    """Training accuracy with one seed has no interval, in words, JSON and exports."""
    bench = by_accuracy(database, schedules(1), one_is_worse)
    found = judged(bench, metric="train_acc")
    assert "With one seed there are no intervals." in found.verdict
    best, other, _ = (cells(found, row) for row in found.rows)
    assert best[1:3] == ("97.0%", "–")
    assert other[3:6] == ("0.0", "–", "")
    mean = plain(found)["levels"][0]["mean"]
    assert mean == {"value": 0.97, "low": None, "high": None}
    sheet = comparisons([found])
    row = dict(zip(sheet.columns, next(iter(sheet.rows)), strict=True))
    assert (row["mean"], row["mean_low"], row["mean_high"]) == (0.97, None, None)


def test_all_equal_is_no_difference_and_no_crash(database: Database) -> None:
    """Identical predictions give a difference of 0, with an interval of positive width."""
    logs = {split: hits(np.ones(200, bool), of) for split, of in TRUTH.labels.items()}
    bench = fabricate(database, schedules(), lambda *_: Told(logs=logs))
    found = judged(bench)
    assert set(found.tied) == set(KINDS)
    for row in found.rows:
        if row.against is not None:
            assert row.against.difference.low < 0 < row.against.difference.high


def test_pruned_levels_and_places_are_told_and_not_averaged(database: Database) -> None:
    """A level that was always pruned is set aside with its median epoch; pairs need both sides."""
    chance = np.random.default_rng(3)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "step":
            return Told("PRUNED", epochs=4, val_loss=0.69)
        if chosen["scheduler"] == "cosine" and seed == 0:
            return Told("PRUNED", epochs=2, val_loss=0.6)
        return told(0.9, chance)

    found = judged(fabricate(database, schedules(), tell))
    assert {row.standing.level for row in found.rows if row.mean is not None} == {
        "cosine",
        "exponential",
    }
    assert found.seeds == 4, "the seed under which cosine fell is in neither mean"
    assert found.left_out == 1
    assert (
        "All trials of step were pruned (5 of 5), at a median epoch of 4 and a median validation "
        "loss of 0.690" in (found.verdict)
    )
    assert "1 complete trial left out" in found.verdict


def test_diverged_trials_are_not_called_pruned(database: Database) -> None:
    """A level that always diverged is reported as such; NaN is not counted as a loss."""
    chance = np.random.default_rng(3)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "step":
            return Told("DIVERGED", epochs=2, val_loss=math.nan)
        if chosen["scheduler"] == "cosine" and seed < 2:
            return Told("PRUNED" if seed else "DIVERGED", epochs=2, val_loss=0.6)
        return told(0.9, chance)

    found = judged(fabricate(database, schedules(), tell))
    standings = {row.standing.level: row.standing for row in found.rows}
    assert (standings["step"].pruned, standings["step"].diverged) == (0, 5)
    assert (standings["cosine"].pruned, standings["cosine"].diverged) == (1, 1)
    assert standings["cosine"].survivors_only
    assert "All trials of step diverged (5 of 5)." in found.verdict
    levels = {one["level"]: one for one in plain(found)["levels"]}
    assert (levels["step"]["diverged"], levels["step"]["fell"]) == (5, None)
    columns, rows = comparisons([found]).columns, list(comparisons([found]).rows)
    counts = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [one["diverged"] for one in counts if one["level"] == "step"] == [5]


def test_a_level_that_hardly_completed_does_not_drag_the_others_down(database: Database) -> None:
    """Step is set aside with one seed of five: the other two are compared over all five."""
    chance = np.random.default_rng(3)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "step" and seed:
            return Told("PRUNED", epochs=4, val_loss=0.69)
        return told(0.9, chance)

    found = judged(fabricate(database, schedules(), tell))
    assert found.seeds == 5
    assert "step is not compared: 1 of its 5 trials is complete;" in found.verdict


def test_all_pruned_or_nothing_complete_is_said(database: Database) -> None:
    """Without a complete trial the comparison is one clear sentence."""
    bench = fabricate(database, schedules(), lambda *_: Told("PRUNED", val_loss=0.7))
    with pytest.raises(UserError, match="No trial of sched is complete"):
        judged(bench)


def test_the_studys_metric_is_compared_where_none_is_named(database: Database) -> None:
    """The study's metric is compared by default; test figures without a test set are an error."""
    chance, data = np.random.default_rng(4), images(test=0)
    bench = fabricate(
        database, schedules(), lambda *_: told(0.9, chance, data), data={"data-0": data}
    )
    assert judged(bench, metric=None).measure.name == "val_loss"
    assert (
        "test_acc is not available for any complete trial"
        in judged(bench, metric="test_acc").verdict
    )


def test_other_factors_are_averaged_in_their_places(database: Database) -> None:
    """A seed's value is the mean over the levels of other factors, and a pair needs both sides."""
    spec = schedules(3, Choice("lr", (1e-3, 1e-2)))
    found = judged(by_accuracy(database, spec, one_is_worse))
    assert (found.seeds, found.places) == (3, 2)
    assert "step" not in found.tied


def test_seeds_with_images_of_their_own_are_compared_over_seeds(database: Database) -> None:
    """If each seed has its own validation split, the interval is over seeds alone."""
    chance = np.random.default_rng(5)
    data = {
        f"data-{seed}": Images(
            images().labels,
            {"val": tuple(f"{seed}-{n}" for n in range(200))},
        )
        for seed in range(4)
    }

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        return replace(told(one_is_worse(chosen, seed), chance), fingerprint=f"data-{seed}")

    bench = fabricate(database, schedules(4), tell, data=data)
    found = judged(bench, metric="val_acc")
    assert "between seeds only: 4 seeds, each on different images" in found.verdict
    assert "step" not in found.tied
    assert "4 seeds, 200 images" in judged(bench, metric="test_acc").verdict


def test_random_search_compares_configurations(database: Database) -> None:
    """In a random search n counts configurations, and only survivors are compared."""
    chance = np.random.default_rng(6)
    spec = make_spec(
        "drawn",
        trials=30,
        dimensions=(Choice("scheduler", KINDS), Choice("lr", tuple(10.0**-k for k in range(10)))),
        sampler="random",
    )
    settings: list[dict[str, Value]] = [
        {"scheduler": KINDS[n % 3], "lr": 10.0 ** -(n % 10)} for n in range(30)
    ]

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "cosine" and chosen["lr"] == 1.0:
            return Told("PRUNED", val_loss=0.9)
        return told(one_is_worse(chosen, seed), chance)

    bench = fabricate(database, spec, tell, configurations=settings)
    found = judged(bench)
    assert not found.paired
    assert [row.n for row in found.rows] == [9, 10, 10]
    assert "step is worse than" in found.verdict
    assert "only trials that finished" in found.verdict
    assert "configurations" in found.verdict


def test_levels_of_one_configuration_are_named(database: Database) -> None:
    """Without a verdict, the answer names the levels that have a single configuration."""
    chance = np.random.default_rng(9)
    rates = tuple(10.0**-k for k in range(13))
    dimensions = (Choice("scheduler", KINDS), Choice("lr", rates))
    spec = make_spec("few", trials=15, dimensions=dimensions, sampler="random")
    kinds = ["cosine", "step", *["exponential"] * 13]
    settings: list[dict[str, Value]] = [
        {"scheduler": kind, "lr": rates[n % 13]} for n, kind in enumerate(kinds)
    ]
    bench = fabricate(database, spec, lambda *_: told(0.9, chance), configurations=settings)
    found = judged(bench)
    assert " have only one configuration each, so chance cannot be ruled out." in found.verdict
    assert "A verdict needs at least two per level." in found.verdict
    many = "lr has 13 values, too many to compare one by one; `tuner influence few` shows"
    with bench.database.transaction() as connection, pytest.raises(UserError, match=many):
        compare(Results(connection, bench.study), by=("lr",))


@pytest.mark.parametrize(
    "metric", ["test_auc", "test_balanced_acc", "test_sensitivity", "test_specificity"]
)
def test_figures_for_unequal_classes_are_compared_too(database: Database, metric: str) -> None:
    """Metrics for unequal classes are compared by image, with the values of the trials' rows."""
    from tuner.train.metrics import score

    chance = np.random.default_rng(7)
    spec = replace(schedules(), replicates=Replicates(2))
    kept: list[tuple[str, Told]] = []

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        kept.append((str(chosen["scheduler"]), told(one_is_worse(chosen, seed), chance)))
        return kept[-1][1]

    found = judged(fabricate(database, spec, tell), metric=metric)
    assert {row.standing.level for row in found.rows} == {level for level, _ in kept}
    field = metric.removeprefix("test_")
    for row in found.rows:
        mine = [
            getattr(score(one.logs["test"], TRUTH.labels["test"]), field)
            for name, one in kept
            if name == row.standing.level
        ]
        assert row.mean is not None
        assert row.mean.value == pytest.approx(np.mean(mine), abs=1e-9)


def test_what_is_not_varied_or_too_fine_is_refused(database: Database) -> None:
    """A fixed parameter or a range is refused; the message says what varies or how to ask."""
    bench = by_accuracy(database, schedules(2), one_is_worse)
    with bench.database.transaction() as connection:
        with pytest.raises(UserError, match="does not vary 'depth'; it varies scheduler"):
            compare(Results(connection, bench.study), by=("depth",))
        with pytest.raises(UserError, match="Unknown metric 'accuracy'"):
            compare(Results(connection, bench.study), metric="accuracy")


CONDITIONAL = (
    Choice("optimizer", ("adam", "sgd")),
    Choice("momentum", (0.8, 0.9), when={"optimizer": ("sgd",)}),
)


def by_optimizer(chosen: dict[str, Value], _seed: int) -> float:
    """Return an accuracy that depends only on the optimizer."""
    return 0.95 if chosen["optimizer"] == "adam" else 0.7


def test_what_is_chosen_under_a_level_belongs_to_it(database: Database) -> None:
    """A conditional parameter belongs to its level: momentum does not split the optimizers."""
    spec = make_spec("branches", dimensions=CONDITIONAL, seeds=4)
    bench = by_accuracy(database, spec, by_optimizer)
    with database.transaction() as connection:
        by = compare(Results(connection, bench.study), by=("optimizer",))[0]
        momentum = compare(Results(connection, bench.study), by=("momentum",))[0]
    assert by.seeds == 4
    assert by.left_out == 0
    assert "sgd is worse than adam" in by.verdict
    assert {row.standing.level for row in momentum.rows if row.mean is not None} == {0.8, 0.9}
    assert "4 trials in which it was not active (–) are not compared" in momentum.verdict


def test_a_level_without_the_figure_is_set_aside(database: Database) -> None:
    """A level whose data have no test set is set aside; the others are compared on theirs."""
    chance, untested = np.random.default_rng(8), images(test=0)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "cosine":
            return replace(told(0.9, chance, untested), fingerprint="data-1")
        return told(one_is_worse(chosen, seed), chance)

    data = {"data-0": TRUTH, "data-1": untested}
    found = judged(fabricate(database, schedules(), tell, data=data))
    assert {row.standing.level for row in found.rows if row.mean is not None} == set(KINDS[1:])
    assert "cosine has no value of this metric" in found.verdict
    assert "step is worse than exponential" in found.verdict


def test_levels_scattered_by_pruning_leave_the_whole_ones(database: Database) -> None:
    """Levels that completed in one place each are set aside; the two complete ones stay."""
    chance = np.random.default_rng(9)
    kinds = ("a", "b", "c", "d", "e")
    alone = {"c": 0, "d": 1, "e": 2}

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        kind = str(chosen["kind"])
        if alone.get(kind, seed) != seed:
            return Told("PRUNED", val_loss=0.7)
        return told(0.9, chance)

    spec = make_spec("scattered", dimensions=(Choice("kind", kinds),), seeds=5)
    bench = fabricate(database, spec, tell)
    with database.transaction() as connection:
        (found,) = compare(Results(connection, bench.study))
    assert {row.standing.level for row in found.rows if row.mean is not None} == {"a", "b"}
    assert found.seeds == 5


def test_one_seed_names_who_is_ahead_not_who_was_named(database: Database) -> None:
    """With one seed and a reference that is behind, the reference is not called ahead."""
    bench = by_accuracy(database, schedules(1), one_is_worse)
    found = judged(bench, options=Options(reference="step"))
    assert "step is ahead" not in found.verdict


def test_one_configuration_does_not_silence_the_others(database: Database) -> None:
    """A level with a single drawn configuration is set aside, and the rest is judged."""
    chance = np.random.default_rng(10)
    spec = make_spec(
        "lone",
        trials=21,
        dimensions=(Choice("scheduler", KINDS), Choice("lr", tuple(10.0**-k for k in range(10)))),
        sampler="random",
    )
    settings: list[dict[str, Value]] = [
        {"scheduler": kind, "lr": 10.0**-n} for kind in ("cosine", "step") for n in range(10)
    ]
    settings.append({"scheduler": "exponential", "lr": 1.0})
    bench = fabricate(
        database,
        spec,
        lambda chosen, seed: told(one_is_worse(chosen, seed), chance),
        configurations=settings,
    )
    found = judged(bench)
    assert "step is worse than cosine" in found.verdict
    assert "exponential is not compared" in found.verdict
