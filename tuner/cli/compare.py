"""`tuner compare`: is the difference between settings, or between two trials, real?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from tuner.cli import options
from tuner.cli.terminal import REPLACED, echo, echo_json
from tuner.errors import UserError
from tuner.files import check_output, contains, write_output
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.answers.compare import Comparison, Options
    from tuner.answers.pair import Pair
    from tuner.answers.searches import Searches
    from tuner.records import SplitName
    from tuner.results import Results
    from tuner.store.studies import Study


FIRST_DROPPED = (2, 7, 5)
"""Columns of a factor's table that are dropped first if not all fit: mean's interval, done, p."""
ENDINGS = (".svg", ".png", ".pdf")
POINTS = 64
"""Points of a search's course: as many as the chart in the terminal has columns."""


@click.command(
    epilog=options.examples(
        "tuner compare lr_sched --by scheduler",
        "tuner compare lr_sched --by lr --metric val_loss --reference 0.001",
        "tuner compare lr_sched --trials 12 31",
        "tuner compare everything --contenders",
        "tuner compare 'tpe-*' 'random-*' --picture searches.svg",
    )
)
@click.argument("study")
@click.argument("other", required=False)
@click.option(
    "--by",
    multiple=True,
    metavar="FACTOR",
    help="Factor to compare by; join several with commas to compare their combinations; "
    "repeatable. Default: whole settings, then every factor with few levels.",
)
@click.option(
    "--metric",
    metavar="NAME",
    help="Metric to compare by: val_loss, val_acc, test_acc, gap, test_auc …; the "
    "study's metric by default.",
)
@click.option(
    "--reference",
    metavar="LEVEL",
    help="Pre-specified reference level (default: the best).",
)
@click.option(
    "--resolve",
    type=click.FloatRange(0, min_open=True),
    metavar="D",
    help="Smallest difference you care to detect, in display units (points, nats, or a fraction "
    "for AUC). Default: 1 point, 0.01 AUC, or about a tenth of the loss.",
)
@click.option(
    "--trials",
    nargs=2,
    type=click.IntRange(0),
    metavar="A B",
    help="Compare two trials by their predictions.",
)
@click.option(
    "--contenders",
    is_flag=True,
    help='Compare the contenders of a race ([replicates] of = "top"), over seeds 1 and up.',
)
@click.option(
    "--split",
    type=click.Choice(["val", "test"]),
    help="With --trials: which images; test by default.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With two studies: also save a plot (.svg, .png or .pdf).",
)
@options.overwrite_option
@options.json_option
@click.pass_obj
def compare(  # noqa: C901  # one story: trials, contenders, or settings and then factors
    settings: Settings,
    study: StudyRef,
    other: StudyRef | None,
    by: tuple[str, ...],
    metric: str | None,
    reference: str | None,
    resolve: float | None,
    trials: tuple[int, int] | None,
    split: str | None,
    picture: Path | None,
    *,
    overwrite: bool,
    contenders: bool,
    as_json: bool,
) -> None:
    """Report which settings differ and which tie with the best.

    If settings have several seeds, each is compared with the best by the
    study's metric on validation images; as a check, they are then compared by
    test accuracy. After that, each factor is compared.

    Intervals and verdicts generalise to other seeds and to other images like
    these (or other patients, if patient IDs are available). They are
    corrected for comparing several levels and for having picked the best; see
    docs/statistics.md for the method and its error rates.

    Two studies are compared as searches: best value so far against epochs
    trained, and how many epochs the better search saves. A pattern such as
    'tpe-*' matches several studies that repeat one search with different
    seeds.
    """
    from tuner.answers.compare import Options
    from tuner.answers.pair import pair
    from tuner.answers.plain import plain
    from tuner.answers.race import compare_contenders
    from tuner.answers.setting_comparison import check, compare_settings, why_not
    from tuner.cli.console import open_console, print_sentences
    from tuner.cli.setting_comparison import show_settings
    from tuner.store import identities

    one_study = bool(by or reference or resolve or trials is not None or contenders or split)
    if other is not None:
        if one_study:
            raise UserError(
                "Two studies are compared as searches, with --metric and --picture alone; leave "
                "the rest out, or name one study."
            )
        _show_searches(
            settings,
            (str(study), str(other)),
            metric,
            picture,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    _check_options(by, metric, reference, resolve, trials, split, picture, contenders=contenders)
    with options.open_results(settings, study) as results:
        found = results.study
        marks = identities.marks(results.connection, found.study_id)
        changes = [mark.sentence for mark in marks]
        if trials is not None:
            between = pair(results, trials, cast("SplitName | None", split))
            _show_pair(between, found, as_json=as_json)
            if not as_json:
                print_sentences(open_console(), changes)
            return
        chosen = Options(reference, resolve)
        best = None
        if contenders:
            compared = [compare_contenders(results, metric=metric, options=chosen)]
        else:
            if not by:
                best = compare_settings(results, metric=metric, options=Options(None, resolve))
            compared = _by_factor(results, by, metric, chosen, needed=best is None)
        checked = None if best is None else check(results, best, whole=True)
        if not as_json:
            said = set() if best is None else set(best.sentences)
            if best is not None:
                show_settings(open_console(), results, best, checked)
            elif not by and why_not(results):
                open_console().print(f"\n{why_not(results)}")
            if best is not None and len(results.spec.varied) == 1:
                compared = []  # the settings are its levels
            several = len(compared) > 1 or best is not None
            _show(results, compared, said, several=several)
            print_sentences(open_console(), changes)
            return
        body = {
            "study": found.title,
            "changes": changes,
            "settings": plain(best),
            "settings_on_test": plain(checked),
            "comparisons": plain(compared),
            "comparisons_on_test": [plain(check(results, one)) for one in compared],
        }
    echo_json(body, allow_nan=False)


def _by_factor(
    results: "Results",
    by: tuple[str, ...],
    metric: str | None,
    chosen: "Options",
    *,
    needed: bool,
) -> "list[Comparison]":
    """Compare the levels of factors; `needed` makes it an error if none can be compared."""
    from tuner.answers.compare import compare

    if not by and not results.comparable and not needed:
        return []
    return compare(results, by=by, metric=metric, options=chosen)


def _check_options(
    by: tuple[str, ...],
    metric: str | None,
    reference: str | None,
    resolve: float | None,
    trials: tuple[int, int] | None,
    split: str | None,
    picture: Path | None,
    *,
    contenders: bool,
) -> None:
    """Refuse options that do not go together, for one study."""
    if picture is not None:
        raise UserError(
            "--picture requires two studies; for one study use `tuner plot STUDY effects`."
        )
    if trials is not None and (by or metric or reference or resolve):
        raise UserError(
            "--trials compares two trials by their predictions; drop the other options."
        )
    if contenders and (by or trials is not None):
        raise UserError("--contenders compares whole settings; leave --by and --trials out.")
    if split is not None and trials is None:
        raise UserError(
            f"--split needs --trials. To compare settings on {split} images, use "
            f"--metric {split}_acc."
        )


def _show(
    results: "Results", compared: "Sequence[Comparison]", said: set[str], *, several: bool
) -> None:
    """Print each factor's table and sentences, without remarks that were printed before."""
    from tuner.answers.compare import table
    from tuner.answers.setting_comparison import check, check_sentence
    from tuner.cli.console import as_fitting, open_console, print_sentences
    from tuner.cli.setting_comparison import print_combinations

    console = open_console()
    for comparison in compared:
        console.print()
        if comparison.factor == "contender" or "," in comparison.factor:
            factors = comparison.factor.replace(",", " and ")
            title = f"By {factors}: {comparison.measure.name}, 95% intervals"
            print_combinations(console, results, comparison, title)
        else:
            console.print(as_fitting(console, table(comparison), FIRST_DROPPED))
        print_sentences(
            console, [sentence for sentence in comparison.sentences if sentence not in said]
        )
        said.update(comparison.sentences)
        on_test = check_sentence(check(results, comparison))
        if on_test:
            print_sentences(console, [on_test])
    console.print()
    if several and compared:
        console.print("Each factor is compared separately; `--by FACTOR` compares only one.")


def _show_pair(pair: "Pair", study: "Study", *, as_json: bool) -> None:
    from tuner.answers.plain import plain
    from tuner.cli.console import open_console

    if as_json:
        echo_json({"study": study.title, **plain(pair)})
        return
    console = open_console()
    console.print()
    _print_pair(console, pair, study)
    console.print()


def _print_pair(console: "Console", found: "Pair", study: "Study") -> None:
    from tuner.answers.pair import class_table, pair_table
    from tuner.cli.console import as_rich

    console.print(as_rich(pair_table(found, study.title)))
    if found.of_classes:
        console.print()
        console.print(as_rich(class_table(found)))
    console.print(found.verdict)


# Two searches


def _show_searches(
    settings: Settings,
    names: tuple[str, str],
    metric: str | None,
    picture: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two searches, print the result, and plot it if a file is given."""
    from tuner.answers.plain import plain
    from tuner.answers.searches import compare_searches
    from tuner.pictures import MARK

    if picture is not None:
        if picture.suffix.lower() not in ENDINGS:
            raise UserError(
                f"--picture {picture}: unsupported file type; use one of {', '.join(ENDINGS)}."
            )
        check_output(picture, overwrite=overwrite, recognised=contains(MARK))
    with options.open_database(settings) as database, database.snapshot() as connection:
        compared = compare_searches(connection, *names, metric)
    if as_json:
        echo_json(plain(compared), allow_nan=False)
    else:
        _print_searches(compared)
    if picture is not None:
        from tuner.pictures import draw_searches

        drawn = draw_searches(compared)
        content = drawn.render(picture.suffix.lower().removeprefix("."))
        replaced = write_output(picture, content, overwrite=overwrite, recognised=contains(MARK))
        echo(f"{picture}{REPLACED * replaced}", err=True)


def _print_searches(compared: "Searches") -> None:
    from tuner.answers.searches import table
    from tuner.cli.console import as_rich, open_console, print_sentences
    from tuner.cli.drawing import chart

    console = open_console()
    console.print()
    common = compared.budgets[-1].epochs
    budgets = sorted({max(1, round(common * (place + 1) / POINTS)) for place in range(POINTS)})
    lines = [[one.at(budget) for budget in budgets] for one in compared.both]
    series = [
        (search.name, style, [None if mean is None else mean.value for mean in line])
        for search, line, style in zip(compared.both, lines, ("cyan", "bold"), strict=True)
    ]
    console.print(chart(f"best {compared.metric} so far", series, last=f"{common:,} epochs"))
    console.print()
    console.print(as_rich(table(compared)))
    print_sentences(console, compared.sentences)
    console.print()
