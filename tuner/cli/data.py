"""A launch's look at the data: before anything is created, and once for the same data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tuner.cli.terminal import clear_progress, echo
from tuner.home import make_cache
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.check.quick import Examined
    from tuner.questions import Checker, Question
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.studies import Study


@contextmanager
def early_look(
    settings: Settings, spec: "Spec | None", checker: "Checker"
) -> "Iterator[Question | None]":
    """Begin to examine the data while the database is being made, or started.

    If it turns out there that the data are known already, the look is broken off.
    """
    if spec is None:
        yield None
        return
    make_cache(settings.home)
    with _begin(spec, checker) as question:
        yield question


def look_at_data(
    database: "Database",
    spec: "Spec",
    checker: "Checker",
    *,
    begun: "Question | None",
    again: bool,
) -> "Sequence[Examined]":
    """Examine the first configuration of [data] and tell what to know of it.

    Whatever is wrong with the data is raised, before the study is stored. Data
    that were looked at for this study before are not looked at `again` unless
    code or data changed.
    """
    from tuner.check.feasibility import check_data
    from tuner.check.quick import examined

    known = _known(database, spec)
    if known is not None and not again:
        if begun:
            begun.end()
        check_data(spec, known["contents"])
        return ()
    with begun or _begin(spec, checker) as question:
        found = examined(spec, question, checker.progress)
    clear_progress()
    for note in found.notes:
        echo(f"Data: {note}", err=True)
    for warning in found.warnings:
        echo(f"Warning: {warning}", err=True)
    return (found,)


def _begin(spec: "Spec", checker: "Checker") -> "Question":
    from tuner.check.quick import begin, configurations

    first = configurations(spec)[0]
    return begin(spec, first, checker, quick=True)


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
