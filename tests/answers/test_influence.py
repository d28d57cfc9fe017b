"""Influence of parameters: planted effects are found, noise is not called an effect."""

import math
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sa

from tests.answers.fabricate import Told, fabricate, hits, images
from tests.store.specs import Bench, make_ranged, make_spec
from tuner.answers.influence import Influence, VarianceShare, importance, influence
from tuner.errors import UserError
from tuner.records import Value
from tuner.results import MEASURES, Results
from tuner.spec.space import Choice, Range
from tuner.statistics.fanova import decompose
from tuner.statistics.variance import Interval
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.sampling import distributions

TRUTH = images(300, 300)
GRID = (
    Choice("scheduler", ("cosine", "step", "constant")),
    Choice("depth", (3, 4)),
    Choice("lr", (1e-3, 1e-2)),
)


def study(database: Database, accuracy: Any, **more: Any) -> Bench:
    """Store a complete grid whose trials have these accuracies."""
    chance = np.random.default_rng(1)

    def tell(chosen: dict[str, Value], seed: int) -> Told | None:
        expected = accuracy(chosen, seed)
        if expected is None:
            return Told("PRUNED", val_loss=0.7)
        return Told(
            logs={
                split: hits(chance.random(len(labels)) < expected, labels)
                for split, labels in TRUTH.labels.items()
            }
        )

    settings = more.pop("configurations", None)
    spec = make_spec("matters", **{"dimensions": GRID, "seeds": 4, **more})
    return fabricate(database, spec, tell, data={"data-0": TRUTH}, configurations=settings)


def measured(bench: Bench, *metrics: str) -> list[Influence]:
    """Measure the influence."""
    with bench.database.transaction() as connection:
        return influence(Results(connection, bench.study), metrics)


def by_schedule(chosen: dict[str, Value], _seed: int) -> float:
    """Return an accuracy that depends mostly on the schedule, and slightly on the depth."""
    level = {"cosine": 0.95, "step": 0.75, "constant": 0.6}[str(chosen["scheduler"])]
    return level - 0.02 * (chosen["depth"] == 3)


def test_what_matters_is_found_and_said(database: Database) -> None:
    """The schedule explains nearly all of the variance, and is ranked above the others."""
    found = measured(study(database, by_schedule))
    assert {one.metric for one in found} > {"gap"}
    for one in found:
        shares = {part.names: part.share for part in one.parts}
        if one.metric == "gap":
            continue
        assert shares["scheduler",].value > 0.9
        assert ("scheduler", "depth") in one.ahead
        assert ("scheduler", "lr") in one.ahead
        assert "scheduler matters more than depth" in one.verdict
        assert (one.settings, one.seeds, one.how) == (12, 4, "decomposition")


@pytest.mark.parametrize("first", ["test", "val"])
def test_no_figure_depends_on_how_the_server_reads_rows(database: Database, first: str) -> None:
    """Figures are bit-identical for any physical order of rows and any query plan."""
    bench = study(database, by_schedule)
    before = measured(bench, "gap")
    with database.transaction() as connection:
        keys = connection.execute(
            sa.select(t.prediction.c.trial_id, t.prediction.c.split).distinct()
        ).all()
        assert {split for _, split in keys} == {"test", "val"}
        # An update moves a row to the end of the table.
        for trial_id, split in sorted(keys, key=lambda key: (key[1] != first, -key[0])):
            connection.execute(
                sa.update(t.prediction)
                .where(t.prediction.c.trial_id == trial_id, t.prediction.c.split == split)
                .values(classes=t.prediction.c.classes)
            )
        for plan in ("indexscan", "bitmapscan", "hashjoin", "mergejoin"):
            connection.execute(sa.text(f"SET LOCAL enable_{plan} = off"))
        assert influence(Results(connection, bench.study), ("gap",)) == before


def test_an_order_beside_overlapping_intervals_is_explained() -> None:
    """A ranking despite overlapping intervals of shares is explained; others are not."""

    def made(ahead: tuple[tuple[str, str], ...], low: float) -> Influence:
        parts = (
            VarianceShare(("lr",), Interval(0.6, low, 0.9)),
            VarianceShare(("depth",), Interval(0.2, 0.1, 0.4)),
        )
        return Influence(MEASURES["val_loss"], "decomposition", parts, ahead, 6, 3, 18, 0, 0.1, 0)

    assert "interval of the difference" in (made((("lr", "depth"),), 0.3).note or "")
    assert made((("lr", "depth"),), 0.5).note is None
    assert made((), 0.3).note is None


def test_nothing_is_said_where_nothing_matters(database: Database) -> None:
    """With equal settings no parameter is ranked above another."""
    found = measured(study(database, lambda *_: 0.9))
    assert found
    for one in found:
        assert one.ahead == ()
        assert one.verdict.startswith("No evidence that ")


def test_shares_are_those_of_the_analysis_of_variance() -> None:
    """Without noise, main effects and interactions have the textbook's variances."""
    levels = np.array([[i, j] for i in range(3) for j in range(2)])
    one, other = np.array([-2.0, 0.0, 2.0]), np.array([-1.0, 1.0])
    together = np.array([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])
    values = np.array([one[i] + other[j] + together[i, j] for i, j in levels])[:, None]
    found = decompose(values, levels)
    variances = np.array([(one**2).mean(), (other**2).mean(), (together**2).mean(), 0.0])
    assert found.terms == ((0,), (1,), (0, 1), ())
    assert [share.value for share in found.shares] == pytest.approx(variances / variances.sum())


def test_noise_is_taken_off() -> None:
    """With noise from seeds the shares are unbiased, also for factors with many levels."""
    levels = np.array([[i, j] for i in range(6) for j in range(2)])
    chance = np.random.default_rng(2)
    effect = np.where(levels[:, 1] == 0, -1.0, 1.0)
    seen = [
        decompose(effect[:, None] + 2.0 * chance.standard_normal((12, 3)), levels).shares[0].value
        for _ in range(60)
    ]
    assert np.median(seen) < 0.12, "uncorrected it would be 0.35"


def test_an_incomplete_grid_is_not_decomposed(database: Database) -> None:
    """A grid with a pruned setting is estimated from its complete trials, and says so."""

    def tell(chosen: dict[str, Value], seed: int) -> float | None:
        return None if chosen["depth"] == 4 and chosen["lr"] == 1e-2 else by_schedule(chosen, seed)

    one = measured(study(database, tell), "val_loss")[0]
    assert one.how == "ped-anova"
    assert one.left_out == 12


def test_drawn_configurations_are_estimated(database: Database) -> None:
    """In a random search the decisive parameter stands out, with an interval."""
    chance = np.random.default_rng(3)
    space = (Range("lr", 1e-5, 1e-1, log=True), Range("momentum", 0.0, 0.9))
    settings: list[dict[str, Value]] = [
        {"lr": float(10 ** chance.uniform(-5, -1)), "momentum": float(chance.uniform(0, 0.9))}
        for _ in range(80)
    ]

    def accuracy(chosen: dict[str, Value], _seed: int) -> float:
        return 0.95 - 0.1 * abs(float(np.log10(chosen["lr"])) + 3)

    bench = study(
        database,
        accuracy,
        dimensions=space,
        trials=80,
        sampler="random",
        seeds=1,
        configurations=settings,
    )
    one = measured(bench, "val_acc")[0]
    shares = {part.names[0]: part.share for part in one.parts}
    assert shares["lr"].value > 0.8
    assert one.ahead == (("lr", "momentum"),)


def test_what_cannot_be_asked_is_told(database: Database) -> None:
    """A study with nothing complete and an unknown metric are refused."""
    bench = study(database, lambda *_: None)
    with pytest.raises(UserError, match="has 0 complete trials"):
        measured(bench)
    with pytest.raises(UserError, match="Unknown metric 'speed'"):
        measured(bench, "speed")


@pytest.mark.parametrize("metric", ["test_auc", "test_balanced_acc"])
def test_figures_beside_the_usual_are_decomposed(database: Database, metric: str) -> None:
    """The example in the help works: influence on a metric computed from predictions."""
    one = measured(study(database, by_schedule), metric)[0]
    assert one.how == "decomposition"
    assert {part.names: part.share.value for part in one.parts}["scheduler",] > 0.9


def test_without_a_test_set_nothing_is_said_of_test(database: Database) -> None:
    """A metric that no trial has is refused, not taken as 0."""
    data = images(200, 0)
    chance = np.random.default_rng(5)

    def tell(*_: object) -> Told:
        return Told(logs={"val": hits(chance.random(200) < 0.9, data.labels["val"])})

    spec = make_spec("untested", dimensions=GRID, seeds=2)
    bench = fabricate(database, spec, tell, data={"data-0": data})
    assert [one.metric for one in measured(bench)] == ["val_loss"]
    with pytest.raises(UserError, match="has no setting with a value of test_acc"):
        measured(bench, "test_acc")


def test_without_any_second_measurement_no_order_is_claimed() -> None:
    """With one seed and no images to resample there are shares, but no ranking."""
    levels = np.array([[i, j] for i in range(3) for j in range(2)])
    found = decompose(np.arange(6.0)[:, None], levels)
    assert found.ahead == ()
    assert {(share.low, share.high) for share in found.shares} == {(0.0, 1.0)}


def test_drawn_settings_have_optunas_own_importances() -> None:
    """Importances of drawn settings equal Optuna's on the same trials."""
    spec = make_ranged(trials=80)
    chance = np.random.default_rng(5)
    chosen: list[dict[str, Any]] = []
    for _ in range(80):
        one = {
            "lr": float(10 ** chance.uniform(-5, -1)),
            "width": int(8 * chance.integers(1, 9)),
            "optimizer": str(chance.choice(["adam", "sgd"])),
        }
        momentum = {"momentum": float(chance.uniform(0, 0.9))} if one["optimizer"] == "sgd" else {}
        chosen.append(one | momentum)
    figures = [abs(math.log10(one["lr"]) + 3) + 0.2 * chance.random() for one in chosen]
    known = distributions(spec)
    plain = optuna.create_study(direction="minimize")
    for one, figure in zip(chosen, figures, strict=True):
        taken = {name: known[name] for name in one}
        plain.add_trial(optuna.create_trial(params=one, distributions=taken, value=figure))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    wanted = optuna.importance.get_param_importances(plain, evaluator=evaluator)
    found = importance(spec, chosen, figures, larger=False)
    assert {name: share.value for name, share in found.shares.items()} == wanted


def test_one_parameter_alone_is_not_put_before_others() -> None:
    """A single varied parameter is not ranked."""
    parts = (VarianceShare(("lr",), Interval(1.0, 0.0, 1.0)),)
    one = Influence(MEASURES["val_loss"], "decomposition", parts, (), 5, 3, 15, 0, 0.1, 0)
    assert one.verdict == "Only lr varies, so there is nothing to rank."


def test_a_headline_names_parameters_and_not_what_two_do_together() -> None:
    """The headline names single parameters only, never an interaction."""
    shares = {("lr",): 0.7, ("scheduler",): 0.2, ("lr", "scheduler"): 0.1, ("scheduler", "lr"): 0.0}
    parts = tuple(VarianceShare(names, Interval(one, one, one)) for names, one in shares.items())
    ahead = (("lr", "scheduler"),)
    one = Influence(MEASURES["val_loss"], "decomposition", parts, ahead, 9, 3, 27, 0, 0.1, 0)
    assert one.headline == "for val_loss lr matters more than scheduler"
