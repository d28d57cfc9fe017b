"""Compares two trials by their predictions for the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.answers import words
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.records import FRACTION, NATS, SHARE, Moment, SplitName
from tuner.results import Predicted, Results, nll, right
from tuner.statistics import (
    Clusters,
    Discordance,
    Interval,
    Right,
    delong,
    delong_difference,
    mcnemar,
    mean_difference,
    reliability,
    share_of,
    too_few,
)

__all__ = ["Pair", "class_table", "pair", "pair_table"]


@dataclass(frozen=True)
class TrialFigures:
    """One trial's figures on a split, with their intervals over its images."""

    trial: int
    epoch: int
    accuracy: Interval
    nll: float
    auc: Interval | None
    """Only with two classes."""
    calibration_error: float
    brier: float


@dataclass(frozen=True)
class ClassRecall:
    """Two trials' recall of one class: the sensitivity for class 1, the specificity for class 0."""

    name: str
    of: str
    """The class's name."""
    images: int
    one: Interval
    other: Interval
    discordance: Discordance

    JSON: ClassVar = (
        "name",
        "class=of",
        "images",
        "patients=discordance.patients",
        "trials=both",
        "only_first_right=discordance.only_one",
        "only_second_right=discordance.only_other",
        "difference=discordance.difference",
        "p=discordance.p_value",
    )

    @property
    def both(self) -> tuple[Interval, Interval]:
        """The shares of the first and of the second trial."""
        return self.one, self.other


@dataclass(frozen=True)
class Pair:
    """Two trials on the images that both predicted."""

    split: SplitName
    at: Moment
    images: int
    clusters: Clusters | None
    """The images of each patient; None if the data name no patients."""
    patients_unknown: bool
    """Whether the labels were stored by a version that did not store patients."""
    one: TrialFigures
    other: TrialFigures
    discordance: Discordance
    nll: Interval
    auc_difference: Interval | None
    auc_p: float | None
    of_classes: tuple[ClassRecall, ...]
    """Sensitivity and specificity if there are two classes and both occur; else empty."""

    JSON: ClassVar = (
        "split",
        "at",
        "images",
        "patients",
        "trials=both",
        "only_first_right=discordance.only_one",
        "only_second_right=discordance.only_other",
        "difference=discordance.difference",
        "p=discordance.p_value",
        "nll_difference=nll",
        "auc_difference",
        "auc_p",
        "classes=of_classes",
        "differs",
        "verdict",
    )

    @property
    def both(self) -> tuple[TrialFigures, TrialFigures]:
        """The first and the second trial."""
        return self.one, self.other

    @property
    def differs(self) -> bool:
        """Whether the two differ significantly on these images."""
        return self.discordance.p_value < 0.05 and not too_few(self._clusters)

    @property
    def patients(self) -> int:
        """The number of patients; 0 if the data name none."""
        return self.discordance.patients

    @property
    def _clusters(self) -> tuple[Clusters, ...]:
        return () if self.clusters is None else (self.clusters,)

    @property
    def verdict(self) -> str:
        """How the two networks compare, in plain words; their settings are not compared."""
        ahead, behind = self.one.trial, self.other.trial
        if self.discordance.difference.value < 0:
            ahead, behind = behind, ahead
        discordance = self.discordance
        if self.differs:
            said = (
                f"Trial {ahead} is more accurate than trial {behind} by "
                f"{words.amount(SHARE, discordance.difference)}"
            )
        else:
            said = (
                f"Trials {self.one.trial} and {self.other.trial} are not distinguishable: "
                f"{words.difference(SHARE, discordance.difference)}"
            )
        counts = (
            f"{words.count(discordance.only_one, 'image')} "
            f"{'is' if discordance.only_one == 1 else 'are'} classified correctly only by trial "
            f"{self.one.trial}, {discordance.only_other} only by trial {self.other.trial}"
        )
        single = self.clusters is None or self.clusters.single
        test = "McNemar, exact" if single else "exact test over patients"
        over = words.sampling_unit(self.patients)
        said = (
            f"{said}; {counts} ({test}: p = {discordance.p_value:.2g}). "
            f"This compares these two trained networks on {over} like these, not their settings: "
            "other seeds would give other networks."
        )
        limits = words.patient_remarks(self._clusters, unknown=self.patients_unknown)
        return " ".join([said, *limits])


def pair(results: Results, trials: tuple[int, int], split: SplitName | None = None) -> Pair:
    """Compare two trials on the images of a split that both predicted."""
    one, other = trials
    split = split or results.usual_split(one)
    if one == other:
        raise UserError(f"Trial {one} cannot be compared with itself; choose two different trials.")
    first, second = (results.predicted(number, split) for number in (one, other))
    mine, theirs = _shared(first, second)
    logs, others = first.log_probabilities[mine], second.log_probabilities[theirs]
    labels = first.labels[mine]
    if not np.array_equal(labels, second.labels[theirs]):
        raise UserError(
            f"Trials {one} and {other} were measured with different labels for the same images, so "
            "they cannot be compared."
        )
    binary = logs.shape[1] == 2
    hits = right(logs, labels) > 0, right(others, labels) > 0
    patients = [of[at] for at in mine] if (of := first.patients) else None
    if patients is None and second.patients:
        patients = [second.patients[at] for at in theirs]
    clusters = Clusters.of(patients) if patients else None
    odds = (_odds(logs), _odds(others)) if binary else None
    auc = delong_difference(*odds, labels == 1, clusters) if odds else None
    return Pair(
        split=split,
        at=results.at,
        images=len(labels),
        clusters=clusters,
        patients_unknown=clusters is None and None in (first.patients, second.patients),
        one=_figures(first, logs, labels, clusters),
        other=_figures(second, others, labels, clusters),
        discordance=mcnemar(*hits, clusters),
        nll=mean_difference(nll(logs, labels), nll(others, labels), clusters),
        auc_difference=auc[0] if auc else None,
        auc_p=auc[1] if auc else None,
        of_classes=_of_classes(hits, labels, first.classes, clusters) if binary else (),
    )


def _of_classes(
    hits: tuple[Right, Right],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    clusters: Clusters | None,
) -> tuple[ClassRecall, ...]:
    """Return both trials' recall of each class, and the difference."""
    of_classes = []
    for name, place in (("sensitivity", 1), ("specificity", 0)):
        mine = labels == place
        one, other = (of[mine] for of in hits)
        images = int(mine.sum())
        if images == 0:
            return ()
        whose = None if clusters is None else clusters.take(mine)
        share, others = (share_of(of, whose) for of in (one, other))
        apart = mcnemar(one, other, whose)
        of_classes.append(ClassRecall(name, classes[place], images, share, others, apart))
    return tuple(of_classes)


def _shared(predicted: Predicted, other: Predicted) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = {name: place for place, name in enumerate(other.ids)}
    both = [(place, places[name]) for place, name in enumerate(predicted.ids) if name in places]
    if len(both) < 2:
        raise UserError(
            f"Trials {predicted.trial} and {other.trial} have {len(both)} images of "
            f"{predicted.split} in common, which is too few to compare."
        )
    pairs = np.array(both, dtype=np.int64)
    return pairs[:, 0], pairs[:, 1]


def _figures(
    predicted: Predicted,
    logs: NDArray[np.float32],
    labels: NDArray[np.int64],
    clusters: Clusters | None,
) -> TrialFigures:
    probabilities = np.exp(logs.astype(np.float64))
    hits = right(logs, labels)
    calibrated = reliability(probabilities, labels)
    return TrialFigures(
        trial=predicted.trial,
        epoch=predicted.epoch,
        accuracy=share_of(hits > 0, clusters),
        nll=float(nll(logs, labels).mean()),
        auc=delong(_odds(logs), labels == 1, clusters) if logs.shape[1] == 2 else None,
        calibration_error=calibrated.error,
        brier=calibrated.brier,
    )


def _odds(logs: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(logs[:, 1].astype(np.float64) - logs[:, 0])


def pair_table(pair: Pair, study: str) -> Table:
    """Return the figures of both trials and their differences."""
    both = [
        (
            str(one.trial),
            words.with_ends(SHARE, one.accuracy),
            f"{one.nll:.4f}",
            words.with_ends(FRACTION, one.auc),
            f"{one.calibration_error:.3f}",
            f"{one.brier:.3f}",
        )
        for one in pair.both
    ]
    difference = (
        "difference",
        words.with_ends(SHARE.difference, pair.discordance.difference),
        words.with_ends(NATS.difference, pair.nll),
        words.with_ends(FRACTION.difference, pair.auc_difference),
        "",
        "",
    )
    return Table(
        ("trial", "accuracy", "loss", "AUC", "ECE", "Brier"),
        (*both, difference),
        f"{study}: two trials on {_sample(pair)} ({pair.at} epoch), 95% intervals "
        f"over {words.sampling_unit(pair.patients)}",
    )


def _sample(pair: Pair) -> str:
    split = "test" if pair.split == "test" else "validation"
    images = words.count(pair.images, f"{split} image")
    return f"{images} from {words.count(pair.patients, 'patient')}" if pair.patients else images


def class_table(pair: Pair) -> Table:
    """Return both trials' recall of each class and the differences."""
    classes = pair.of_classes
    return Table(
        ("trial", *(f"{one.name} ({one.images:,} {one.of})" for one in classes)),
        (
            (str(pair.one.trial), *(words.with_ends(SHARE, one.one) for one in classes)),
            (str(pair.other.trial), *(words.with_ends(SHARE, one.other) for one in classes)),
            (
                "difference",
                *(words.with_ends(SHARE.difference, one.discordance.difference) for one in classes),
            ),
            ("p", *(words.p_value(one.discordance.p_value) for one in classes)),
        ),
        "By class",
    )
