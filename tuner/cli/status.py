"""`tuner status` and `tuner studies`: the state of studies."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.overview import Counts, Overview, WorkerLine
    from tuner.store.studies import Study

LISTED_MOST = 20
"""More trials than this are only counted."""


@click.command(epilog=options.examples("tuner status lr_sched --watch"))
@click.argument("study", required=False)
@click.option("--watch", is_flag=True, help="Refresh until the study ends; press Ctrl-C to quit.")
@options.json_option
@click.pass_obj
def status(settings: Settings, study: StudyRef | None, *, watch: bool, as_json: bool) -> None:
    """Show a study's trials, workers, leases and best result.

    Without STUDY, shows the most recently launched study.
    """
    with options.open_database(settings) as database:
        ref = study or _newest(database)
        if ref is None:
            echo("There are no studies yet; `tuner launch NAME` starts one.")
            return
        if as_json:
            body = _described(_look(database, ref)) | {"race": _race(database, ref)}
            echo_json(body)
        elif watch:
            _watch(database, ref)
        else:
            _print(_look(database, ref))
            _print_race(database, ref)


@click.command(epilog=options.examples("tuner studies --tag paper --json"))
@click.option("--archived", is_flag=True, help="List archived studies instead.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only those with this tag.")
@options.json_option
@click.pass_obj
def studies(settings: Settings, tags: tuple[str, ...], *, archived: bool, as_json: bool) -> None:
    """List the studies in the database, except archived ones."""
    from tuner.store import studies as stored
    from tuner.store.overview import count

    with options.open_database(settings) as database, database.transaction() as connection:
        listed = stored.listing(connection)
        hidden = sum(study.archived is not None for study in listed)
        found = [
            (study, count(connection, study))
            for study in listed
            if (study.archived is not None) == archived and {*tags} <= {*study.tags}
        ]
    if as_json:
        body = [
            {
                "study": study.title,
                "question": study.spec.question,
                "objective": study.spec.objective,
                "state": study.state,
                "reason": study.reason,
                "created": study.created.isoformat(),
                "fingerprint": study.fingerprint,
                "trials": {**asdict(counts), "ended": counts.ended},
                "tags": study.tags,
                "archived": study.archived and study.archived.isoformat(),
                "note": study.note,
            }
            for study, counts in found
        ]
        echo_json(body)
        return
    if not found and (archived or tags or hidden):
        echo("No studies are archived." if archived else "No matching studies.")
    elif not found:
        echo("There are no studies yet; `tuner launch NAME` starts one.")
    if found:
        _print_studies(found)
    if hidden and not archived:
        echo(f"{hidden} archived:  tuner studies --archived", err=True)


def _print_studies(found: "Sequence[tuple[Study, Counts]]") -> None:
    from rich.table import Table

    from tuner.cli.console import open_console

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    tagged = any(study.tags for study, _ in found)
    names = ["study", "state", "trials", "failed", "launched", *["tags"] * tagged, "question"]
    for name in names:
        table.add_column(name, no_wrap=name not in ("question", "tags"))
    for study, counts in found:
        launched = study.created.astimezone().strftime("%Y-%m-%d %H:%M")
        done = f"{counts.at_rest}/{counts.total}"
        tags = [" ".join(study.tags)] * tagged
        cells = (study.title, study.state, done, str(counts.failed), launched)
        table.add_row(*cells, *tags, study.spec.question)
    open_console().print(table)


def _newest(database: "Database") -> StudyRef | None:
    from tuner.store import studies as stored

    with database.transaction() as connection:
        listed = stored.listing(connection)
    return listed[-1].ref if listed else None


def _look(database: "Database", ref: StudyRef) -> "Overview":
    from tuner.store import studies as stored
    from tuner.store.overview import overview

    with database.transaction() as connection:
        return overview(connection, stored.find(connection, ref))


def _print(overview: "Overview") -> None:
    from tuner.answers.words import listed
    from tuner.cli.console import open_console
    from tuner.cli.live import draw

    console = open_console()
    console.print(draw(overview))
    if not overview.reason:
        console.print(overview.state)
    resumed = [number for number in overview.adopted if number not in set(overview.retried)]
    told = (
        (resumed, "Interrupted or released, then resumed"),
        (overview.retried, "Retried after a failed attempt"),
    )
    for numbers, what in told:
        if numbers:
            named = [*map(str, numbers[:LISTED_MOST])]
            if len(numbers) > LISTED_MOST:
                named.append(f"{len(numbers) - LISTED_MOST} more")
            trials = "trial" if len(numbers) == 1 else "trials"
            see = f"(see `tuner events {overview.title}`)"
            console.print(f"{what}: {trials} {listed(named)}  {see}")
    for _, lines in groupby(overview.workers, lambda line: line.worker_id):
        console.print(_worker_line(list(lines)), style="dim")


def _worker_line(lines: "Sequence[WorkerLine]") -> str:
    """Describe a worker, given its lines, one per trial."""
    one = lines[0]
    text = f"worker {one.worker_id}: {one.host} pid {one.pid}, seen {one.seen_seconds:.0f} s ago"
    if one.lease_seconds is None:
        return text
    left = min(line.lease_seconds or 0 for line in lines)
    if len(lines) == 1:
        attempt = f"trial {one.number}, attempt {one.attempts}"
        return f"{text}, {attempt}, lease expires in {left:.0f} s"
    trials = ", ".join(str(line.number) for line in lines)
    return f"{text}, {len(lines)} trials at a time ({trials}), leases expire in {left:.0f} s"


def _print_race(database: "Database", ref: StudyRef) -> None:
    from tuner.cli.console import open_console, print_sentences
    from tuner.cli.race import race_lines
    from tuner.store import studies as stored

    with database.transaction() as connection:
        study = stored.find(connection, ref)
    lines = race_lines(database, study)
    if lines:
        print_sentences(open_console(), lines)


def _race(database: "Database", ref: StudyRef) -> dict[str, Any] | None:
    from tuner.answers.plain import plain
    from tuner.answers.race import race_story
    from tuner.results import Results

    with database.snapshot() as connection:
        return cast("dict[str, Any] | None", plain(race_story(Results.of(connection, ref))))


def _watch(database: "Database", ref: StudyRef) -> None:
    from tuner.cli.live import screen_for

    with screen_for(sys.stdout) as screen:
        try:
            while True:
                overview = _look(database, ref)
                screen.show(overview)
                if overview.over:
                    return
                time.sleep(1.0)
        except KeyboardInterrupt:
            return


def _described(overview: "Overview") -> dict[str, Any]:
    from tuner.answers.forecast import forecast

    described = asdict(overview)
    # The metric's unit is for display only; programs get figures as they are stored.
    del described["unit"]
    described["created"] = overview.created.isoformat()
    described["counts"]["ended"] = overview.counts.ended
    future = forecast(overview)
    described["forecast"] = None if future is None else asdict(future)
    return described
