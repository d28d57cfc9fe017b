"""A launch's look at the data: before anything is created, and once for the same data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.check import clear_progress, show_progress
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.check.quick import Examined
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.studies import Study


def look_at_data(
    database: "Database", settings: Settings, spec: "Spec", folders: Sequence[Path]
) -> "Sequence[Examined]":
    """Examine the first configuration of [data] and tell what to know of it.

    Whatever is wrong with the data is raised, before the study is stored. Data
    that were looked at for this study before are not looked at again.
    """
    from tuner.check.quick import configurations, examine_data

    data = configurations(spec)[0]
    if _known(database, spec, data):
        return ()
    found = examine_data(
        spec,
        data,
        home=settings.home,
        folders=folders,
        progress=show_progress,
        quick=True,
    )
    clear_progress()
    for note in found.notes:
        click.echo(f"Data: {note}", err=True)
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return (found,)


def keep_look(database: "Database", study: "Study", found: "Sequence[Examined]") -> None:
    """Keep what was found with the study."""
    from tuner.store import checks

    if not found:
        return
    body = {
        "study": study.spec.name,
        "data": [{**one.body, "warnings": one.warnings} for one in found],
        "cost": None,
        "noise": [],
    }
    with database.transaction() as connection:
        checks.keep(connection, study.study_id, body)


def _known(database: "Database", spec: "Spec", data: object) -> bool:
    from tuner.errors import UnknownStudyError
    from tuner.store import checks, studies

    with database.transaction() as connection:
        try:
            study = studies.find(connection, spec.name)
        except UnknownStudyError:
            return False
        stored = checks.latest(connection, study.study_id)
    return stored is not None and any(one["data"] == data for one in stored.body["data"])
