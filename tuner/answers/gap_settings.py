"""The gap setting by setting and trial by trial, over the images, or patients, of each."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from tuner.results.designs import Level
from tuner.results.results import Results
from tuner.results.rows import TrialRow
from tuner.results.samples import Source
from tuner.statistics.means import mean_over_seeds
from tuner.statistics.proportions import Effective, apart, effective, wilson_of
from tuner.statistics.variance import Interval
from tuner.store import tables as t


class Sizes(NamedTuple):
    """How many images are in each split."""

    train: int
    val: int
    test: int
    val_worth: Effective
    """How many independent images the validation images are worth, where they are of patients."""
    test_worth: Effective

    def apart(self, val: float, test: float) -> Interval:
        """Return the difference of two accuracies with Newcombe's interval."""
        return apart(wilson_of(val, self.val_worth), wilson_of(test, self.test_worth))


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
    """One trial's gap, with Newcombe's interval over the images, or patients, of both splits."""

    trial: int
    val_acc: float
    test_acc: float
    gap: Interval


def split_sizes(results: Results, numbers: Sequence[int], source: Source) -> dict[int, Sizes]:
    """Return how many images each trial was trained and measured on, and what they are worth.

    Where images are of patients that hangs on how alike a trial has a patient's images right.
    """
    query = (
        sa.select(t.trial.c.number, t.dataset.c.sizes)
        .select_from(
            t.trial.join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).join(
                t.dataset, t.dataset.c.fingerprint == t.outcome.c.setup["data_fingerprint"].astext
            )
        )
        .where(t.trial.c.study_id == results.study.study_id)
    )
    worth: dict[tuple[int, str], Effective] = {}
    if any(truth.clusters and not truth.clusters.single for truth in source.truths.values()):
        worth = {
            (number, split): effective(hits, clusters)
            for number, split, hits, clusters in source.by_image(numbers)
        }
    wanted = set(numbers)
    found = {}
    for row in results.connection.execute(query):
        if row.number in wanted:
            train, val, test = (int(row.sizes[split]) for split in ("train", "val", "test"))
            found[row.number] = Sizes(
                train,
                val,
                test,
                worth.get((row.number, "val"), Effective(val)),
                worth.get((row.number, "test"), Effective(test)),
            )
    return found


def by_configuration(
    results: Results, rows: Sequence[TrialRow]
) -> dict[tuple[Level, ...], list[TrialRow]]:
    """Return the trials of each configuration."""
    groups: dict[tuple[Level, ...], list[TrialRow]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in results.spec.varied)].append(row)
    return groups


def gap_of_trial(row: TrialRow, prefix: str, sizes: Sizes) -> TrialGap:
    """Return one trial's gap; `prefix` says which epoch's figures are meant."""
    val, test = row[prefix + "val_acc"], row[prefix + "test_acc"]
    return TrialGap(row["trial"], val, test, sizes.apart(val, test))


def gaps_by_setting(
    results: Results, rows: Sequence[TrialRow], sizes: Mapping[int, Sizes]
) -> tuple[Setting, ...]:
    """Return each configuration's gap over its seeds, the best on validation first."""
    groups = by_configuration(results, rows)
    settings = [_setting(results, group, sizes) for group in groups.values()]
    return tuple(sorted(settings, key=lambda setting: -setting.val_acc))


def _setting(results: Results, rows: Sequence[TrialRow], sizes: Mapping[int, Sizes]) -> Setting:
    prefix = results.prefix
    val = [row[prefix + "val_acc"] for row in rows]
    test = [row[prefix + "test_acc"] for row in rows]
    # Newcombe's interval of the mean accuracies, widened by what the seeds scatter.
    of_trials = [sizes[row["trial"]] for row in rows]
    over_images = (
        of_trials[0]
        ._replace(
            val_worth=least_worth([one.val_worth for one in of_trials]),
            test_worth=least_worth([one.test_worth for one in of_trials]),
        )
        .apart(float(np.mean(val)), float(np.mean(test)))
    )
    return Setting(
        values={name: rows[0][name] for name in results.spec.varied},
        trials=tuple(row["trial"] for row in rows),
        val_acc=float(np.mean(val)),
        test_acc=float(np.mean(test)),
        gap=_with_seeds(over_images, [a - b for a, b in zip(val, test, strict=True)]),
    )


def least_worth(worths: Sequence[Effective]) -> Effective:
    """Return the worth of the images to the trial to which they are worth least."""
    return min(worths, key=lambda effective: effective.images)


def _with_seeds(interval: Interval, gaps: Sequence[float]) -> Interval:
    over_seeds = mean_over_seeds(gaps)
    if over_seeds is None or over_seeds.half_width is None:
        return interval
    half = over_seeds.half_width
    low = interval.value - float(np.hypot(interval.value - interval.low, half))
    high = interval.value + float(np.hypot(interval.high - interval.value, half))
    return Interval(interval.value, max(-1.0, low), min(1.0, high))
