"""`tuner enqueue`: settings to be trained next."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.store.queue import QueuePlace


@click.command(
    epilog=options.examples(
        "tuner enqueue lr_sched lr=0.001 scheduler=cosine", "tuner enqueue lr_sched"
    )
)
@click.argument("study")
@click.argument("setting", nargs=-1, metavar="[NAME=VALUE]...")
@options.json_option
@click.pass_obj
def enqueue(
    settings: Settings, study: StudyRef, setting: tuple[str, ...], *, as_json: bool
) -> None:
    """Queue a setting to be trained next, e.g. a known good one.

    Give a value for every parameter that the study varies. The number of
    trials stays the same: a grid setting moves to the front of the queue; any
    other setting replaces the sampler's next proposal. A running worker
    trains it as its next trial. Without a setting, the queue is listed.
    """
    from tuner.spec.setting import read_setting
    from tuner.store import queue, studies

    with options.open_database(settings) as database, database.transaction() as connection:
        found = studies.find(connection, study)
        if setting:
            given = read_setting(found.spec, setting)
            places = queue.enqueue(connection, found, [given])
        else:
            places = queue.places(connection, found)
    if as_json:
        echo_json([asdict(place) for place in places])
        return
    if not places:
        echo(f"Nothing was queued for {found.title}.")
    for place in places:
        echo(place_line(place))
    if setting and found.state in ("stopped", "paused", "spent") and places[0].trial is None:
        echo(f"{found.title} is {found.state}. Train with:  tuner launch {found.title}")


def place_line(place: "QueuePlace") -> str:
    """Say where a setting is in the queue."""
    from tuner.records import value_text

    setting = " ".join(f"{name}={value_text(value)}" for name, value in place.chosen.items())
    if place.trial is not None:
        return f"{setting} is trial {place.trial}."
    return f"{setting} is queued." if place.added else f"{setting} waits in the queue."
