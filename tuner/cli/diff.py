"""`tuner diff`: the differences between two studies, or between two settings of one."""

from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json
from tuner.errors import UserError
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.answers.diff import Diff
    from tuner.answers.setting_diff import SettingDiff


@click.command(
    epilog=options.examples(
        "tuner diff lr_sched --settings 1 2",
        "tuner diff lr_sched --settings 'scheduler=step lr=0.01' 1",
        "tuner diff lr_sched@1 lr_sched@2",
        "tuner diff ann cnn --json",
    )
)
@click.argument("study")
@click.argument("other", required=False)
@click.option(
    "--settings",
    "pair",
    nargs=2,
    metavar="A B",
    help="Two settings of STUDY, each given by its rank in `tuner table` or by its values.",
)
@click.option(
    "--metric",
    metavar="NAME",
    help="Metric to compare by. Default: for two studies test_acc, if there is a test "
    "set; for two settings the study's metric and the standard ones.",
)
@options.json_option
@click.pass_obj
def diff(
    settings: Settings,
    study: StudyRef,
    other: StudyRef | None,
    pair: tuple[str, str] | None,
    metric: str | None,
    *,
    as_json: bool,
) -> None:
    """Show the differences between two studies or two settings.

    Two studies: their files, environments and results. Results are compared
    on the settings they share, matched by seed and by the parameters that
    both vary. If both used the same images, intervals also cover the
    variation between images.

    Two settings: the parameters that differ, the means over seeds of each
    metric and of the gap, and which setting is better, by the p values of
    `tuner compare`. `tuner compare STUDY --trials A B` compares two trials.
    """
    from tuner.answers.diff import diff as between
    from tuner.answers.plain import plain
    from tuner.answers.setting_diff import diff_settings
    from tuner.results import Results

    if (other is None) == (pair is None):
        raise UserError(
            "Specify two studies, or one study and two of its settings with --settings A B."
        )
    with options.open_database(settings) as database, database.snapshot() as connection:
        results = Results.of(connection, study)
        if pair is not None:
            of_settings = diff_settings(results, pair, metric)
            if as_json:
                echo_json(plain(of_settings))
            else:
                _show_settings(of_settings)
            return
        assert other is not None, "checked above: without --settings there are two studies"
        of_studies = between(results, Results.of(connection, other), metric)
    if as_json:
        echo_json(plain(of_studies), default=str)
    else:
        _show(of_studies)


def _show(diff: "Diff") -> None:
    from tuner.answers.diff import changes_table, results_table
    from tuner.cli.console import as_rich, open_console, print_sentences

    console = open_console()
    for title, changes in (("Study files", diff.changes), ("Environments", diff.surroundings)):
        console.print()
        if changes:
            console.print(as_rich(changes_table(diff, changes, title)))
        else:
            console.print(f"{title}: no differences.")
    console.print()
    console.print(as_rich(results_table(diff)))
    print_sentences(console, [diff.verdict])
    console.print()


def _show_settings(diff: "SettingDiff") -> None:
    from tuner.answers.setting_diff import changes_table, figures_table
    from tuner.cli.console import as_fitting, as_rich, open_console, print_sentences

    console = open_console()
    console.print()
    console.print(as_rich(changes_table(diff)))
    console.print()
    console.print(as_fitting(console, figures_table(diff), (4, 5)))
    print_sentences(console, [diff.verdict])
    console.print()
