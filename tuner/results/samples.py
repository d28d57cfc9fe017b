"""Stored predictions as arrays for the statistics, read in one pass over a design's trials."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.records import Moment, SplitName
from tuner.results.designs import Design
from tuner.results.measures import Measure
from tuner.results.results import Results, by_number
from tuner.results.rows import TrialRow
from tuner.statistics import Clusters, Group, Groups, Panel
from tuner.store import tables as t
from tuner.store import uploads

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The values of a design, ready for the statistics."""

    panel: Panel | Groups
    images_shared: bool
    """Whether all trials were measured on the same images, so that intervals cover images."""
    patients_unknown: bool = False
    """Whether labels were stored by a version without patients, so images are the sampling unit."""


@dataclass
class _Sums:
    """The sums of one unit of a design, so that predictions are never all in memory."""

    totals: dict[SplitName, Array] = field(default_factory=dict)
    squares: dict[SplitName, float] = field(default_factory=lambda: defaultdict(float))
    means: dict[SplitName, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(frozen=True)
class SplitImages:
    """One split of one data set: its images, labels and patients."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    patients: tuple[str, ...] | None
    """By image; () if the data name none, None if that was not stored."""

    @cached_property
    def clusters(self) -> Clusters | None:
        """The images of each patient; None if the data name none."""
        return Clusters.of(self.patients) if self.patients else None

    @property
    def units(self) -> int:
        """The number of patients, or of images if the data name none."""
        return len(self.ids) if self.clusters is None else self.clusters.patients


class Source:
    """The values of one measure by patient, or by image, for any trials of a study."""

    def __init__(self, results: Results, measure: Measure) -> None:
        self._connection, self._study, self.at = results.connection, results.study, results.at
        self.measure = measure

    def values(self, numbers: Sequence[int]) -> Iterator[tuple[int, SplitName, Array]]:
        """Yield each trial's values, split by split.

        There is one value per patient if the data name patients, else one per
        image; in both cases their mean is the figure (`Clusters.linearise`). Values on resamples
        are equally many, with the same mean and variance.
        """
        if self.measure.resampled:
            yield from self._resampled(numbers)
            return
        for number, split, values, clusters in self.by_image(numbers):
            yield number, split, values if clusters is None else clusters.linearise(values)

    def by_image(
        self, numbers: Sequence[int]
    ) -> Iterator[tuple[int, SplitName, Array, Clusters | None]]:
        """Yield each trial's values by image; a trial whose values are not finite is left out."""
        assert self.measure.per_image is not None
        for row in self._connection.execute(
            self._stored(t.prediction, numbers).execution_options(yield_per=200)
        ):
            truth = self.truths[row.fingerprint, row.split]
            labels = truth.labels
            logs = uploads.array(self._connection, row, len(labels))
            values = self.measure.per_image(logs, labels)
            if values is not None and np.isfinite(values).all():
                yield row.number, row.split, values, truth.clusters

    def has_values(self, numbers: Collection[int]) -> bool:
        """Return whether all these trials have values by image or by resample, in each split.

        Values by resample must all be on resamples of the split's current units.
        """
        if not self.measure.resampled:
            return True
        splits: dict[int, set[str]] = defaultdict(set)
        for number, split, _ in self._resampled(sorted(numbers)):
            splits[number].add(split)
        wanted = {split for split, _ in self.measure.blocks}
        return all(splits[number] == wanted for number in numbers)

    def _resampled(self, numbers: Sequence[int]) -> Iterator[tuple[int, SplitName, Array]]:
        """Yield each trial's values on resamples, split by split.

        A trainer resamples the patients, or images, known when it trained. Patients may be named
        later for the same images; values on resamples of other units are then left out, since
        they neither match those of later trials nor vary as patients do.
        """
        query = self._stored(t.resampled, numbers).where(
            t.resampled.c.metric == self.measure.resampled
        )
        for row in self._connection.execute(query):
            values = np.frombuffer(row.content, "<f4").astype(np.float64)
            if len(values) == self.truths[row.fingerprint, row.split].units:
                yield row.number, row.split, values

    def same_images(self, numbers: Collection[int]) -> bool:
        """Return whether these trials were measured on the same images in the measure's splits."""
        kept = sa.func.count(sa.distinct(t.label.c.ids))
        query = sa.select(kept).where(self._mine(numbers)).group_by(t.label.c.split)
        return all(count == 1 for count in self._connection.execute(query).scalars())

    @cached_property
    def truths(self) -> dict[tuple[str, SplitName], SplitImages]:
        """The images of the measure's splits, by the data's fingerprint and split.

        The same images may be stored twice, but only once with patients: then these are
        used for both.
        """
        query = sa.select(t.label).where(self._mine()).order_by(t.label.c.fingerprint)
        truths: dict[tuple[str, SplitName], SplitImages] = {}
        patients_of: dict[tuple[str, ...], tuple[str, ...]] = {}
        for row in self._connection.execute(query):
            labels = np.frombuffer(row.labels, "<i8").astype(np.int64)
            patients = None if row.patients is None else tuple(row.patients)
            truth = SplitImages(tuple(row.ids), labels, patients)
            truths[row.fingerprint, row.split] = truth
            if patients:
                patients_of.setdefault(truth.ids, patients)
        return {
            key: replace(truth, patients=patients_of.get(truth.ids, truth.patients))
            for key, truth in truths.items()
        }

    def clusters(self) -> tuple[Clusters, ...]:
        """Return the patients of each of the measure's splits, of data with the same images.

        Empty if no split has named patients. If one has and another has
        not, each image of the other counts as a separate patient.
        """
        by_split = {split: truth for (_, split), truth in self.truths.items()}
        truths = [by_split[split] for split, _ in self.measure.blocks if split in by_split]
        if not any(truth.patients for truth in truths):
            return ()
        return tuple(truth.clusters or Clusters(np.arange(len(truth.ids))) for truth in truths)

    def images(self) -> int:
        """Return the number of images of the measure, for data with the same images."""
        return sum(len(one) for one in self.ids().values())

    def patients(self, split: SplitName) -> int:
        """Return the number of patients in a split; 0 if the data name none."""
        mine = [truth.clusters for (_, name), truth in self.truths.items() if name == split]
        return max((clusters.patients for clusters in mine if clusters is not None), default=0)

    def units(self) -> int:
        """Return the number of patients (or unnamed images) in the measure's largest split."""
        return max((truth.units for truth in self.truths.values()), default=0)

    @property
    def patients_unknown(self) -> bool:
        """Whether some labels were stored by a version that did not store patients."""
        return any(truth.patients is None for truth in self.truths.values())

    def ids(self) -> dict[str, list[str]]:
        """Return the image IDs of each split that is the same in all data sets of the study."""
        return {split: list(truth.ids) for (_, split), truth in self.truths.items()}

    def _mine(self, numbers: Collection[int] | None = None) -> sa.ColumnElement[bool]:
        """Select the labels of the measure's splits in the data of these trials, or of all."""
        fingerprints = (
            sa.select(t.outcome.c.setup["data_fingerprint"].astext)
            .select_from(t.outcome.join(t.trial, t.trial.c.trial_id == t.outcome.c.trial_id))
            .where(t.trial.c.study_id == self._study.study_id)
        )
        if numbers is not None:
            mine = sa.cast(list(numbers), sa.ARRAY(sa.Integer))
            fingerprints = fingerprints.where(t.trial.c.number == sa.any_(mine))
        splits = [split for split, _ in self.measure.blocks]
        return t.label.c.fingerprint.in_(fingerprints) & t.label.c.split.in_(splits)

    def _stored(self, table: sa.Table, numbers: Sequence[int]) -> sa.Select[Any]:
        """Select a table's rows of these trials, with trial numbers and data."""
        return (
            sa.select(
                t.trial.c.number,
                *table.c,
                t.outcome.c.setup["data_fingerprint"].astext.label("fingerprint"),
            )
            .select_from(
                table.join(t.trial).join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
            )
            .where(
                t.trial.c.study_id == self._study.study_id,
                t.trial.c.number == sa.any_(sa.cast(list(numbers), sa.ARRAY(sa.Integer))),
                table.c.split.in_([split for split, _ in self.measure.blocks]),
                table.c.moment == self.at,
            )
            # In an order that does not depend on the query plan: random numbers are drawn, and sums
            # rounded, in the order of rows.
            .order_by(table.c.split, t.trial.c.number)
        )


def sample(
    results: Results, design: Design, measure: Measure, source: Source | None = None
) -> Sample | None:
    """Return the values of a design; None if no unit has any."""
    if not design.units or not any(design.units):
        return None
    if measure.blocks:
        source = source or Source(results, measure)
        numbers = [one for units in design.units for unit in units for one in unit]
        if source.same_images(numbers) and source.has_values(numbers):
            return _by_image(source, design)
        sample = by_trial(results, design, measure, units=source.units())
        unknown = source.patients_unknown
        return None if sample is None else replace(sample, patients_unknown=unknown)
    return by_trial(results, design, measure)


def has_figure(row: TrialRow, measure: Measure, at: Moment) -> bool:
    """Return whether a complete trial has the figure."""
    prefix = "" if at == "best" else "last_"
    names = [f"{prefix}{split}_acc" for split, _ in measure.blocks if measure.per_image]
    names = names or [column_of(measure, at)]
    return row.complete and all(row[name] is not None for name in names)


def column_of(measure: Measure, at: Moment) -> str:
    """Return the column of the figure at the judged epoch."""
    return measure.name if at == "best" or measure.name == "seconds" else f"last_{measure.name}"


def _by_image(source: Source, design: Design) -> Sample | None:
    place = {
        number: (level, unit)
        for level, units in enumerate(design.units)
        for unit, numbers in enumerate(units)
        for number in numbers
    }
    sums_by_unit: dict[tuple[int, int], _Sums] = defaultdict(_Sums)
    for number, split, values in source.values(sorted(place)):
        # Unpaired, images are averaged over a group's trials; paired, over a seed's places.
        level, unit = place[number]
        sums = sums_by_unit[level, unit if design.paired else 0]
        sums.totals[split] = sums.totals.get(split, 0.0) + values
        sums.squares[split] += float((values**2).sum())
        sums.means[split][number] = float(values.mean())
    # A trial without predictions for a split, or with NaN among them, has no figure.
    measured = {
        split: {number for sums in sums_by_unit.values() for number in sums.means[split]}
        for split, _ in source.measure.blocks
    }
    if not place or any(numbers != set(place) for numbers in measured.values()):
        return None
    build = _panel if design.paired else _groups
    panel = replace(build(sums_by_unit, design, source.measure), clusters=source.clusters())
    return Sample(panel, images_shared=True, patients_unknown=source.patients_unknown)


def _panel(sums: Mapping[tuple[int, int], _Sums], design: Design, measure: Measure) -> Panel:
    def block(split: SplitName, sign: float) -> Array:
        return np.array(
            [
                [
                    sign * sums[level, unit].totals[split] / len(sums[level, unit].means[split])
                    for unit in range(len(units))
                ]
                for level, units in enumerate(design.units)
            ]
        )

    return Panel(tuple(block(*one) for one in measure.blocks), measure.counts_images)


def _groups(sums: Mapping[tuple[int, int], _Sums], design: Design, measure: Measure) -> Groups:
    return Groups(
        tuple(_group(sums[level, 0], units, measure) for level, units in enumerate(design.units)),
        measure.counts_images,
    )


def _group(sums: _Sums, units: Sequence[Sequence[int]], measure: Measure) -> Group:
    means = tuple(
        np.array([sign * _mean([sums.means[split][n] for n in unit]) for unit in units])
        for split, sign in measure.blocks
    )
    return Group(
        trials=np.asarray(sum(means)),
        by_image=tuple(
            sign * sums.totals[split] / len(sums.means[split]) for split, sign in measure.blocks
        ),
        squares=tuple(sums.squares[split] for split, _ in measure.blocks),
        block_means=tuple(
            np.array([sign * mean for mean in sums.means[split].values()])
            for split, sign in measure.blocks
        ),
    )


def by_trial(results: Results, design: Design, measure: Measure, units: int = 0) -> Sample | None:
    """Return the stored figures: for measures without images, or if seeds have different images.

    `units` is the number of images, or patients, of each seed's separate split, for a figure that
    is a share of images.
    """
    column = column_of(measure, results.at)
    rows = by_number(results.rows_with(column))
    values = [
        [[_figure(rows[number], column) for number in unit] for unit in units]
        for units in design.units
    ]
    if any(figure is None for level in values for unit in level for figure in unit):
        return None
    means = [np.array([_mean(unit) for unit in level]) for level in values]
    if design.paired:
        own = units if measure.counts_images else 0
        blocks = (np.array(means)[:, :, None],)
        return Sample(Panel(blocks, counts_images=False, own_images=own), images_shared=False)
    groups = tuple(Group(mean, (), (), ()) for mean in means)
    return Sample(Groups(groups, counts_images=False), images_shared=False)


def _figure(row: TrialRow, column: str) -> float | None:
    value = row[column]
    return None if value is None or not np.isfinite(value) else float(value)


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))
