"""The gap between validation and test accuracy: how large, how sure, what is luck, and why."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from tuner.answers.evidence.designs import Design, Level
from tuner.answers.evidence.measures import MEASURES, Measure
from tuner.answers.evidence.samples import Source, sample
from tuner.answers.statistics.association import rank_correlation
from tuner.answers.statistics.crossed import Panel
from tuner.answers.statistics.optimism import Optimism, Tried, optimism
from tuner.answers.statistics.proportions import newcombe
from tuner.answers.statistics.spread import Interval, around
from tuner.answers.tables.intervals import mean_over_seeds
from tuner.answers.tables.rows import TrialRow, ranked, trial_rows
from tuner.answers.verdicts.causes import Cause, Probed, cause, probes
from tuner.errors import UserError
from tuner.store import checks
from tuner.store.studies import Study
from tuner.store.tables import dataset, outcome, trial

VALUES_MOST = 20_000_000
BEST_MOST = 1_000
"""Per-image values, and trials, that are resampled to see the images' luck."""


class Sizes(NamedTuple):
    """How many images are in each split."""

    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Setting:
    """One configuration over its seeds."""

    values: Mapping[str, Level]
    """What varies, by name."""
    trials: tuple[int, ...]
    val_acc: float
    test_acc: float
    gap: Interval
    """Over its seeds and the images; over images alone where it has one seed."""


@dataclass(frozen=True)
class TrialGap:
    """One trial's gap, with Newcombe's interval over the images of both splits."""

    trial: int
    val_acc: float
    test_acc: float
    gap: Interval


@dataclass(frozen=True)
class Gap:
    """All that is known of a study's gap."""

    trials: tuple[TrialGap, ...]
    settings: tuple[Setting, ...]
    seeds: int
    val_images: int
    test_images: int
    val_acc: Interval
    test_acc: Interval
    gap: Interval
    fitted: Interval | None
    """Training accuracy minus validation accuracy."""
    correlation: Interval | None
    """Spearman's, of validation and test accuracy over configurations."""
    metric: str
    optimism: Optimism | None
    """Of the trial that is best by the study's metric."""
    winner: int | None
    probes: Mapping[str, Probed]
    cause: Cause
    left_out: int
    """Trials that were pruned or failed, and are in nothing of this."""
    without_peers: int
    """Complete trials in the table alone: their configuration lacks a seed that others have."""
    images_shared: bool
    """Whether all trials were measured on the same images, so that these are in the intervals."""


def gap(connection: sa.Connection, study: Study) -> Gap:
    """Measure a study's gap over all its complete trials."""
    rows = trial_rows(connection, study)
    prefix = "" if study.spec.search.at == "best" else "last_"
    complete = [row for row in rows if row.complete and row[prefix + "test_acc"] is not None]
    if not complete:
        raise UserError(_nothing(study, rows))
    sizes = _sizes(connection, study, [row["trial"] for row in complete])
    by_number = {row["trial"]: row for row in rows}
    spoken = _comparable(study, complete)
    whole = _design(study, spoken)

    def panel(name: str) -> Panel:
        taken = sample(connection, study, whole, MEASURES[name], by_number)
        assert taken is not None, "complete trials have predictions"
        assert isinstance(taken.panel, Panel), "seeds are paired"
        return taken.panel

    shared = Source(connection, study, MEASURES["gap"], study.spec.search.at).same_images()
    validated, tested = panel("val_acc"), panel("test_acc")
    overall = panel("gap").mean(0)
    if not shared and len(whole.units[0]) == 1:
        # Nothing is measured twice: what is left is each split's number of images.
        overall = _over_images(validated.mean(0).value, tested.mean(0).value, sizes)
    trained_on = max(one.train for one in sizes.values())
    fitted = _fitted(validated, whole, by_number, prefix, trained_on)
    probed = probes(_examined(connection, study))
    leaders = ranked(rows, study.spec)
    settings = _settings(study, complete, prefix, sizes)
    return Gap(
        trials=tuple(_of_trial(row, prefix, sizes[row["trial"]]) for row in complete),
        settings=settings,
        seeds=len(whole.units[0]),
        val_images=max(one.val for one in sizes.values()),
        test_images=max(one.test for one in sizes.values()),
        val_acc=validated.mean(0),
        test_acc=tested.mean(0),
        gap=overall,
        fitted=fitted,
        correlation=rank_correlation(
            np.array([one.val_acc for one in settings]),
            np.array([one.test_acc for one in settings]),
        ),
        metric=study.spec.search.metric,
        optimism=winners_luck(connection, study, leaders),
        winner=leaders[0]["trial"] if leaders else None,
        probes=probed,
        cause=cause(overall, fitted, probed),
        left_out=sum(row["state"] in ("PRUNED", "FAILED") for row in rows),
        without_peers=len(complete) - len(spoken),
        images_shared=shared,
    )


def _over_images(val: float, test: float, sizes: Mapping[int, Sizes]) -> Interval:
    images = min(one.val for one in sizes.values()), min(one.test for one in sizes.values())
    return newcombe(val * images[0], images[0], test * images[1], images[1])


def _nothing(study: Study, rows: Sequence[TrialRow]) -> str:
    if any(row.complete for row in rows):
        return (
            f"{study.title} has no test set, so there is no gap to measure. Give its data a test "
            "split (docs/data.md): validation accuracy alone is the accuracy of what was chosen."
        )
    return f"No trial of {study.title} is complete yet; `tuner status {study.title}` says more."


def _comparable(study: Study, rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials of the configurations that completed under all seeds.

    Under seeds that only some configurations have (contenders' further ones, a
    study that is still running), a mean would change with who is in it. Where
    no configuration has all seeds, those of the fullest seed speak alone.
    """
    seeds = Counter(row["seed"] for row in rows)
    groups = _by_configuration(study, rows)
    whole = [row for of in groups.values() if len(of) == len(seeds) for row in of]
    if whole:
        return whole
    fullest = max(seeds, key=lambda seed: (seeds[seed], -seed))
    return [row for row in rows if row["seed"] == fullest]


def _by_configuration(
    study: Study, rows: Sequence[TrialRow]
) -> dict[tuple[Level, ...], list[TrialRow]]:
    groups: dict[tuple[Level, ...], list[TrialRow]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in study.spec.varied)].append(row)
    return groups


def _design(study: Study, rows: Sequence[TrialRow]) -> Design:
    """Return the design of the study as one level, a unit a seed."""
    seeds: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append(row["trial"])
    units = tuple(tuple(seeds[seed]) for seed in sorted(seeds))
    return Design(study.title, (), (None,), True, (units,), 0)


def _fitted(
    validated: Panel, made: Design, rows: Mapping[int, TrialRow], prefix: str, images: int
) -> Interval | None:
    """Return training minus validation accuracy, over seeds and over the images of both."""
    column = prefix + "train_acc"
    trained = [[rows[number][column] for number in unit] for unit in made.units[0]]
    if validated.seeds < 2 or any(one is None for unit in trained for one in unit):
        return None
    share = np.array([[np.mean(unit) for unit in trained]])[:, :, None]
    panel = Panel((share, -validated.blocks[0]), validated.counts_images)
    mean = float(share.mean())
    # No prediction is kept of training images: theirs is the variance of a share of so many.
    own = mean * (1 - mean) / max(1, images)
    return around(float(panel.means[0]), panel.spread(0).plus(panel.grain + own))


def _examined(connection: sa.Connection, study: Study) -> Mapping[str, object] | None:
    found = checks.latest(connection, study.study_id)
    return None if found is None else found.body


def _of_trial(row: TrialRow, prefix: str, sizes: Sizes) -> TrialGap:
    val, test = row[prefix + "val_acc"], row[prefix + "test_acc"]
    found = newcombe(val * sizes.val, sizes.val, test * sizes.test, sizes.test)
    return TrialGap(row["trial"], val, test, found)


def _settings(
    study: Study, rows: Sequence[TrialRow], prefix: str, sizes: Mapping[int, Sizes]
) -> tuple[Setting, ...]:
    groups = _by_configuration(study, rows)
    found = [_setting(study, group, prefix, sizes) for group in groups.values()]
    return tuple(sorted(found, key=lambda one: -one.val_acc))


def _setting(
    study: Study, rows: Sequence[TrialRow], prefix: str, sizes: Mapping[int, Sizes]
) -> Setting:
    val = [row[prefix + "val_acc"] for row in rows]
    test = [row[prefix + "test_acc"] for row in rows]
    images = sizes[rows[0]["trial"]]
    # Newcombe's interval of the mean accuracies, widened by what the seeds scatter.
    over_images = newcombe(
        float(np.mean(val)) * images.val,
        images.val,
        float(np.mean(test)) * images.test,
        images.test,
    )
    return Setting(
        values={name: rows[0][name] for name in study.spec.varied},
        trials=tuple(row["trial"] for row in rows),
        val_acc=float(np.mean(val)),
        test_acc=float(np.mean(test)),
        gap=_with_seeds(over_images, [a - b for a, b in zip(val, test, strict=True)]),
    )


def _with_seeds(found: Interval, gaps: Sequence[float]) -> Interval:
    over_seeds = mean_over_seeds(gaps)
    if over_seeds is None or over_seeds.half_width is None:
        return found
    half = over_seeds.half_width
    low = found.value - float(np.hypot(found.value - found.low, half))
    high = found.value + float(np.hypot(found.high - found.value, half))
    return Interval(found.value, max(-1.0, low), min(1.0, high))


def _sizes(connection: sa.Connection, study: Study, numbers: Sequence[int]) -> dict[int, Sizes]:
    """Return how many images each trial was trained and measured on."""
    query = (
        sa.select(trial.c.number, dataset.c.sizes)
        .select_from(
            trial.join(outcome, outcome.c.trial_id == trial.c.trial_id).join(
                dataset, dataset.c.fingerprint == outcome.c.setup["data_fingerprint"].astext
            )
        )
        .where(trial.c.study_id == study.study_id)
    )
    wanted = set(numbers)
    return {
        row.number: Sizes(*(int(row.sizes[split]) for split in ("train", "val", "test")))
        for row in connection.execute(query)
        if row.number in wanted
    }


def winners_luck(
    connection: sa.Connection, study: Study, leaders: Sequence[TrialRow]
) -> Optimism | None:
    """Say how much of the best trial's figure is luck; `leaders` are all complete, the best first.

    None where it cannot be told: one trial, or trials measured on different images.
    """
    measure: Measure = MEASURES[study.spec.search.metric]
    source = Source(connection, study, measure, study.spec.search.at)
    if len(leaders) < 2 or not source.same_images():
        return None
    names: dict[tuple[Level, ...], int] = {}
    settings = [
        names.setdefault(tuple(row[name] for name in study.spec.varied), len(names))
        for row in leaders
    ]
    # The leaders come first; those far behind are never picked, and their images not needed.
    kept = leaders[: max(2, min(BEST_MOST, VALUES_MOST // max(1, source.images())))]
    values = {number: found for number, _, found in source.values([row["trial"] for row in kept])}
    best = [at for at, row in enumerate(kept) if row["trial"] in values]
    if len(best) < 2:
        return None
    tried = Tried(
        means=np.array([float(row.value or 0.0) for row in leaders]),
        settings=np.array(settings),
        best=np.array(best),
        values=np.array([values[kept[at]["trial"]] for at in best]),
    )
    return optimism(tried, larger=measure.larger)
