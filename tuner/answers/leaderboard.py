"""The leaderboards: settings over their seeds, single trials, and the levels of a factor."""

from collections.abc import Mapping, Sequence

from tuner.answers import words
from tuner.answers.columns import unit_of
from tuner.answers.settings import Setting, over_additional_seeds
from tuner.answers.table import Table
from tuner.records import NUMBER, Metric, Unit, value_text
from tuner.results import Factor, TrialRow
from tuner.results import shown as shown_figures
from tuner.statistics import Mean
from tuner.store.studies import Study

__all__ = ["levels", "settings", "trials"]

MEANS_OVER = "mean ± half-width of its 95% interval over"


def trials(study: Study, leaders: Sequence[TrialRow], complete: int) -> Table:
    """Return single trials, best first."""
    search = study.spec.search
    some = (
        f"all {complete}" if len(leaders) == complete > 1 else f"best {len(leaders)} of {complete}"
    )
    prefix = "" if search.at == "best" else "last_"
    names = [name for name in shown_figures(study.spec) if name != search.metric]
    figures = _heads((search.metric, *names, "seconds"))
    head = ("trial", *study.spec.varied, "seed", *figures)
    rows = [
        (
            str(row["trial"]),
            *(value_text(row[name]) for name in study.spec.varied),
            str(row["seed"]),
            *(
                words.figure(unit_of(name, study.spec.metrics) or NUMBER, value)
                for name, value in (
                    (search.metric, row.value),
                    *((name, row[prefix + name]) for name in names),
                    ("seconds", row["seconds"]),
                )
            ),
        )
        for row in leaders
    ]
    return Table(
        head,
        tuple(rows),
        f"{study.title}: {some} complete trials by {search.metric} ({search.at} epoch)",
        setting=range(1, 1 + len(study.spec.varied)),
    )


def settings(
    study: Study,
    count: int,
    shown: Sequence[Setting],
    figures: Sequence[str],
    *,
    varied: Sequence[str],
    names: Mapping[int, str] | None = None,
) -> Table:
    """Return settings with their means over seeds, best first.

    `varied` are the parameters that have their own columns; `names` are the settings' names by
    configuration, for one column instead.
    """
    search = study.spec.search
    of = f"best {len(shown)} of {count}" if len(shown) < count else count
    raced = any(over_additional_seeds(study.spec, setting) for setting in shown)
    selected = " (seed 0 selected the contenders)" if raced else ""
    if any(len(setting.seeds) > 1 for setting in shown):
        over = f"{MEANS_OVER} {'additional seeds' if raced else 'seeds only'}{selected}"
    else:
        seed = "additional seed" if raced else "seed"
        over = f"values of a single {seed}{selected}; no intervals"
    lost = any(setting.lost for setting in shown)
    head = (*varied, *_heads(figures), "n", "done", *(["lost"] if lost else []))
    rows = [
        (
            *(value_text(setting.values[name]) for name in varied),
            *(_mean(unit_of(name, study.spec.metrics), setting.means[name]) for name in figures),
            str(len(setting.seeds)),
            f"{setting.complete}/{setting.trials}",
            *([setting.lost] if lost else []),
            *([] if names is None else [names[setting.configuration]]),
        )
        for setting in shown
    ]
    last = () if names is None else (len(head),)
    return Table(
        (*head, *([] if names is None else ["setting"])),
        tuple(rows),
        f"{study.title}: {of} settings by {search.metric} ({search.at} epoch);\n{over}",
        left=last,
        wrapped=last,
    )


def levels(factor: Factor, shown: Sequence[str], metrics: Sequence[Metric] = ()) -> Table:
    """Return the levels of a factor with their means over seeds."""
    rows, most = [], 0
    for level in factor.levels:
        means = [level.means[name] for name in shown]
        n = max((mean.n for mean in means if mean is not None), default=0)
        most = max(most, n)
        rows.append(
            (
                value_text(level.level),
                *(
                    _mean(unit_of(name, metrics), mean)
                    for name, mean in zip(shown, means, strict=True)
                ),
                str(n),
                f"{level.complete}/{level.trials}",
            )
        )
    return Table(
        (factor.name, *_heads(shown), "n", "done"),
        tuple(rows),
        f"By {factor.name}: "
        + (f"{MEANS_OVER} seeds only" if most > 1 else "values of a single seed; no intervals"),
    )


def _heads(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name in names)


def _mean(unit: Unit | None, mean: Mean | None) -> str:
    if mean is None:
        return "–"
    if unit is None:
        return f"{mean.value:,.0f}"
    return words.with_half(unit, mean.value, mean.half_width)
