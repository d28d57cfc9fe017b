"""Means by level of a factor: over seeds, with interval and n.

A seed's value for a level is the mean over the other factors' cells, so n
counts seeds, not trials: the cells of one seed share its split and random draws.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.records import Value
from tuner.results.results import Results
from tuner.results.rows import COSTS, SLOPES, TrialRow
from tuner.spec.study import Spec
from tuner.statistics import Mean, mean_over_seeds

SHOWN = ("val_loss", "val_acc", "test_acc", "gap")

VIEWS: Mapping[str, tuple[str, ...]] = {
    "figures": SHOWN,
    "classes": ("test_auc", "test_balanced_acc", "test_sensitivity", "test_specificity"),
    "cost": ("parameter_count", *COSTS),
    "slope": ("val_loss", *SLOPES),
}
"""The figures that a table by factor shows, by the name of the view."""


def shown(spec: Spec) -> tuple[str, ...]:
    """Return the figures that tables of a study show: its own and those of every study.

    If its own metric ranks its settings, it comes first, followed by the same on test.
    """
    own = [f"{split}_{metric.name}" for metric in spec.metrics for split in ("val", "test")]
    first = [name for name in own if name.partition("_")[2] == spec.search.metric.partition("_")[2]]
    return (*first, *SHOWN, *(name for name in own if name not in first))


def view(spec: Spec, name: str) -> tuple[str, ...]:
    """Return the figures of a view."""
    return shown(spec) if name == "figures" else VIEWS[name]


WHOLE = frozenset({"parameter_count", *COSTS, *SLOPES})
"""Figures of a whole trial, which do not depend on the judged epoch."""


@dataclass(frozen=True)
class LevelMeans:
    """One level of a factor."""

    level: Value | None
    """None if the parameter was not active."""
    trials: int
    complete: int
    pruned: int
    diverged: int
    failed: int
    means: dict[str, Mean | None]

    @property
    def survivors_only(self) -> bool:
        """Whether trials are missing from the means, not at random."""
        return self.complete < self.trials


@dataclass(frozen=True)
class Factor:
    """One varied parameter with all its levels."""

    name: str
    levels: tuple[LevelMeans, ...]


def factors(results: Results, figures: Sequence[str] = ()) -> list[Factor]:
    """Return every varied parameter with few enough levels to be compared."""
    spec = results.spec
    figures = figures or shown(spec)
    columns = {name: name if name in WHOLE else results.prefix + name for name in figures}
    rows = results.rows_with(*columns.values())
    factors = []
    for name in spec.varied:
        groups: dict[Value | None, list[TrialRow]] = defaultdict(list)
        for row in rows:
            groups[row[name]].append(row)
        if len(groups) <= max(12, len(rows) // 3):
            levels = [_level(one, groups[one], columns) for one in spec.in_order(name, groups)]
            factors.append(Factor(name, tuple(levels)))
    return factors


def _level(level: Value | None, rows: Sequence[TrialRow], columns: Mapping[str, str]) -> LevelMeans:
    states = [row["state"] for row in rows]
    return LevelMeans(
        level=level,
        trials=len(rows),
        complete=states.count("COMPLETE"),
        pruned=states.count("PRUNED"),
        diverged=states.count("DIVERGED"),
        failed=states.count("FAILED"),
        means={name: _over_seeds(rows, column) for name, column in columns.items()},
    )


def _over_seeds(rows: Sequence[TrialRow], column: str) -> Mean | None:
    by_seed: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.complete and row[column] is not None:
            by_seed[row["seed"]].append(row[column])
    return mean_over_seeds([sum(values) / len(values) for values in by_seed.values()])
