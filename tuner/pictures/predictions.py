"""Pictures of one trial's predictions: confusion, ROC, reliability."""

import numpy as np
from numpy.typing import NDArray

from tuner.answers import words
from tuner.answers.calibration import calibration
from tuner.answers.confusion import Confusion, confusion
from tuner.answers.roc import roc_curves
from tuner.answers.settings import has_replicates
from tuner.errors import UserError
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.subject import Subject, sentence, shortened
from tuner.records import FRACTION, SHARE
from tuner.results import Predicted, right
from tuner.statistics import share_of

Array = NDArray[np.float64]
CLASSES_MOST = 12
"""With more classes, there is no room for numbers, or for one line per class."""


def draw_confusion(subject: Subject) -> Picture:
    """Draw the counts of true by predicted class, shaded by their share of the true class."""
    predicted = subject.results.predicted(subject.trial, subject.split)
    counted = confusion(predicted)
    size = len(counted.classes)
    side = min(6.2, max(3.4, 1.7 + 0.62 * size))
    with canvas.sheet(height=side * 0.9, width=side + 1.8) as sheet:
        (axis,) = sheet.axes
        counts = np.array(counted.counts, float)
        shares = counts / np.maximum(1, np.array(counted.images))[:, None]
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        if size <= CLASSES_MOST:
            for (row, column), share in np.ndenumerate(shares):
                axis.text(
                    column, row, f"{int(counts[row, column]):,}", ha="center", va="center",
                    color="white" if share > 0.55 else "black", size=9 if size <= 6 else 7.5,
                    weight="bold" if row == column else "normal",
                )  # fmt: skip
        names = [shortened(name) for name in counted.classes]
        axis.set_xticks(range(size), names, rotation=35 if size > 3 else 0, ha="center")
        axis.set_yticks(range(size), names)
        axis.grid(visible=False)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        sheet.figure.colorbar(
            image, ax=axis, label="share of the true class", fraction=0.045, pad=0.03
        )
    interval = share_of(
        right(predicted.log_probabilities, predicted.labels) > 0, predicted.clusters
    )
    title = (
        f"Trial {predicted.trial} classifies {words.with_ends(SHARE, interval)} of "
        f"{sum(counted.images):,} {_split(predicted)} images correctly{_weakest(counted)}"
    )
    parts = [f"{_who(subject, predicted)}; interval over {_unit(predicted)} (Wilson)"]
    if any(counted.undecided):
        parts.append(f"{sum(counted.undecided)} images have NaN predictions")
    return Picture(sheet, title, sentence(parts))


def _weakest(counted: Confusion) -> str:
    known = [(share, name) for share, name in zip(counted.recall, counted.classes, strict=True)
             if share is not None]  # fmt: skip
    if len(known) < 2 or len({share for share, _ in known}) == 1:
        return ""
    share, name = min(known)
    return f"; lowest recall: {words.percent(share, 0)} (class {shortened(name)})"


def draw_roc(subject: Subject) -> Picture:
    """Draw the ROC curve: of class 1 with two classes, of each class against the rest with more."""
    predicted = subject.results.predicted(subject.trial, subject.split)
    if np.isnan(predicted.log_probabilities).any():
        raise UserError(f"Predictions of trial {predicted.trial} contain NaN: no ROC curve.")
    if len(predicted.classes) > CLASSES_MOST:
        raise UserError(
            f"{len(predicted.classes)} classes are too many ROC curves for one picture."
        )
    found = roc_curves(predicted)
    if found is None:
        raise UserError(
            f"The {_split(predicted)} images are of one class, so there is no ROC curve."
        )
    with canvas.sheet(height=3.8, width=5.2) as sheet:
        (axis,) = sheet.axes
        axis.plot((0, 1), (0, 1), color=canvas.GREY, linestyle=(0, (4, 3)), linewidth=1)
        for place, curve in enumerate(found.curves):
            (line,) = axis.plot(
                curve.false_rates, curve.true_rates, color=canvas.colour(place),
                linestyle=canvas.dash(place), marker=canvas.marker(place),
                markevery=max(1, len(curve.false_rates) // 6),
            )  # fmt: skip
            sheet.explain(
                line, f"{shortened(curve.name)}: AUC {words.with_ends(FRACTION, curve.area)}"
            )
        axis.set_xlabel("false positive rate (1 − specificity)")
        axis.set_ylabel("true positive rate (sensitivity)")
        axis.set_aspect("equal")
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
    weakest = min(found.curves, key=lambda curve: curve.area.value)
    lowest = "AUC" if len(found.curves) == 1 else "lowest AUC"
    area = words.fixed(weakest.area.value, 2)
    title = f"Trial {predicted.trial}: {lowest} {area} (class {shortened(weakest.name)})"
    return Picture(
        sheet,
        title,
        sentence([f"{_who(subject, predicted)}; intervals by DeLong, over {_unit(predicted)}"]),
    )


def draw_reliability(subject: Subject) -> Picture:
    """Draw accuracy by confidence, with the number of predictions."""
    predicted = subject.results.predicted(subject.trial, subject.split)
    found = calibration(predicted)
    if found is None:
        raise UserError(f"Some predictions of trial {predicted.trial} are not finite.")
    with canvas.sheet(2, 1, height=4.2, width=5.2, heights=(3, 1)) as sheet:
        axis, counts = sheet.axes
        axis.plot((0, 1), (0, 1), color=canvas.GREY, linestyle=(0, (4, 3)), linewidth=1)
        sure = [one.confidence for one in found.bins]
        for one in found.bins:
            axis.plot((one.confidence,) * 2, (one.accuracy.low, one.accuracy.high),
                      color=canvas.colour(0), linewidth=1.2)  # fmt: skip
        axis.plot(
            sure, [one.accuracy.value for one in found.bins], marker="o", color=canvas.colour(0)
        )
        axis.set_ylabel("fraction correct")
        counts.bar(sure, [one.images for one in found.bins], width=0.06, color=canvas.colour(5))
        counts.set_ylabel("images")
        counts.set_xlabel("confidence (probability of the predicted class)")
        low = max(0.0, 1 / found.classes - 0.05)
        for each in (axis, counts):
            each.set_xlim(low, 1.01)
            canvas.percent(each, "x")
        axis.set_ylim(0, 1.02)
        canvas.percent(axis)
    bars = f"bars are 95% intervals over the {_unit(predicted)} in each of ten equal-width bins"
    note = [f"{_who(subject, predicted)}; {bars}", "Dashed: perfect calibration"]
    return Picture(sheet, found.verdict, sentence(note))


def _who(subject: Subject, predicted: Predicted) -> str:
    best = "the best on validation"
    if has_replicates(subject.results.spec):
        best = "the median seed of the best setting on validation"
    chosen = f" ({best})" if subject.trial is None else ""
    clusters = predicted.clusters
    patients = "" if clusters is None else f" of {words.count(clusters.patients, 'patient')}"
    return (
        f"{subject.title}, trial {predicted.trial}{chosen}, "
        f"{predicted.at} epoch {predicted.epoch}, "
        f"{len(predicted.labels):,} {_split(predicted)} images{patients}"
    )


def _unit(predicted: Predicted) -> str:
    return "images" if predicted.clusters is None else "patients"


def _split(predicted: Predicted) -> str:
    return "validation" if predicted.split == "val" else predicted.split
