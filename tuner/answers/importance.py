"""Which parameters the best of drawn configurations have in common (PED-ANOVA, by Optuna)."""

import logging
import warnings
from collections.abc import Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.records import Value
from tuner.spec.study import Spec
from tuner.statistics.precedence import precedence
from tuner.statistics.variance import CONFIDENCE, Interval
from tuner.store.sampling import distributions

DRAWS = 60
SEED = 20_014
MOST = 1000
"""Trials that a draw has at most; more change an estimate by less than its interval is wide."""


@dataclass(frozen=True)
class Importance:
    """Shares of importance by parameter, with intervals from resampled trials."""

    shares: Mapping[str, Interval]
    """Of a parameter that is active only in some trials: where it is active."""
    ahead: tuple[tuple[str, str], ...]
    """Parameters of which the first matters more, beyond chance."""


def importance(
    spec: Spec, chosen: Sequence[Mapping[str, Value | None]], figures: Sequence[float], larger: bool
) -> Importance:
    """Ask by which parameters the best tenth of the trials stands out from all."""
    known = distributions(spec)
    trials = [
        create_trial(
            params={name: value for name, value in one.items() if value is not None},
            distributions={name: known[name] for name, value in one.items() if value is not None},
            value=figure,
        )
        for one, figure in zip(chosen, figures, strict=True)
    ]
    seen = _shares(trials, larger=larger)
    chance = np.random.default_rng(SEED)
    drawn = [
        _shares([trials[at] for at in _places(chance, len(trials))], larger=larger)
        for _ in range(DRAWS)
    ]
    names = [name for name in spec.varied if name in seen]
    table = np.array([[one.get(name, 0.0) for name in names] for one in drawn])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(table, (tail, 1 - tail), axis=0)
    shares = {
        name: Interval(seen[name], min(seen[name], float(a)), max(seen[name], float(b)))
        for name, a, b in zip(names, low, high, strict=True)
    }
    ahead = tuple((names[one], names[other]) for one, other in precedence(table))
    return Importance(shares, ahead)


class _Given(optuna.storages.InMemoryStorage):
    """A study's trials as they are: to add them to a storage would copy each, most of the time."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        # A trial that was drawn twice is two trials, which the evaluator tells by their ids.
        self._given = [copy(one) for one in trials]
        for place, one in enumerate(self._given):
            one.number = place
            one._trial_id = place  # Optuna has no public way to name it

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials; they are only read."""
        return [one for one in self._given if states is None or one.state in states]


def _places(chance: np.random.Generator, trials: int) -> list[int]:
    return [int(at) for at in chance.integers(0, trials, min(trials, MOST))]


def _shares(trials: Sequence[FrozenTrial], *, larger: bool) -> dict[str, float]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        return _evaluated(trials, larger=larger)
    finally:
        optuna.logging.set_verbosity(level)


def _evaluated(trials: Sequence[FrozenTrial], *, larger: bool) -> dict[str, float]:
    # With it comes scikit-learn where that is installed: a second, for evaluators not asked here.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        # Few trials with a conditional parameter: that is in the interval, and no news to a user.
        warnings.simplefilter("ignore", UserWarning)
        study = optuna.create_study(
            direction="maximize" if larger else "minimize",
            storage=_Given(trials),
        )
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))
