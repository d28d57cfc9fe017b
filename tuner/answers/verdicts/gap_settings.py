"""The gap setting by setting and trial by trial, over as many images as each was measured on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from tuner.answers.evidence.designs import Level
from tuner.answers.statistics.proportions import newcombe
from tuner.answers.statistics.spread import Interval
from tuner.answers.tables.intervals import mean_over_seeds
from tuner.answers.tables.rows import TrialRow
from tuner.store.studies import Study
from tuner.store.tables import dataset, outcome, trial


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


def split_sizes(
    connection: sa.Connection, study: Study, numbers: Sequence[int]
) -> dict[int, Sizes]:
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


def by_configuration(
    study: Study, rows: Sequence[TrialRow]
) -> dict[tuple[Level, ...], list[TrialRow]]:
    """Return the trials of each configuration."""
    groups: dict[tuple[Level, ...], list[TrialRow]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in study.spec.varied)].append(row)
    return groups


def gap_of_trial(row: TrialRow, prefix: str, sizes: Sizes) -> TrialGap:
    """Return one trial's gap; `prefix` says which epoch's figures are meant."""
    val, test = row[prefix + "val_acc"], row[prefix + "test_acc"]
    found = newcombe(val * sizes.val, sizes.val, test * sizes.test, sizes.test)
    return TrialGap(row["trial"], val, test, found)


def gaps_by_setting(
    study: Study, rows: Sequence[TrialRow], prefix: str, sizes: Mapping[int, Sizes]
) -> tuple[Setting, ...]:
    """Return each configuration's gap over its seeds, the best on validation first."""
    groups = by_configuration(study, rows)
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
