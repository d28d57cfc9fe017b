"""The tables that a report's answer stands on."""

from tuner.answers import words
from tuner.answers.gap import gap
from tuner.answers.settings import settings
from tuner.answers.table import Table
from tuner.records import SHARE
from tuner.results import Measure, Results, shown
from tuner.statistics import Mean

SHOWN = 10


def configurations(results: Results) -> Table:
    """Return the best configurations on validation with their gaps."""
    measured = gap(results)
    shown = measured.settings[:SHOWN]
    varied = results.spec.varied
    rows = tuple(
        (
            *(words.level_name(setting.values[name]) for name in varied),
            words.percent(setting.val_acc),
            words.percent(setting.test_acc),
            words.figure(SHARE.difference, setting.gap.value),
            words.ends(SHARE.difference, setting.gap),
            str(len(setting.trials)),
        )
        for setting in shown
    )
    head = (*varied, "validation", "test", "gap (points)", "95 % interval", "n")
    many = len(measured.settings)
    of = f"The best {len(shown)} of {many}" if len(shown) < many else f"All {many}"
    return Table(head, rows, f"{of} settings, by validation accuracy")


def ranked_settings(results: Results) -> Table:
    """Return the best settings by the study's metric, over their seeds."""
    spec = results.spec
    found = settings(results)
    shown = found[:SHOWN]
    figures = _figures(results)
    lost = any(setting.lost for setting in shown)
    rows = tuple(
        (
            *(words.level_name(setting.values[name]) for name in spec.varied),
            *(_mean(results.measures[name], setting.means[name]) for name in figures),
            str(len(setting.seeds)),
            f"{setting.complete}/{setting.trials}",
            *([setting.lost] if lost else []),
        )
        for setting in shown
    )
    names = ["gap (points)" if one == "gap" else one.replace("_", " ") for one in figures]
    of = f"The best {len(shown)} of" if len(shown) < len(found) else "All"
    raced = "; of contenders over further seeds alone" if spec.replicates.of == "top" else ""
    return Table(
        (*spec.varied, *names, "n", "done", *(["lost"] if lost else [])),
        rows,
        f"{of} {words.count(len(found), 'setting')} by {spec.search.metric} "
        f"({spec.search.at} epoch): mean ± half of its 95 % interval over seeds alone{raced}",
    )


def _figures(results: Results) -> list[str]:
    """Return the figures of a study's tables, its metric first."""
    figures = dict.fromkeys((results.metric, *shown(results.spec)))
    untested = (
        () if results.tested else (*(name for name in figures if name.startswith("test_")), "gap")
    )
    return [name for name in figures if name not in untested]


def _mean(measure: Measure, mean: Mean | None) -> str:
    return "–" if mean is None else words.with_half(measure.unit, mean.value, mean.half_width)


def leaderboard(results: Results) -> Table:
    """Return the best trials by the study's metric."""
    leaders = results.ranked
    spec = results.spec
    search = spec.search
    others = _figures(results)[1:]
    rows = tuple(
        (
            str(row["trial"]),
            *(words.level_name(row[name]) for name in spec.varied),
            str(row["seed"]),
            words.figure(results.measures[results.metric].unit, row.value),
            *(
                words.figure(results.measures[name].unit, row[results.prefix + name])
                for name in others
            ),
            f"{row['epochs_run']}",
        )
        for row in leaders[:SHOWN]
    )
    named = (search.metric, *others)
    names = ["gap (points)" if one == "gap" else one.replace("_", " ") for one in named]
    head = ("trial", *spec.varied, "seed", *names, "epochs")
    shown = min(SHOWN, len(leaders))
    caption = (
        f"The best {shown} of {words.count(len(leaders), 'complete trial')} by {search.metric} "
        f"({search.at} epoch)"
    )
    return Table(head, rows, caption)
