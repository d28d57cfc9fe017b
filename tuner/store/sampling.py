"""The samplers, which choose a configuration's parameters from (seed, configuration).

Grid, random and quasi-random values depend only on the study's seed and the
configuration's index, so that two workers never propose the same point twice and
a study does not depend on the number of workers. TPE and GP also look at the
peers' results; they run outside of any lock. A worker that has peers adds a number of
its own to the seed (`stream`): what two of them propose at once are two draws.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import _filter_study
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.records import Value
from tuner.spec.space import Choice, Range
from tuner.spec.study import Spec
from tuner.store.optuna_storage import TrialsInMemory
from tuner.store.pruning import build_pruner


def distributions(spec: Spec) -> dict[str, BaseDistribution]:
    """Return Optuna's description of every dimension of the study's space."""
    return {dimension.name: _distribution(dimension) for dimension in spec.space.dimensions}


def choose(spec: Spec, configuration: int) -> dict[str, Value]:
    """Return the parameters of a configuration, for samplers that need no peer's results."""
    if spec.search.sampler == "grid":
        return dict(spec.grid[configuration])
    if spec.search.sampler == "qmc":
        point = _qmc_point(spec, configuration)
    elif spec.search.sampler == "random":
        generator = np.random.Generator(np.random.PCG64(_entropy(spec, configuration)))
        point = generator.random(len(spec.space.dimensions))
    else:
        raise AssertionError(f"the {spec.search.sampler} sampler needs the trials so far")
    chosen: dict[str, Value] = {}
    places = {dimension.name: place for place, dimension in enumerate(spec.space.dimensions)}
    for dimension in spec.space.ordered():
        if spec.space.is_active(dimension, chosen):
            chosen[dimension.name] = value_at(dimension, float(point[places[dimension.name]]))
    return in_file_order(spec, chosen)


def may_wait(spec: Spec) -> bool:
    """Return whether a proposal may be used for a later configuration than it was made for.

    Not if the sampler looks at trials in training: then a proposal made before a peer's trial
    began may be very near to that trial. Nor with hyperband: which trials the sampler learns from
    depends on the number of the trial that it proposes for.
    """
    options = spec.search.sampler_options
    looks = spec.search.sampler == "gp" or bool(options.get("constant_liar"))
    return not looks and spec.search.pruner != "hyperband"


def propose(
    spec: Spec, title: str, trials: Sequence[FrozenTrial], configuration: int, stream: int = 0
) -> dict[str, Value]:
    """Ask a learning sampler for a configuration, given the trials so far."""
    view = TrialsInMemory(as_seen(spec, trials), spec.direction)
    study = optuna.study.Study(
        title, view, _sampler(spec, configuration, stream), build_pruner(spec)
    )
    asked = create_trial(state=TrialState.RUNNING)
    asked.number = 1 + max((trial.number for trial in trials), default=-1)
    asked._trial_id = -1  # no real trial: whatever the sampler writes is dropped
    seen = _filter_study(study, asked)
    relative_space = study.sampler.infer_relative_search_space(seen, asked)
    relative = study.sampler.sample_relative(seen, asked, relative_space)
    every = distributions(spec)
    chosen: dict[str, Value] = {}
    for dimension in spec.space.ordered():
        name = dimension.name
        if not spec.space.is_active(dimension, chosen):
            continue
        if name in relative and relative_space[name] == every[name]:
            value = relative[name]
        else:
            value = study.sampler.sample_independent(seen, asked, name, every[name])
        chosen[name] = value.item() if isinstance(value, np.generic) else value
        asked.params = dict(chosen)
        asked.distributions = {given: every[given] for given in chosen}
    return in_file_order(spec, chosen)


def as_seen(spec: Spec, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials for a sampler: without replicates, with diverged ones as the worst.

    TPE ranks pruned trials by their last epoch first, so that NaN at epoch 20
    would beat 0.3 at epoch 4; a pruned trial without any epoch ranks last. GP
    ignores pruned trials, so it gets diverged trials with the worst finite value.
    """
    explored = [trial for trial in trials if trial.user_attrs.get("seed", 0) == 0]
    values = [trial.value for trial in explored if trial.state == TrialState.COMPLETE]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    worst = max if spec.direction == "minimize" else min
    seen = []
    for trial in explored:
        if not trial.user_attrs.get("diverged"):
            seen.append(trial)
        elif spec.search.sampler == "gp" and finite:
            seen.append(_with_state(trial, TrialState.COMPLETE, worst(finite)))
        else:
            seen.append(_with_state(trial, TrialState.PRUNED, None))
    return seen


def value_at(dimension: Choice | Range, unit: float) -> Value:
    """Map a unit value from [0, 1) to a value of the dimension."""
    if isinstance(dimension, Choice):
        return dimension.values[int(unit * len(dimension.values))]
    low, high = dimension.low, dimension.high
    if dimension.count is not None:
        return dimension.value(int(unit * dimension.count))
    if dimension.integer:
        return _whole_at(dimension, unit)
    if dimension.log:
        # Rounding in exp and log may miss the ends of the range.
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        return min(max(value, float(low)), float(high))
    # Not low + unit * width, because the width may overflow a float.
    value = low * (1.0 - unit) + high * unit
    return min(max(float(value), float(low)), float(high))


def in_file_order(spec: Spec, chosen: Mapping[str, Value]) -> dict[str, Value]:
    """Return chosen parameters in the order of the study file, as tables show them."""
    return {name: chosen[name] for name in spec.space.names if name in chosen}


def _whole_at(dimension: Range, unit: float) -> int:
    low, high = dimension.low, dimension.high
    if not dimension.log:
        return min(int(low) + math.floor(unit * (high - low + 1)), int(high))
    bottom, top = math.log(low - 0.5), math.log(high + 0.5)
    return min(max(round(math.exp(bottom + unit * (top - bottom))), int(low)), int(high))


def _distribution(dimension: Choice | Range) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.integer:
        step = 1 if dimension.step is None else int(dimension.step)
        return IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log, step=step
        )
    step_size = None if dimension.step is None else float(dimension.step)
    return FloatDistribution(
        float(dimension.low), float(dimension.high), log=dimension.log, step=step_size
    )


def _entropy(spec: Spec, *place: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([spec.search.seed, *place])


def _qmc_point(spec: Spec, configuration: int) -> NDArray[np.float64]:
    from scipy.stats import qmc

    options = spec.search.sampler_options
    kind = qmc.Halton if options.get("qmc_type") == "halton" else qmc.Sobol
    engine = kind(
        d=len(spec.space.dimensions),
        scramble=bool(options.get("scramble", True)),
        rng=np.random.default_rng([spec.search.seed]),
    )
    if configuration:
        engine.fast_forward(configuration)
    point: NDArray[np.float64] = engine.random(1)[0]
    return np.minimum(point, np.nextafter(1.0, 0.0))


def _sampler(spec: Spec, configuration: int, stream: int) -> BaseSampler:
    # With one seed for all workers, Optuna's samplers would propose the same values twice.
    place = (configuration, stream) if stream else (configuration,)
    seed = int(_entropy(spec, *place).generate_state(1)[0])
    options: dict[str, Any] = dict(spec.search.sampler_options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Optuna warns at every use of warn_independent_sampling that it will be removed.
        warnings.simplefilter("ignore", FutureWarning)
        if spec.search.sampler == "gp":
            deterministic = options.pop("deterministic", None)
            if deterministic is not None:
                options["deterministic_objective"] = deterministic
            return GPSampler(seed=seed, **options)
        if spec.search.sampler == "tpe":
            return TPESampler(seed=seed, warn_independent_sampling=False, **options)
    raise AssertionError(f"the {spec.search.sampler} sampler does not learn")


def _with_state(trial: FrozenTrial, state: TrialState, value: float | None) -> FrozenTrial:
    copy = create_trial(
        state=state,
        value=value,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
    )
    copy.number = trial.number
    copy._trial_id = trial._trial_id
    return copy
