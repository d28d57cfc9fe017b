"""A study's question and answer as its note in optuna-dashboard, with a link to our page.

The note is added when optuna-dashboard reads the study and is not stored: it is never out of date,
costs workers nothing, and overwrites nothing. A note written by a person is shown instead.
"""

import re
import threading
from typing import Any

import sqlalchemy as sa
from optuna.storages import BaseStorage

from tuner.answers.sheets.markup import prose
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages.study import answered
from tuner.dashboard.rendering import study_path
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.studies import Study

VERSION = "dashboard:note_ver"
BODY = "dashboard:note_str:"
"""Optuna's study attributes in which optuna-dashboard stores a note, in numbered pieces."""
PIECE = 2045
"""Characters of a piece."""
ADDRESS = re.compile(r"/api/studies/(\d{1,9})(?:/|$)")


class Notes:
    """Adds a note to the study of a request to optuna-dashboard."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # Each request is handled by one thread, from its address to its last read.
        self._request = threading.local()

    def look_at(self, path: str) -> None:
        """Remember the study in a request's address; in a list, studies get no notes."""
        found = ADDRESS.match(path)
        self._request.study = None if found is None else self._study(int(found[1]))

    def added_to(self, storage: BaseStorage) -> BaseStorage:
        """Make a storage read studies with their notes, and return it."""
        of_all, of_one = storage.get_all_studies, storage.get_study_system_attrs

        def all_studies() -> list[Any]:
            read, here = of_all(), self._here
            for study in read:
                if here is not None and study.study_name == here.optuna_name:
                    study.system_attrs = self._with_note(study.system_attrs, here)
            return read

        def one_study(study_id: int) -> dict[str, Any]:
            attributes, here = of_one(study_id), self._here
            if here is not None and study_id == here.study_id:
                return self._with_note(attributes, here)
            return attributes

        # Patches the object, not its class: only this dashboard adds notes.
        storage.get_all_studies = all_studies  # type: ignore[method-assign]
        storage.get_study_system_attrs = one_study  # type: ignore[method-assign]
        return storage

    @property
    def _here(self) -> Study | None:
        return getattr(self._request, "study", None)

    def _study(self, study_id: int) -> Study | None:
        with self._desk.database.transaction() as connection:
            row = connection.execute(
                sa.select(t.study.c.name, t.study.c.version).where(t.study.c.study_id == study_id)
            ).one_or_none()
            # Optuna's tables may also contain studies that are not ours.
            return None if row is None else studies.find_or_none(connection, StudyRef(*row))

    def _with_note(self, attributes: dict[str, Any], study: Study) -> dict[str, Any]:
        if VERSION in attributes:
            return attributes
        body = self._body(study)
        pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
        note = {f"{BODY}{number}": piece for number, piece in enumerate(pieces)}
        return {**attributes, VERSION: 0, **note}

    def _body(self, study: Study) -> str:
        found = answered(self._desk, study)
        sentences = ("The answer is being computed.",) if found is None else found.sentences
        link = f"[This study with its evidence]({study_path(study.title)})"
        said = [f"**{prose(study.spec.question)}**", *map(prose, sentences), link]
        return "\n\n".join(one for one in said if one != "****")
