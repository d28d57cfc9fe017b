"""A launch's check of code and data: whether they have changed since the study was trained."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.cli.terminal import clear_progress
from tuner.errors import StudyConflictError

if TYPE_CHECKING:
    from tuner.questions import Checker
    from tuner.records import Identity
    from tuner.spec.study import Spec
    from tuner.store.database import Database
    from tuner.store.studies import Study

MOST = 4
"""Limit on the [data] configurations that are loaded for comparison, unless all must be."""


def study_of(database: "Database", spec: "Spec", *, even_complete: bool) -> "Study | None":
    """Return the stored study that launching this file resumes or makes a new version of.

    None also if it is complete, so that nothing would be trained, unless the launch
    asks for more than the file does and so passes `even_complete`.
    """
    from tuner.store import studies

    with database.transaction() as connection:
        study = studies.continued(connection, spec)
    if study is None:
        return None
    same = asks_the_same(study, spec)
    return None if same and study.state == "complete" and not even_complete else study


def asks_the_same(study: "Study", spec: "Spec | None") -> bool:
    """Return whether a study file has the same identity as the stored study."""
    from tuner.spec import identity

    return spec is None or study.fingerprint == identity.fingerprint(spec)


def changes_of(
    database: "Database",
    study: "Study",
    checker: "Checker",
    *,
    whole: bool,
) -> "tuple[list[str], list[Identity]]":
    """Return how code and data differ from those the study was trained with, and their identities.

    With `whole`, the objective is loaded as by a trainer, and all data of
    the study are loaded; without, most changes are found,
    and workers find the rest before they record anything.
    """
    from tuner.check.identity import identify
    from tuner.store import identities

    with database.transaction() as connection:
        parts = identities.current(connection, study.study_id)
        if not identities.is_settled(connection, study.study_id):
            return [], []  # No results yet, so a change is harmless.
    keys = [json.loads(part.body["keys"]) for part in parts if part.kind == identities.DATA]
    if not keys:
        return (
            [],
            [],
        )  # Nothing was trained yet, or only by a version that did not record identities.
    if not whole:
        # One per path: the others only split or resize the same images.
        keys = list({str(one.get("path")): one for one in keys}.values())[:MOST]
    found = identify(study.spec.objective, keys, checker, whole=whole)
    clear_progress()
    return identities.changes(parts, found, objective=study.spec.objective, whole=whole), found


def refuse(study: "Study", changes: Sequence[str]) -> None:
    """Refuse to resume a study whose code or data changed."""
    from tuner.store.identities import refusal

    raise StudyConflictError(refusal(study.title, changes, "The code or the data"))


def accept(database: "Database", study: "Study", found: "Sequence[Identity]") -> list[str]:
    """Record the current code and data as the study's; return the changes."""
    from tuner.store import identities
    from tuner.store.ledger.locks import lock_study

    with database.transaction() as connection:
        lock_study(connection, study.study_id)
        changes = [
            line
            for identity in found
            for line in identities.accept(connection, study.study_id, identity)
        ]
    return list(dict.fromkeys(changes))
