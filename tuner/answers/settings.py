"""The settings of a study over their seeds: ranks, means, and missing trials.

A setting is one combination of the varied parameters. The rule that ranks settings is in
`tuner.store.ranking`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tuner.answers import words
from tuner.errors import UserError
from tuner.records import Value
from tuner.results import (
    WHOLE,
    Measure,
    Results,
    TrialRow,
    combination_name,
    once,
    shown,
)
from tuner.spec.study import Spec
from tuner.statistics import Mean, mean_over_seeds
from tuner.store.ranking import Ranked

__all__ = [
    "Setting",
    "best_sentence",
    "has_replicates",
    "name",
    "setting_of",
    "settings",
    "short_names",
]


@dataclass(frozen=True)
class Setting:
    """One combination of the varied parameters, over its seeds."""

    configuration: int
    values: Mapping[str, Value | None]
    """By varied parameter; None if it was not active."""
    rank: int | None
    """From 1; None without a complete seed."""
    seeds: tuple[TrialRow, ...]
    """The complete trials in its means, in the order of their seeds."""
    median: TrialRow | None
    """The trial of the median seed by the study's metric: the network that represents it."""
    means: Mapping[str, Mean | None]
    """The study's metric and other figures over the seeds, with 95% intervals."""
    trials: int
    complete: int
    pruned: int
    diverged: int
    failed: int
    paused: int

    JSON: ClassVar = (
        *("rank", "setting=values", "trials", "complete", "pruned", "diverged", "failed"),
        "paused",
        *("seeds=networks", "median_trial", "means"),
    )

    @property
    def networks(self) -> list[dict[str, Any]]:
        """Each seed's number, trial, and value of the study's metric."""
        return [
            {"seed": row["seed"], "trial": row["trial"], "value": row.value} for row in self.seeds
        ]

    @property
    def median_trial(self) -> int | None:
        """The trial of the median seed."""
        return None if self.median is None else int(self.median["trial"])

    @property
    def lost(self) -> str:
        """How the lost trials ended: "1 pruned, 2 failed"."""
        states = ("paused", "pruned", "diverged", "failed")
        counts = {state: getattr(self, state) for state in states}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def over_additional_seeds(spec: Spec, setting: Setting) -> bool:
    """Return whether a setting's means are over a contender's additional seeds, without seed 0."""
    return spec.replicates.of == "top" and bool(setting.seeds) and setting.seeds[0]["seed"] > 0


def contenders(results: Results) -> int:
    """Return how many settings are ranked by additional seeds: those of a race."""
    raced = results.spec.replicates.of == "top"
    return sum(raced and one.seeds[0].seed > 0 for one in results.ranked_settings)


def has_replicates(spec: Spec) -> bool:
    """Return whether settings have several seeds, so that they are ranked by their means."""
    return spec.replicates.seeds > 1


@once
def settings(results: Results, figures: tuple[str, ...] = ()) -> list[Setting]:
    """Return every started setting, best first; those without a complete seed come last."""
    figures = figures or shown(results.spec)
    members: dict[int, list[TrialRow]] = defaultdict(list)
    for row in results.rows_with(*figures):
        members[row.configuration].append(row)
    ranked = results.ranked_settings
    unranked = sorted(members.keys() - {one.configuration for one in ranked})
    return [
        *(
            _setting(results, members[one.configuration], figures, place, one)
            for place, one in enumerate(ranked, start=1)
        ),
        *(_setting(results, members[one], figures, None, None) for one in unranked),
    ]


def name(values: Mapping[str, Value | None]) -> str:
    """Return a setting's name in sentences: "scheduler=step lr=0.01"."""
    return combination_name(values)


def best_name(results: Results) -> str:
    """Return the name of the best setting; "" without replicates or a complete trial."""
    if not has_replicates(results.spec) or not results.ranked_settings:
        return ""
    return name(settings(results)[0].values)


def best_sentence(results: Results) -> str:
    """Say which setting is best on validation, and what it reaches on test."""
    best = settings(results)[0]
    metric = results.spec.search.metric
    mean, test = best.means[metric], best.means.get(results.check)
    assert mean is not None, "a ranked setting has a mean"
    count = len(results.ranked_settings)
    additional = "additional " if over_additional_seeds(results.spec, best) else ""
    ended = sum(row.ended for row in results.rows)
    finished = results.study.state == "complete" or ended >= results.spec.total_trials
    so_far = "" if finished else " so far"
    check = ""
    if test is not None:
        checked = results.measures[results.check]
        what = "accuracy" if results.check == "test_acc" else checked.name.removeprefix("test_")
        check = f" On test, its {what} is {_limited(checked, test, '', ' over seeds')}."
    called, over = name(best.values), words.count(mean.n, f"{additional}seed")
    shown = _limited(results.measures[metric], mean, f" over {over}")
    noun = "setting"
    if additional:
        count, noun = contenders(results), "contender"
    which = f"best of {count} {noun}s{so_far} by {metric} is {called}"
    if count == 1:
        only = f"only {noun}{' with a complete additional seed' if additional else ''}{so_far}"
        which = f"{only} is {called}" if called else only
    return f"The {which}: mean {metric} {shown}.{check}"


def _limited(measure: Measure, mean: Mean, what: str, kind: str = "") -> str:
    """Return a mean with its interval: "56.2% (95% interval over seeds: 50.0 to 62.4)"."""
    shown = words.figure(measure.unit, mean.value)
    if mean.interval is None:
        return f"{shown}{what}"
    return f"{shown}{what} (95% interval{kind}: {words.ends(measure.unit, mean.interval)})"


def setting_of(results: Results, trial: int) -> Setting:
    """Return the setting of a trial."""
    row = next(row for row in results.rows if row["trial"] == trial)
    return next(
        setting for setting in settings(results) if setting.configuration == row.configuration
    )


def trial_of_seed(results: Results, seed: int) -> int:
    """Return the best setting's complete trial under a seed."""
    best = results.best
    configuration = setting_of(results, best).configuration
    mine = [row for row in results.complete if row.configuration == configuration]
    number = next((row["trial"] for row in mine if row["seed"] == seed), None)
    if number is None:
        seeds = ", ".join(str(row["seed"]) for row in mine)
        raise UserError(
            f"The best setting of {results.title} has no complete trial with seed {seed}; it has "
            f"{seeds}."
        )
    return int(number)


def short_names(settings: Sequence[Setting], spec: Spec) -> dict[int, str]:
    """Return short names of settings: the values in which they differ."""
    telling = [
        key for key in spec.varied if len({repr(setting.values[key]) for setting in settings}) > 1
    ] or spec.varied
    return {
        setting.configuration: name(
            {
                key: float(f"{value:.3g}") if isinstance(value, float) else value
                for key in telling
                for value in [setting.values[key]]
            }
        )
        for setting in settings
    }


def _setting(
    results: Results,
    members: Sequence[TrialRow],
    figures: Sequence[str],
    place: int | None,
    ranked: Ranked | None,
) -> Setting:
    by_number = {row["trial"]: row for row in members}
    seeds = tuple(by_number[seed.number] for seed in ranked.seeds) if ranked else ()
    median = by_number[ranked.median.number] if ranked else None
    metric = results.spec.search.metric
    values = {metric: [row.value for row in seeds]}
    for name in figures:
        column = name if name in WHOLE else results.prefix + name
        if name != metric:
            values[name] = [row[column] for row in seeds]
    states = [row["state"] for row in members]
    return Setting(
        configuration=members[0].configuration,
        values={name: members[0][name] for name in results.spec.varied},
        rank=place,
        seeds=seeds,
        median=median,
        means={
            name: mean_over_seeds([float(one) for one in found if one is not None])
            for name, found in values.items()
        },
        trials=len(members),
        complete=states.count("COMPLETE"),
        pruned=states.count("PRUNED"),
        diverged=states.count("DIVERGED"),
        failed=states.count("FAILED"),
        paused=states.count("PAUSED"),
    )
