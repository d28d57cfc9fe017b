"""A launch's look at the data: before anything is created, and once for the same data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.terminal import clear_progress, echo, show_progress
from tuner.home import make_cache
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.check.child import Question
    from tuner.check.quick import Examined
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.studies import Study


@contextmanager
def early_look(
    settings: Settings, spec: "Spec | None", folders: Sequence[Path]
) -> "Iterator[Question | None]":
    """Begin to examine the data while the database is being made, where there is none yet.

    In one that exists the data may be known already.
    """
    from tuner.store.embedded import server

    if spec is None or not settings.embedded or server.exists(settings.home):
        yield None
        return
    make_cache(settings.home)
    with _begin(settings, spec, folders) as question:
        yield question


def look_at_data(
    database: "Database",
    settings: Settings,
    spec: "Spec",
    folders: Sequence[Path],
    *,
    begun: "Question | None",
    again: bool,
) -> "Sequence[Examined]":
    """Examine the first configuration of [data] and tell what to know of it.

    Whatever is wrong with the data is raised, before the study is stored. Data
    that were looked at for this study before are not looked at `again` unless
    code or data changed.
    """
    from tuner.check.quick import examined
    from tuner.check.settings import check_data

    known = None if begun else _known(database, spec)
    if known is not None and not again:
        check_data(spec, known["contents"])
        return ()
    with begun or _begin(settings, spec, folders) as question:
        found = examined(spec, question, show_progress)
    clear_progress()
    for note in found.notes:
        echo(f"Data: {note}", err=True)
    for warning in found.warnings:
        echo(f"Warning: {warning}", err=True)
    return (found,)


def _begin(settings: Settings, spec: "Spec", folders: Sequence[Path]) -> "Question":
    from tuner.check.quick import begin, configurations

    first = configurations(spec)[0]
    return begin(spec, first, home=settings.home, folders=folders, quick=True)


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
