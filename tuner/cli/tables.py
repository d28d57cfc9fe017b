"""`tuner table`: the leaderboard, and a table per factor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from tuner.records import Metric
    from tuner.results import Factor, Results, Reuse

NAME_WIDTH = 40
"""The least width of the column of settings' names."""
SHOWS = ("figures", "classes", "cost", "slope")


@click.command(
    epilog=options.examples("tuner table lr_sched --best 5", "tuner table ann_vs_cnn --show cost")
)
@options.answering
@click.option(
    "--best",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="K",
    help="Number of settings (or trials) to show.",
)
@click.option(
    "--trials",
    is_flag=True,
    help="Rank single trials even if settings have several seeds.",
)
@click.option(
    "--show",
    type=click.Choice(SHOWS),
    default="figures",
    show_default=True,
    help="Which columns: figures (losses, accuracies), classes (test metrics for imbalanced "
    "classes), cost (parameters, time), slope (loss slopes over the last 40% of the epochs).",
)
def table(results: "Results", best: int, show: str, *, trials: bool, as_json: bool) -> None:
    """Show a study's leaderboard and a table per factor.

    Ranks settings by their means over seeds (or single trials, if there is
    one seed per setting) on the study's validation metric. A setting with
    fewer complete seeds ranks below those with more.

    Intervals are 95% t intervals over seeds only, for this particular set of
    images; n is the number of seeds. `tuner compare` also accounts for the
    variation between images. For each seed, a level's value is the mean over
    the settings of the other factors. Slopes are in nats per epoch; a
    negative slope means the loss is still falling.
    """
    if as_json:
        echo_json(_described(results, best, show))
    else:
        show_tables(results, best=best, show=show, trials=trials)


def show_tables(
    results: "Results",
    *,
    best: int,
    show: str = "figures",
    trials: bool = False,
    told: bool = False,
) -> None:
    """Print the leaderboard and the table of every factor.

    `trials` ranks trials even if settings have several seeds; `told` says that a missing test
    set was mentioned already.
    """
    from tuner.answers.leaderboard import trials as trials_table
    from tuner.answers.remarks import remarks
    from tuner.answers.settings import has_replicates
    from tuner.answers.words import lost
    from tuner.cli.console import as_fitting, open_console
    from tuner.results import factors, reuse, view

    console = open_console()
    study, rows, leaders = results.study, results.rows, results.ranked
    figures = view(study.spec, show)
    console.print()
    if not leaders:
        console.print(f"{study.title}: no trial is complete yet.")
        return
    by_setting = has_replicates(study.spec) and not trials
    if by_setting:
        _print_settings(console, results, best, figures)
    else:
        shown_trials = trials_table(study, leaders[:best], len(leaders))
        console.print(as_fitting(console, shown_trials))
    # With a single parameter, settings are its levels.
    shown = [] if by_setting and len(study.spec.varied) == 1 else factors(results, figures)
    for factor in shown:
        console.print()
        console.print(_factor_table(console, factor, figures, study.spec.metrics))
    if by_setting:
        console.print(f"`tuner table {study.title} --trials` ranks single trials.")
    found = reuse(results)
    if found.reused or found.excess:
        console.print(_reuse_line(found))
    for sentence in remarks(rows, results.prefix):
        console.print(sentence)
    if not told and any(row["test_acc"] is None for row in leaders):
        console.print("There is no test set, so the test columns are empty.")
    missing = sum(row.lost for row in rows)
    if missing:
        console.print(
            f"{lost(study.spec).capitalize()} trials ({missing}) are excluded from the means. They "
            'are not a random subset, so check the "done" column before trusting a mean.'
        )
    console.print()


def _reuse_line(reuse: "Reuse") -> str:
    twice = f" {reuse.excess} were trained twice." if reuse.excess else ""
    return (
        f"{reuse.reused:,} of {reuse.epochs:,} epochs were reused from other trials: "
        f"{reuse.seconds:.1f} s of training instead of {reuse.seconds_without:.1f} s.{twice}"
    )


def _print_settings(
    console: "Console",
    results: "Results",
    best: int,
    figures: tuple[str, ...],
) -> None:
    """Print the best settings in the fullest table that fits without cutting a cell."""
    from tuner.answers.leaderboard import settings as settings_table
    from tuner.answers.settings import settings, short_names
    from tuner.cli.console import as_rich, fits

    ranked, study = settings(results, figures), results.study
    shown = ranked[:best]
    metric = study.spec.search.metric
    filled = {name for setting in shown for name, mean in setting.means.items() if mean is not None}
    others = [name for name in figures if name != metric and name in filled]
    varied = study.spec.varied
    names = short_names(shown, study.spec)
    # If not all figures fit, the ranking metric and its check on test stay.
    first = sorted(others, key=lambda name: name != results.check)
    wanted = [
        [metric, *(name for name in others if name in first[:keep])]
        for keep in range(len(others), -1, -1)
    ]
    # Values of many parameters do not fit side by side; then they share one column.
    apart = [(varied, kept) for kept in wanted if len(kept) > 1 or not others]
    for columns, kept in (*apart, *(((), kept) for kept in wanted)):
        table = as_rich(settings_table(study, len(ranked), shown, kept, varied=columns))
        if fits(console, table, 0 if columns else NAME_WIDTH):
            break
    if not columns:
        table = as_rich(
            settings_table(study, len(ranked), shown, kept, varied=columns, names=names)
        )
    console.print(table)


def _factor_table(
    console: "Console", factor: "Factor", figures: Sequence[str], metrics: "Sequence[Metric]"
) -> "RichTable":
    """Return a factor's levels with as many of the first figures as fit."""
    from tuner.answers.leaderboard import levels
    from tuner.cli.console import as_rich, fits

    tables = [
        as_rich(levels(factor, figures[:keep], metrics)) for keep in range(len(figures), 0, -1)
    ]
    return next((table for table in tables if fits(console, table)), tables[-1])


def _described(results: "Results", best: int, show: str) -> dict[str, Any]:
    from tuner.answers.plain import plain
    from tuner.answers.settings import settings
    from tuner.results import factors, reuse, view

    study, leaders = results.study, results.ranked[:best]
    figures = view(study.spec, show)
    return {
        "study": study.title,
        "question": study.spec.question,
        "state": study.state,
        "metric": study.spec.search.metric,
        "at": study.spec.search.at,
        "settings": plain(settings(results, figures)[:best]),
        "best": [plain(row.cells) for row in leaders],
        "time": plain(reuse(results)),
        "factors": plain(factors(results, figures)),
    }
