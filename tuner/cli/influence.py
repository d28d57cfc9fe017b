"""`tuner influence`: which parameter matters, for what, and whether that is seen."""

from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json
from tuner.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from tuner.answers.influence import Influence, Part

BAR = 24


@click.command(
    epilog="\b\nExample:\n  tuner influence everything\n  tuner influence depth --metric test_auc"
)
@click.argument("study")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Figure to look at; may be repeated. By default val_loss, test_acc and gap.",
)
@options.json_option
@click.pass_obj
def influence(settings: Settings, study: str, metrics: tuple[str, ...], *, as_json: bool) -> None:
    """Say how much each parameter matters for validation loss, test accuracy and the gap.

    For a full grid the variance over settings is decomposed exactly (functional
    ANOVA): each parameter alone, each two together, and the rest. The noise of
    seeds and images is subtracted, and the intervals cover both. Otherwise it
    is PED-ANOVA: which parameters set the best tenth of the trials apart. One
    parameter is said to matter more than another only if their difference is
    significant; its interval can exclude 0 even where the intervals of the two
    shares overlap.
    """
    from tuner.answers.influence import influence as measure
    from tuner.answers.plain import plain
    from tuner.results.results import Results

    with options.open_database(settings) as database, database.snapshot() as connection:
        results = Results.of(connection, study)
        measured = measure(results, metrics)
    if as_json:
        echo_json({"study": results.title, "influences": plain(measured)})
        return
    _show(measured)


def _show(measured: "list[Influence]") -> None:
    from tuner.cli.console import open_console, print_sentences

    console = open_console()
    for influence in measured:
        console.print()
        console.print(_table(influence))
        print_sentences(
            console, filter(None, (influence.verdict, influence.note, _about(influence)))
        )
    console.print()


def _table(influence: "Influence") -> "RichTable":
    from tuner.cli.console import plain_table

    what = "spread" if influence.how == "decomposition" else "best tenth"
    table = plain_table(f"{influence.metric}: shares of the {what}")
    table.add_column("parameter", no_wrap=True)
    for name in ("share", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for part in sorted(influence.parts, key=lambda part: -part.share.value):
        table.add_row(*_cells(part))
    return table


def _cells(part: "Part") -> list[str]:
    share = part.share
    name = " × ".join(part.names) if part.names else "the rest"
    bar = "█" * round(BAR * share.value)
    return [name, f"{share.value:.0%}", f"{share.low:.0%} to {share.high:.0%}", bar]


def _about(influence: "Influence") -> str:
    from tuner.answers import words
    from tuner.results.measures import MEASURES

    lost = ""
    if influence.left_out:
        lost = (
            f" {words.count(influence.left_out, 'trial')} pruned, diverged or failed and are not "
            "included; they are not missing at random."
        )
    if influence.how == "ped-anova":
        return (
            f"(PED-ANOVA over {words.count(influence.settings, 'setting')} of "
            f"{words.count(influence.trials, 'complete trial')}, resampled.){lost}"
        )
    measure = MEASURES[influence.metric]
    images = f", {words.sampled(influence.images, influence.patients)}" if influence.images else ""
    if influence.seeds == 1:
        lost = f" Variation between seeds is not included: there is one seed.{lost}"
    spread = (influence.spread or 0.0) * measure.scale
    return (
        f"({words.count(influence.settings, 'setting')}, "
        f"{words.count(influence.seeds, 'seed')}{images}; "
        f"settings spread by {spread:.{measure.digits}f} {measure.unit}.){lost}"
        f"{''.join(f' {remark}' for remark in influence.remarks)}"
    )
