"""A launch's check of the data, once for the same data, in two parts.

begun ──> loaded: errors in the data are raised before anything is created
      ──> examined: warnings are printed and stored while trials train
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tuner.cli.terminal import clear_progress, echo, show_progress
from tuner.errors import TunerError
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
    """Start to examine the data while the database is being created or started.

    The caller stops it if the database shows that these data were examined before.
    """
    if spec is None:
        yield None
        return
    make_cache(settings.home)
    from tuner.check.quick import begin, configurations

    with begin(spec, configurations(spec)[0], checker, quick=True) as question:
        yield question


def look_at_data(
    database: "Database",
    spec: "Spec",
    *,
    begun: "Question",
    again: bool,
) -> "Findings | None":
    """Wait until the data are loaded; return the findings, which are still being computed.

    Errors in the data are raised before the study is stored. Data that were examined for this
    study before are examined `again` only on request, or if code or data have changed.
    """
    from tuner.check.feasibility import check_data
    from tuner.check.quick import loaded

    known = _known(database, spec)
    if known is not None and not again:
        begun.end()
        check_data(spec, known["contents"])
        return None
    notes = loaded(spec, begun, show_progress)
    clear_progress()
    for note in notes:
        echo(f"Data: {note}", err=True)
    return Findings(spec, begun)


class Findings:
    """The findings of an examination that runs while the study trains."""

    def __init__(self, spec: "Spec", question: "Question") -> None:
        self._question = question
        self._found: Future[Examined] = Future()
        self._told = self._kept = False
        self._awaited = False
        threading.Thread(target=self._wait, args=(spec,), daemon=True).start()

    def _wait(self, spec: "Spec") -> None:
        from tuner.check.quick import examined

        try:
            self._found.set_result(examined(spec, self._question, self._show))
        except BaseException as error:  # noqa: BLE001  # raised by `tell`
            self._found.set_exception(error)

    def _show(self, what: str, done: int, total: int) -> None:
        """Show progress while `tell` waits; before that, the screen shows the study."""
        if self._awaited:
            show_progress(what, done, total)

    def tell(self, database: "Database", study: "Study", *, wait: bool = False) -> None:
        """Print and store the findings once they are ready; errors of the database are raised."""
        if self._kept or not (wait or self._found.done()):
            return
        if not self._found.done():
            echo("Waiting for the check of the data to finish …", err=True)
            self._awaited = True
            wait_for([self._found])
            clear_progress()
        try:
            found = self._found.result()
        except TunerError as error:
            # The data could be loaded, so trials can train.
            echo(f"Warning: the check of the data was not completed: {error}", err=True)
            self._told = self._kept = True
            return
        if not self._told:
            self._told = True
            for warning in found.warnings:
                echo(f"Warning: {warning}", err=True)
        keep_look(database, study, (found,))
        self._kept = True

    def stop(self) -> None:
        """Stop the examination if it has not ended."""
        if not self._found.done():
            self._question.kill()
            # The thread still reads the answers, which must not be closed before it ends.
            self._found.exception()


def keep_look(database: "Database", study: "Study", found: "Sequence[Examined]") -> None:
    """Store the findings with the study, or copy those of another version."""
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
    # Imported before the transaction: on a busy machine it takes seconds, and the server ends
    # transactions that are idle for long.
    from tuner.check.quick import configurations
    from tuner.store import checks

    data = configurations(spec)[0]
    with database.transaction() as connection:
        return checks.of_data(connection, spec.name, spec.objective, data)
