"""A launch's look at code and data: whether they are still what the study was trained by."""

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
"""Configurations of [data] that are loaded to be compared, unless all have to be."""


def study_of(database: "Database", spec: "Spec", *, even_complete: bool) -> "Study | None":
    """Return the stored study that launching this file goes on with, or makes a version of.

    None also where it is complete as it is, so that nothing would be trained: unless the launch
    asks for more than the file does, and for the study `even_complete`.
    """
    from tuner.store import studies

    with database.transaction() as connection:
        study = studies.continued(connection, spec)
    if study is None:
        return None
    same = asks_the_same(study, spec)
    return None if same and study.state == "complete" and not even_complete else study


def asks_the_same(study: "Study", spec: "Spec | None") -> bool:
    """Say whether a study file asks what the stored study does."""
    from tuner.spec import identity

    return spec is None or study.fingerprint == identity.fingerprint(spec)


def changes_of(
    database: "Database",
    study: "Study",
    checker: "Checker",
    *,
    whole: bool,
) -> "tuple[list[str], list[Identity]]":
    """Return how code and data differ from what the study was trained by, and what they are.

    With `whole` the objective is loaded as a trainer loads it, and all data of
    the study are; without, what is looked at is enough to tell most changes,
    and the workers tell the rest before they record anything.
    """
    from tuner.check.identity import identify
    from tuner.store import identities

    with database.transaction() as connection:
        parts = identities.current(connection, study.study_id)
        if not identities.is_settled(connection, study.study_id):
            return [], []  # No result yet that a change could be mixed with.
    keys = [json.loads(part.body["keys"]) for part in parts if part.kind == identities.DATA]
    if not keys:
        return [], []  # Nothing was trained yet, or by a tuner that did not note it.
    if not whole:
        # One of each place: the others divide or size the same images.
        keys = list({str(one.get("path")): one for one in keys}.values())[:MOST]
    found = identify(study.spec.objective, keys, checker, whole=whole)
    clear_progress()
    return identities.changes(parts, found, objective=study.spec.objective, whole=whole), found


def refuse(study: "Study", changes: Sequence[str]) -> None:
    """Refuse to resume a study whose code or data changed."""
    from tuner.store.identities import refusal

    raise StudyConflictError(refusal(study.title, changes, "The code or the data"))


def accept(database: "Database", study: "Study", found: "Sequence[Identity]") -> list[str]:
    """Mark the study: from now on it is trained by what was found; return the changes."""
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
