"""The ensemble of the best setting's seeds: the mean of their predicted probabilities.

Nothing else is selected: the setting is chosen on validation images, as by `tuner best`, and
every seed in its mean is a member. The figures come from the stored predictions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tuner.answers import words
from tuner.answers.plain import plain
from tuner.answers.settings import Setting, has_replicates, name, setting_of
from tuner.answers.table import Table
from tuner.answers.trial import SplitFigures, split_figures
from tuner.answers.winner import ClassRates, Winner, choice, rates_of, winner
from tuner.errors import UserError
from tuner.records import FRACTION, NATS, SHARE, SplitName
from tuner.results import Predicted, Results, nll

__all__ = ["Ensemble", "described", "ensemble", "figures", "sentences"]


@dataclass(frozen=True)
class NetworkFigures:
    """The figures of a network, or of the ensemble, on one split."""

    figures: SplitFigures
    loss: float
    """Mean negative log-likelihood of the true class, in nats."""
    rates: ClassRates | None
    """Only with two classes."""

    JSON: ClassVar = (
        *("images=figures.images", "patients=figures.patients", "loss"),
        *("accuracy=figures.accuracy", "auc=figures.auc"),
        *("sensitivity=rates.sensitivity", "specificity=rates.specificity"),
        *("calibration_error=figures.calibration_error", "brier=figures.brier"),
    )


@dataclass(frozen=True)
class EnsembleMember:
    """One seed of the setting, with its own figures."""

    seed: int
    trial: int
    splits: Mapping[SplitName, NetworkFigures]


@dataclass(frozen=True)
class Ensemble:
    """All seeds of the best setting as one predictor."""

    winner: Winner
    """The setting's median seed, with what is known about the setting and the study."""
    setting: Setting
    members: tuple[EnsembleMember, ...]
    splits: Mapping[SplitName, NetworkFigures]
    """The ensemble's figures."""
    predictions: Mapping[SplitName, Predicted]
    """The ensemble's predictions, under the trial number of the median seed."""

    @property
    def title(self) -> str:
        """A short description."""
        return f"ensemble of the best setting's {words.count(len(self.members), 'seed')}"


def ensemble(results: Results) -> Ensemble:
    """Return the best setting's ensemble, with its own figures and those of each seed."""
    if not has_replicates(results.spec):
        raise UserError(
            f"{results.title} has only one seed per setting, and an ensemble needs several; set "
            "[replicates] seeds to 2 or more and launch again."
        )
    best = winner(results)
    setting = setting_of(results, best.number)
    if len(setting.seeds) < 2:
        raise UserError(
            f"The best setting of {results.title} has one complete seed so far, and an ensemble "
            f"needs several; `tuner status {results.title}` shows how far the study is."
        )
    numbers = [int(row["trial"]) for row in setting.seeds]
    splits: list[SplitName] = [part.split for part in best.splits]
    read = {split: [results.predicted(number, split) for number in numbers] for split in splits}
    for split, predicted in read.items():
        if any(one.ids != predicted[0].ids for one in predicted):
            raise UserError(
                f"The seeds of {name(setting.values)} have different {split} images ([replicates] "
                "splits): one seed's validation images are another's training images, so their "
                "ensemble could not be validated. Save a single seed with --seed."
            )
    averaged = {split: _averaged(predicted) for split, predicted in read.items()}

    def measured(predicted: Predicted) -> NetworkFigures:
        losses = nll(predicted.log_probabilities, predicted.labels)
        figures = split_figures(results, predicted)
        return NetworkFigures(figures, float(losses.mean()), rates_of(predicted))

    return Ensemble(
        winner=best,
        setting=setting,
        members=tuple(
            EnsembleMember(
                int(row["seed"]), number, {split: measured(read[split][at]) for split in splits}
            )
            for at, (row, number) in enumerate(zip(setting.seeds, numbers, strict=True))
        ),
        splits={split: measured(averaged[split]) for split in splits},
        predictions={
            split: replace(predicted, trial=best.number) for split, predicted in averaged.items()
        },
    )


def _averaged(predicted: list[Predicted]) -> Predicted:
    """Return the mean probabilities, as logarithms."""
    logs = np.stack([one.log_probabilities.astype(np.float64) for one in predicted])
    mean = np.logaddexp.reduce(logs, axis=0) - math.log(len(predicted))
    return replace(predicted[0], log_probabilities=mean.astype(np.float32))


# For programs


def described(ensemble: Ensemble) -> dict[str, Any]:
    """Return everything as JSON; fractions stay fractions."""
    study = ensemble.winner.study
    return {
        "study": study.title,
        "question": study.spec.question,
        "metric": study.spec.search.metric,
        "at": study.spec.search.at,
        "setting": plain(ensemble.setting),
        "classes": list(ensemble.winner.classes),
        "sizes": dict(ensemble.winner.sizes),
        "splits": plain(ensemble.splits),
        "members": plain(ensemble.members),
        **({"metrics": _own_metrics(ensemble)} if ensemble.winner.trial.own else {}),
    }


def _own_metrics(ensemble: Ensemble) -> dict[str, Any]:
    """Return the study's own metrics by split, for the ensemble and for each seed."""
    return {
        split: {
            "ensemble": plain(figures.figures.own),
            "members": [plain(member.splits[split].figures.own) for member in ensemble.members],
        }
        for split, figures in ensemble.splits.items()
    }


# In words


def sentences(ensemble: Ensemble) -> tuple[str, ...]:
    """Say how the ensemble was chosen, what it averages, and how it does on test images."""
    numbers = words.listed([str(member.trial) for member in ensemble.members])
    chosen = choice(ensemble.winner).split(" This network is ")[0]
    said = [
        chosen,
        (
            f"The ensemble averages the probabilities of all {len(ensemble.members)} of its seeds "
            f"(trials {numbers}); no seed was left out."
        ),
    ]
    if "test" in ensemble.splits:
        own = ensemble.splits["test"].figures.accuracy.value
        single = [member.splits["test"].figures.accuracy.value for member in ensemble.members]
        said.append(
            f"On test, it classifies {words.percent(own)} of the images correctly; its seeds "
            f"average {words.percent(sum(single) / len(single))} "
            f"(lowest {words.percent(min(single))}, highest {words.percent(max(single))})."
        )
        said += _own_sentences(ensemble)
    return tuple(said)


def _own_sentences(ensemble: Ensemble) -> list[str]:
    """Say how the ensemble does on test images by the study's own metrics."""
    said = []
    for metric in ensemble.winner.trial.own:
        interval = ensemble.splits["test"].figures.own.get(metric.name)
        known = [
            member.splits["test"].figures.own[metric.name].value
            for member in ensemble.members
            if metric.name in member.splits["test"].figures.own
        ]
        if interval is None or len(known) < len(ensemble.members):
            said.append(
                f"Its {metric.name} is not known: it cannot be computed from stored predictions."
            )
            continue
        unit = metric.read_in
        own = words.with_any_ends(unit, interval)
        said.append(
            f"Its {metric.name} on test is {own}, that of its seeds "
            f"{words.figure(unit, sum(known) / len(known))} on average "
            f"({words.figure(unit, min(known))} to {words.figure(unit, max(known))})."
        )
    return said


# Its table


def figures(ensemble: Ensemble) -> Table:
    """Return the ensemble's figures on each split, with those of each seed below."""
    binary = ("sensitivity", "specificity", "AUC") if len(ensemble.winner.classes) == 2 else ()
    metrics = ensemble.winner.trial.own
    head = ("split", "network", "images", "loss", "accuracy", *binary, "ECE", "Brier")
    head = (*head, *(metric.name for metric in metrics))
    rows = []
    for split, own in ensemble.splits.items():
        networks = [("ensemble", own)]
        networks += [(f"seed {member.seed}", member.splits[split]) for member in ensemble.members]
        for network, measured in networks:
            on, rates = measured.figures, measured.rates
            sides = (rates.sensitivity, rates.specificity) if rates else (None, None)
            rows.append(
                (
                    *(split, network, words.sampled_cell(on.images, on.patients)),
                    *(words.figure(NATS, measured.loss), words.with_ends(SHARE, on.accuracy)),
                    *(
                        (
                            *(words.with_ends(SHARE, side) for side in sides),
                            words.with_ends(FRACTION, on.auc),
                        )
                        if binary
                        else ()
                    ),
                    *(f"{on.calibration_error:.3f}", f"{on.brier:.3f}"),
                    *(words.with_any_ends(one.read_in, on.own.get(one.name)) for one in metrics),
                )
            )
    return Table(head, tuple(rows), left=(0, 1))
