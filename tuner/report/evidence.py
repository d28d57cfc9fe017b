"""The tables that a report's answer stands on."""

from tuner.answers import cells, words
from tuner.answers.compare import Comparison
from tuner.answers.gap import gap
from tuner.report.document import Table
from tuner.results.results import Results
from tuner.results.rows import TrialRow

SHOWN = 10
FIGURES = ("val_loss", "val_acc", "test_acc", "gap")


def comparison(comparison: Comparison) -> Table:
    """Return the levels of a factor with their means, intervals and standing."""
    rows = tuple(cells.cells(comparison, row) for row in comparison.rows)
    return Table(
        cells.head(comparison),
        rows,
        f"By {comparison.factor}: {comparison.measure.name}, 95 % intervals",
    )


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
            words.signed(setting.gap.value * 100, 1),
            words.signed(setting.gap.low * 100, 1)
            + " to "
            + words.signed(setting.gap.high * 100, 1),
            str(len(setting.trials)),
        )
        for setting in shown
    )
    head = (*varied, "validation", "test", "gap (points)", "95 % interval", "n")
    many = len(measured.settings)
    of = f"The best {len(shown)} of {many}" if len(shown) < many else f"All {many}"
    return Table(head, rows, f"{of} configurations, by validation accuracy")


def leaderboard(results: Results) -> Table:
    """Return the best trials by the study's metric."""
    leaders = results.ranked
    spec = results.spec
    search = spec.search
    others = [name for name in FIGURES if name != search.metric]
    if not results.tested:
        others = [name for name in others if name not in ("test_acc", "gap")]
    rows = tuple(
        (
            str(row["trial"]),
            *(words.level_name(row[name]) for name in spec.varied),
            str(row["seed"]),
            f"{row.value:.4f}",
            *(_figure(row, results.prefix, name) for name in others),
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


def _figure(row: TrialRow, prefix: str, name: str) -> str:
    value = row[prefix + name]
    if value is None:
        return "–"
    if name == "gap":
        return words.signed(value * 100, 1)
    return f"{value:.4f}" if name.endswith("loss") else words.percent(value)
