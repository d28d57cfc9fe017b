"""A launch's look at the data: before anything is created, and once for the same data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.terminal import clear_progress, echo, show_progress
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.check.quick import Examined
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.studies import Study


def look_at_data(
    database: "Database",
    settings: Settings,
    spec: "Spec",
    folders: Sequence[Path],
    *,
    again: bool,
) -> "Sequence[Examined]":
    """Examine the first configuration of [data] and tell what to know of it.

    Whatever is wrong with the data is raised, before the study is stored. Data
    that were looked at for this study before are not looked at `again` unless
    code or data changed.
    """
    from tuner.check.quick import configurations, examine_data
    from tuner.check.settings import check_data

    known = _known(database, spec)
    if known is not None and not again:
        check_data(spec, known["contents"])
        return ()
    found = examine_data(
        spec,
        configurations(spec)[0],
        home=settings.home,
        folders=folders,
        progress=show_progress,
        quick=True,
    )
    clear_progress()
    for note in found.notes:
        echo(f"Data: {note}", err=True)
    for warning in found.warnings:
        echo(f"Warning: {warning}", err=True)
    return (found,)


def keep_look(database: "Database", study: "Study", found: "Sequence[Examined]") -> None:
    """Keep what was found with the study, or what another version of it had found before."""
    from tuner.store import checks

    seen = [{**one.body, "warnings": one.warnings} for one in found]
    if not seen and (before := _known(database, study.spec)) is not None:
        seen = [dict(before)]
    if not seen:
        return
    with database.transaction() as connection:
        if found or checks.latest(connection, study.study_id) is None:
            body = {"study": study.spec.name, "data": seen, "cost": None, "noise": []}
            checks.keep(connection, study.study_id, body)


def _known(database: "Database", spec: "Spec") -> "Mapping[str, Any] | None":
    # Imported before the transaction: on a busy machine that takes seconds, and the server ends
    # transactions that are idle for long.
    from tuner.check.quick import configurations
    from tuner.store import checks

    data = configurations(spec)[0]
    with database.transaction() as connection:
        return checks.of_data(connection, spec.name, spec.objective, data)
