"""How much each parameter matters for validation loss, test accuracy and the gap.

A full grid is decomposed exactly (functional ANOVA, Hutter et al. 2014). Sampled settings are
analysed by Optuna's PED-ANOVA (Watanabe et al. 2023), with intervals from resampled trials.
"""

import logging
import warnings
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.answers import words
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import Value
from tuner.results import (
    SETTINGS_FEWEST,
    Level,
    Measure,
    Results,
    Source,
    TrialRow,
    by_number,
    column_of,
    has_figure,
    once,
)
from tuner.spec.study import Spec
from tuner.statistics import CONFIDENCE, DRAWS, Interval, decompose, precedence, too_few
from tuner.store.sampling import distributions

__all__ = ["Influence", "VarianceShare", "basis", "influence", "table"]

Array = NDArray[np.float64]
METRICS = ("val_loss", "test_acc", "gap")
BAR = 24
"""Width of the bar of a share of 100%, in characters."""
RESAMPLES = 60
SEED = 20_014
RESAMPLED_MOST = 1000
"""Limit on the trials of a resample: more would change an estimate by less than its interval."""


@dataclass(frozen=True)
class VarianceShare:
    """The share of one parameter, of an interaction of two, or of all the rest."""

    names: tuple[str, ...]
    """Empty for all the rest."""
    share: Interval
    """Without limits (low = value = high) if its uncertainty is unknown."""

    JSON: ClassVar = (
        "parameters=names",
        "share=share.value",
        "low=share.low",
        "high=share.high",
    )


@dataclass(frozen=True)
class Influence:
    """Which parameters explain the variance of one figure between a study's settings."""

    measure: Measure
    how: Literal["decomposition", "ped-anova"]
    """Exact for full grids; otherwise PED-ANOVA: which parameters set the best tenth apart."""
    parts: tuple[VarianceShare, ...]
    ahead: tuple[tuple[str, str], ...]
    """Pairs of parameters of which the first matters significantly more."""
    settings: int
    seeds: int
    trials: int
    images: int
    spread: float | None
    """Standard deviation between settings after removing noise, in the figure's unit."""
    left_out: int
    patients: int = 0
    """The number of patients, who are resampled with all their images; 0 if the data name none."""
    remarks: tuple[str, ...] = ()
    """Limitations: too few patients, one with many images, or unknown patients."""
    too_few: bool = False
    """Whether there are too few patients to order the parameters."""
    lost: str = "pruned, diverged or failed"
    """What sentences call the trials that are left out."""

    JSON: ClassVar = (
        "metric",
        "how",
        "settings",
        "seeds",
        "trials",
        "images",
        "patients",
        "spread",
        "left_out",
        "parts",
        "ahead",
        "verdict",
        "note",
    )

    @property
    def _about(self) -> str:
        """What a sentence calls the metric: its name, or `the gap`."""
        return "the gap" if self.metric == "gap" else self.metric

    @property
    def verdict(self) -> str:
        """Which parameter matters significantly more than which."""
        parts = [part for part in self.parts if len(part.names) == 1]
        if self.too_few:
            return f"Too few patients to tell which parameter matters more for {self._about}."
        if self.spread == 0:
            return (
                f"No evidence that any parameter matters for {self._about}: "
                "the differences between settings are within noise."
            )
        if len(parts) == 1:
            return f"Only {parts[0].names[0]} varies, so there is nothing to rank."
        said = [
            f"{one} matters more than {words.listed([b for a, b in self.ahead if a == one])}"
            for one in dict.fromkeys(one for one, _ in self.ahead)
        ]
        pairs = len(parts) * (len(parts) - 1) // 2
        unseen = pairs - len(self.ahead)
        if not said:
            return f"No evidence that one parameter matters more than another for {self._about}."
        others = "the other pair" if unseen == 1 else f"the other {unseen} pairs"
        rest = f"; no evidence of an order in {others}" if unseen else ""
        return f"For {self._about}, {'; '.join(said)}{rest}."

    @property
    def headline(self) -> str:
        """Which parameters matter most, in one line."""
        behind = {other for _, other in self.ahead}
        first = [one for one in dict.fromkeys(one for one, _ in self.ahead) if one not in behind]
        if not first:
            return f"for {self.metric} no parameter clearly matters more"
        verb = "matters" if len(first) == 1 else "matter"
        least = [
            part.names[0] for part in self.parts if len(part.names) == 1 and part.names[0] in behind
        ]
        return f"for {self.metric} {words.listed(first)} {verb} more than {words.listed(least)}"

    @property
    def metric(self) -> str:
        """The figure's name."""
        return self.measure.name

    @property
    def note(self) -> str | None:
        """Why a parameter may matter significantly more than another although intervals overlap."""
        shares = {part.names: part.share for part in self.parts}
        if not any(shares[one,].low <= shares[other,].high for one, other in self.ahead):
            return None
        return (
            "Which parameter matters more is judged by the interval of the difference. Noise that "
            "moves both shares cancels there, so the difference can be significant even where "
            "their own intervals overlap."
        )


# The answer


@once
def influence(results: Results, metrics: tuple[str, ...] = ()) -> list[Influence]:
    """Decompose each figure over the study's settings."""
    if not results.spec.varied:
        raise UserError(f"{results.title} varies nothing, so there is no parameter to rank.")
    for name in metrics:
        known = [name for name, measure in results.measures.items() if measure.blocks]
        if name not in known:
            raise UserError(
                f"Unknown metric {name!r}; use one of {', '.join(known)}.{meant(name, known)}"
            )
    complete = [row for row in results.rows if row.complete]
    if len(complete) < 2:
        raise UserError(
            f"{results.title} has {words.count(len(complete), 'complete trial')}; influence needs "
            f"at least 2. `tuner status {results.title}` shows the progress."
        )
    wanted = metrics or [name for name in METRICS if results.tested or name == "val_loss"]
    influences, refused = [], None
    for name in wanted:
        try:
            influences.append(_of(results, results.measures[name]))
        except UserError as error:
            # If one of the default figures cannot be decomposed, the others still are.
            refused = error
    if refused is not None and (metrics or not influences):
        raise refused
    return influences


def _of(results: Results, measure: Measure) -> Influence:
    rows = results.rows_with(column_of(measure, results.at))
    rows = [row for row in rows if has_figure(row, measure, results.at)]
    if not Source(results, measure).has_values([row["trial"] for row in rows]):
        raise UserError(
            f"{words.not_resampled(measure.name)}, which influence needs. "
            f"`tuner compare {results.title} --metric {measure.name}` compares it over seeds."
        )
    grid = _grid(results, rows) if results.spec.search.sampler == "grid" else None
    if grid is not None:
        return _decomposed(results, grid, measure)
    return _estimated(results, rows, measure)


def basis(influence: Influence) -> str:
    """Say what the shares are computed from, and what is left out."""
    lost = ""
    if influence.left_out:
        gone = words.count(influence.left_out, f"{influence.lost} trial")
        lost = f" Not included: {gone}, which are not missing at random."
    if influence.how == "ped-anova":
        return (
            f"(PED-ANOVA on {words.count(influence.trials, 'complete trial')} of "
            f"{words.count(influence.settings, 'setting')}; intervals by bootstrap.){lost}"
        )
    measure = influence.measure
    images = f", {words.sampled(influence.images, influence.patients)}" if influence.images else ""
    if influence.seeds == 1:
        lost = f" Variation between seeds is not included: there is one seed.{lost}"
    amount = words.fixed((influence.spread or 0.0) * measure.unit.scale, measure.unit.digits)
    spread = f"{amount} {measure.unit.of_differences}".strip()
    return (
        f"({words.count(influence.settings, 'setting')}, "
        f"{words.count(influence.seeds, 'seed')}{images}; "
        f"standard deviation between settings {spread}.){lost}"
        f"{''.join(f' {remark}' for remark in influence.remarks)}"
    )


def table(influence: Influence) -> Table:
    """Return the shares, largest first, each with a bar."""
    what = "difference between the best tenth of trials and the rest"
    if influence.how == "decomposition":
        what = "variance"
    rows = []
    for part in sorted(influence.parts, key=lambda part: -part.share.value):
        share = part.share
        name = " × ".join(part.names) if part.names else "the rest"
        ends = f"{100 * share.low:.0f} to {100 * share.high:.0f}"
        rows.append((name, f"{100 * share.value:.0f}%", ends, "█" * round(BAR * share.value)))
    return Table(
        ("parameter", "share", "95% interval", ""),
        tuple(rows),
        f"{influence.metric}: shares of the {what}",
        left=(0, 3),
    )


# Full grids: decomposition


@dataclass(frozen=True)
class _Grid:
    """A full grid: every setting is complete under the same seeds."""

    numbers: tuple[tuple[int, ...], ...]
    """Trials by setting and seed."""
    levels: NDArray[np.int64]
    rows: Mapping[int, TrialRow]


def _grid(results: Results, rows: Sequence[TrialRow]) -> _Grid | None:
    """Return the grid over the seeds under which all settings are complete, or None."""
    varied = results.spec.varied
    cells: dict[tuple[Level, ...], dict[int, int]] = defaultdict(dict)
    for row in rows:
        cells[tuple(row[name] for name in varied)][row["seed"]] = row["trial"]
    names: list[dict[Level, int]] = [{} for _ in varied]
    for cell in cells:
        for known, level in zip(names, cell, strict=True):
            known.setdefault(level, len(known))
    if len(cells) != results.spec.grid_size or len(cells) != np.prod([len(one) for one in names]):
        return None
    seeds = sorted(set.intersection(*(set(of) for of in cells.values())))
    if not seeds:
        return None
    levels = np.array([[k[level] for k, level in zip(names, cell, strict=True)] for cell in cells])
    numbers = tuple(tuple(of[seed] for seed in seeds) for of in cells.values())
    return _Grid(numbers, levels, by_number(rows))


def _decomposed(results: Results, grid: _Grid, measure: Measure) -> Influence:
    values, draws, source = _values(results, grid, measure)
    shares = decompose(values, grid.levels, draws)
    clusters = source.clusters() if draws is not None else ()
    few = too_few(clusters)
    varied = results.spec.varied
    return Influence(
        measure=measure,
        how="decomposition",
        parts=tuple(
            VarianceShare(tuple(varied[one] for one in term), share)
            for term, share in zip(shares.terms, shares.shares, strict=True)
            if len(term) == 1 or share.high > 0
        ),
        ahead=() if few else tuple((varied[one], varied[other]) for one, other in shares.ahead),
        settings=len(grid.numbers),
        seeds=values.shape[1],
        trials=values.size,
        images=source.images() if draws is not None else 0,
        patients=sum(one.patients for one in clusters),
        remarks=tuple(words.patient_remarks(clusters, unknown=source.patients_unknown)),
        too_few=few,
        spread=shares.spread,
        left_out=sum(row.lost for row in results.rows),
        lost=words.lost(results.spec),
    )


def _values(results: Results, grid: _Grid, measure: Measure) -> tuple[Array, Array | None, Source]:
    """Return the figure by setting and seed, and also on resampled images or patients."""
    column = column_of(measure, results.at)
    source = Source(results, measure)
    if not source.same_images([number for of in grid.numbers for number in of]):
        stored = [[grid.rows[number][column] for number in of] for of in grid.numbers]
        return np.array(stored, float), None, source
    wanted = sorted(number for of in grid.numbers for number in of)
    chance = np.random.default_rng(7)
    weights: dict[str, Array] = {}
    signs = dict(measure.blocks)
    figures: dict[int, float] = defaultdict(float)
    moved: dict[int, Array] = defaultdict(lambda: np.zeros(DRAWS))
    for number, split, one in source.values(wanted):
        if split not in weights:
            weights[split] = chance.multinomial(len(one), [1 / len(one)] * len(one), DRAWS) / len(
                one
            )
        figures[number] += signs[split] * float(one.mean())
        moved[number] += signs[split] * (weights[split] @ one)
    values = np.array([[figures[n] for n in of] for of in grid.numbers])
    drawn = np.array([[moved[n] for n in of] for of in grid.numbers])
    return values, np.moveaxis(drawn, 2, 0), source


# Sampled settings: PED-ANOVA


def _estimated(results: Results, rows: Sequence[TrialRow], measure: Measure) -> Influence:
    column, spec = column_of(measure, results.at), results.spec
    known = [row for row in rows if row[column] is not None]
    # Several seeds of a setting count as one setting, not as several that agree.
    settings: dict[tuple[Level, ...], list[float]] = defaultdict(list)
    for row in known:
        settings[tuple(row[name] for name in spec.varied)].append(float(row[column]))
    if len(settings) < SETTINGS_FEWEST:
        complete = {row.configuration for row in results.rows if row.complete}
        few = words.count(len(settings), "complete setting")
        if len(settings) < len(complete):
            value = f"with a value of {measure.name}"
            few = f"{words.count(len(settings), 'setting') if settings else 'no setting'} {value}"
        raise UserError(
            f"{results.title} has {'only ' if settings else ''}{few}; at least {SETTINGS_FEWEST} "
            "are needed to rank parameters, unless all settings of a grid are complete."
        )
    found = importance(
        spec,
        [dict(zip(spec.varied, setting, strict=True)) for setting in settings],
        [float(np.mean(figures)) for figures in settings.values()],
        larger=measure.larger,
    )
    return Influence(
        measure=measure,
        how="ped-anova",
        parts=tuple(VarianceShare((name,), share) for name, share in found.shares.items()),
        ahead=found.ahead,
        settings=len(settings),
        seeds=len({row["seed"] for row in known}),
        trials=len(known),
        images=0,
        spread=None,
        left_out=sum(row.lost for row in results.rows),
        lost=words.lost(results.spec),
    )


@dataclass(frozen=True)
class Importance:
    """Shares of importance by parameter, with intervals from resampled trials."""

    shares: Mapping[str, Interval]
    """For a conditional parameter, over the trials in which it is active."""
    ahead: tuple[tuple[str, str], ...]
    """Pairs of parameters of which the first matters significantly more."""


def importance(
    spec: Spec, chosen: Sequence[Mapping[str, Value | None]], figures: Sequence[float], larger: bool
) -> Importance:
    """Return how much each parameter sets the best tenth of the trials apart from all trials."""
    known = distributions(spec)
    trials = [
        create_trial(
            params={name: value for name, value in one.items() if value is not None},
            distributions={name: known[name] for name, value in one.items() if value is not None},
            value=figure,
        )
        for one, figure in zip(chosen, figures, strict=True)
    ]
    seen = _importances(trials, larger=larger)
    chance = np.random.default_rng(SEED)
    size = min(len(trials), RESAMPLED_MOST)
    drawn = [
        _importances([trials[at] for at in chance.integers(0, len(trials), size)], larger=larger)
        for _ in range(RESAMPLES)
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


class _GivenTrials(optuna.storages.InMemoryStorage):
    """A storage of given trials; adding them to an ordinary one would copy each."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        # The bootstrap may draw a trial twice; the evaluator distinguishes trials by id.
        self._given = [copy(trial) for trial in trials]
        for place, one in enumerate(self._given):
            one.number = place
            one._trial_id = place  # Optuna has no public way to name it

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials, without copies: callers only read them."""
        return [one for one in self._given if states is None or one.state in states]


def _importances(trials: Sequence[FrozenTrial], *, larger: bool) -> dict[str, float]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        return _evaluated(trials, larger=larger)
    finally:
        optuna.logging.set_verbosity(level)


def _evaluated(trials: Sequence[FrozenTrial], *, larger: bool) -> dict[str, float]:
    # Importing it loads scikit-learn if installed, which takes a second and is not used here.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        # Optuna warns of few trials with a conditional parameter; the interval shows that already.
        warnings.simplefilter("ignore", UserWarning)
        study = optuna.create_study(
            direction="maximize" if larger else "minimize",
            storage=_GivenTrials(trials),
        )
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))
