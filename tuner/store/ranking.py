"""Which setting is best: settings ranked by their mean over seeds.

The best single trial of many is often a lucky seed of a poor setting, so a study with replicates
ends with a setting and not with a trial:

1. A setting's value is the mean of the study's metric over its complete seeds.
2. A setting with fewer complete seeds ranks below every setting with more, whatever its mean: seeds
   that were pruned, diverged or failed are not missing at random.
3. While a study runs, only seeds that have ended under every setting count, so that all settings
   are ranked over the same seeds. Before there is one, all count.
4. In a race only the further seeds count: seed 0 chose the contenders, so its values are biased.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.spec.study import Spec


@dataclass(frozen=True)
class Seed:
    """The fields of one trial that the ranking of its setting needs."""

    configuration: int
    seed: int
    number: int
    """Of the trial."""
    ended: bool
    value: float | None
    """The study's metric; None unless the trial is complete."""


@dataclass(frozen=True)
class Ranked:
    """A setting with the seeds that its mean is taken over."""

    configuration: int
    seeds: tuple[Seed, ...]
    """The complete ones in order; never empty."""
    mean: float
    counted: int
    """How many of its seeds rank it above settings with fewer, by rule 2."""
    median: Seed
    """The seed with the median value; for an even number, the worse of the middle two."""


def rank_settings(spec: Spec, trials: Sequence[Seed]) -> list[Ranked]:
    """Return the settings with at least one complete seed, the best first."""
    sign = 1.0 if spec.direction == "minimize" else -1.0
    raced = spec.replicates.of == "top"
    contenders = {trial.configuration for trial in trials if raced and trial.seed > 0}
    ended = Counter(trial.seed for trial in trials if trial.ended)
    whole = {seed for seed, count in ended.items() if count >= spec.configurations}
    by_setting: dict[int, list[Seed]] = defaultdict(list)
    for trial in trials:
        if trial.value is not None and math.isfinite(trial.value):
            by_setting[trial.configuration].append(trial)
    settings: list[tuple[tuple[int, float, int], Ranked]] = []
    for configuration, complete in by_setting.items():
        if raced:
            ranking = [trial for trial in complete if configuration in contenders and trial.seed]
        else:
            ranking = [trial for trial in complete if trial.seed in whole]
        seeds = sorted(ranking or complete, key=lambda trial: (trial.seed, trial.number))
        mean = math.fsum(trial.value or 0.0 for trial in seeds) / len(seeds)
        best_first = sorted(seeds, key=lambda trial: (sign * (trial.value or 0.0), trial.number))
        median = best_first[len(seeds) // 2]
        ranked = Ranked(configuration, tuple(seeds), mean, len(ranking), median)
        settings.append(((-len(ranking), sign * mean, seeds[0].number), ranked))
    return [ranked for _, ranked in sorted(settings, key=lambda pair: pair[0])]
