"""The queries of pages: results from one snapshot, each answer computed once for all tabs."""

import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from tuner.dashboard.checkpoints import CheckpointFinder
from tuner.dashboard.images import Gallery
from tuner.dashboard.live import Announcements
from tuner.dashboard.shelf import Kept, Shelf
from tuner.errors import TunerError
from tuner.questions import Checker
from tuner.results import Results
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.overview import Overview, overview, settled
from tuner.store.studies import Study

Value = TypeVar("Value")

PATIENCE = 0.3
"""Seconds that a page waits for a slow answer before it is shown without it."""
DOCUMENTS_PATIENCE = 3.0
CLOCK = 5.0
"""Seconds after which a page is read again without a notification: a silent worker or an expired
lease depends only on the clock."""
WATCHED = 20.0
"""Seconds for which a summary is kept up to date after a request: open pages ask more often."""
FILES_CLOCK = 60.0
"""Seconds after which files are read again: nothing notifies of their changes."""
UNANNOUNCED = 600.0
"""The same for answers: nothing notifies of rows that were removed by hand."""


class Desk:
    """The database as pages see it. Thread-safe."""

    def __init__(
        self,
        database: Database,
        settings: Settings | None = None,
        objective_folders: Sequence[Path] = (),
    ) -> None:
        """Open the desk; with settings, pages also show files of this machine.

        Objectives in these folders may be run to read images if an operator asks for it.
        """
        self.database = database
        self.gallery: Gallery | None = None
        """Reads images; None if pages only show the database."""
        self.checkpoints: CheckpointFinder | None = None
        if settings is not None:
            site = Checker(settings.home, objective_folders, lambda *_: None)
            self.gallery = Gallery(site)
            self.checkpoints = CheckpointFinder(settings)
        # Computing an answer holds a connection; there must be others left for pages.
        self._slow = Database(database.address)
        self.announcements = Announcements(database, self.prepare)
        self._watched: dict[int, tuple[Study, float]] = {}
        """The studies whose summaries were requested, and when."""
        # Separate shelves: a study's page must not wait for the verdicts of two hundred others or
        # for somebody's report, and large values must not evict small ones.
        self._pages = Shelf(most=128)
        # A page that is notified of every change need not wait for the newest.
        self._answers = Shelf(most=1_000, threads=2, older_at_once=True)
        # The front page asks for the verdicts of all its studies at once.
        self._verdicts = Shelf(most=10_000, queue=500)
        self._documents = Shelf(most=24)
        self._numbers: dict[str, int] = {}
        """The studies that were found, by the names in addresses."""
        # A file system that does not respond blocks only its own thread.
        self._files = Shelf(most=256)
        self.stopping = False
        """Whether the server is stopping: responses in progress are cut off."""
        self.tell: Callable[[int | None], None] = lambda _study: None
        """Notifies open pages of a study; set by the app, callable from any thread."""

    def study(self, name: str) -> Study:
        """Return a study by its name, such as lr_sched or lr_sched@2."""
        ref = StudyRef.stored(name)

        def compute() -> Study:
            with self.database.snapshot() as connection:
                return studies.find(connection, ref)

        # Every request needs it, so changes of other studies must not invalidate it.
        version = (self.announcements.name_version(self._numbers.get(name)), _tick(CLOCK))
        found = self._pages.fresh((None, ("study", name)), version, compute)
        self._numbers[name] = found.study_id
        return found

    @contextmanager
    def results(self, study: Study) -> Iterator[Results]:
        """Open a study's results in a snapshot."""
        with self._slow.snapshot() as connection:
            yield Results(connection, study)

    def read(
        self, question: Hashable, ask: Callable[[sa.Connection], Value], study: Study | None = None
    ) -> Value:
        """Return a value that takes milliseconds to read, of one study or of all."""

        def compute() -> Value:
            with self.database.snapshot() as connection:
                return ask(connection)

        number = None if study is None else study.study_id
        # The version is taken before reading, so what is read is at least as new.
        version = (self.announcements.version(number), study, _tick(CLOCK))
        return self._pages.fresh((number, question), version, compute)

    def sample(
        self, question: Hashable, ask: Callable[[sa.Connection], Value], seconds: float
    ) -> Value:
        """Return a value of all studies that is read at most once in this many seconds."""

        def compute() -> Value:
            with self.database.snapshot() as connection:
                return ask(connection)

        return self._pages.fresh((None, question), _tick(seconds), compute)

    def overview(self, study: Study) -> Overview:
        """Return a study's summary."""
        self._watched[study.study_id] = (study, time.monotonic())
        return self._overview(study, self.database.snapshot)

    def prepare(self, study_ids: Collection[int], ready: Callable[[int], None]) -> None:
        """Read the summaries that open pages of these studies will request, in one transaction.

        `ready` is called with each study, as soon as its pages can be told.
        """
        since = time.monotonic() - WATCHED
        # A copy, because pages add studies at the same time, from their threads.
        for number, (_, asked) in self._watched.copy().items():
            if asked <= since:
                self._watched.pop(number, None)
        wanted = []
        for number in study_ids:
            if (watched := self._watched.get(number)) is None:
                ready(number)
            else:
                wanted.append(watched[0])
        if not wanted:
            return
        # This waits for places of the shelf while it holds a connection; everybody else waits for
        # a connection while holding a place. No deadlock: the pool has other connections for them.
        with self.database.snapshot() as connection:
            for study in wanted:
                with suppress(TunerError):  # a deleted study: its page is told so when it asks
                    self._overview(study, lambda: nullcontext(connection))
                ready(study.study_id)

    def _overview(
        self, study: Study, snapshot: Callable[[], AbstractContextManager[sa.Connection]]
    ) -> Overview:
        number = study.study_id
        settled_version = (self.announcements.settled_version(number), study, _tick(UNANNOUNCED))

        def compute() -> Overview:
            with snapshot() as connection:
                known = self._pages.fresh(
                    (number, "settled"), settled_version, lambda: settled(connection, study)
                )
                return overview(connection, study, known)

        version = (self.announcements.version(number), study, _tick(CLOCK))
        return self._pages.fresh((number, "overview"), version, compute)

    def ask(self, question: Hashable, ask: Callable[[Results], Value], study: Study) -> Value:
        """Return an answer that takes milliseconds to compute from a study's results."""
        return self.read(question, lambda connection: ask(Results(connection, study)), study)

    def think(
        self,
        question: Hashable,
        ask: Callable[[Results], Value],
        study: Study,
        patience: float = PATIENCE,
    ) -> Kept[Value] | None:
        """Return an answer that may take seconds: current, slightly old, or None if not ready.

        It may say which trials are under way, but not how far they are: an epoch does not
        invalidate it. Pages of the study are notified when it is ready.
        """
        version = self.announcements.answer_version(study.study_id)
        return self._recent(self._answers, question, version, ask, study, patience=patience)

    def verdict(self, ask: Callable[[Results], Value], study: Study) -> Kept[Value] | None:
        """Return in the same way, without waiting, a study's verdict for the front page."""
        version = self.announcements.answer_version(study.study_id)
        return self._recent(self._verdicts, "verdict", version, ask, study, patience=0.0)

    def write(
        self, question: Hashable, ask: Callable[[Results], Value], study: Study
    ) -> Kept[Value] | None:
        """Return in the same way a document: a report, a picture. Running trials may be in it."""
        version = self.announcements.version(study.study_id)
        patience = DOCUMENTS_PATIENCE
        return self._recent(self._documents, question, version, ask, study, patience=patience)

    def look(
        self, question: Hashable, ask: Callable[[], Value], study: Study
    ) -> Kept[Value] | None:
        """Return in the same way what a study's files contain."""
        return self._files.recent(
            (study.study_id, question),
            (self.announcements.version(study.study_id), study, _tick(FILES_CLOCK)),
            ask,
            patience=PATIENCE,
            ready=lambda: self.tell(study.study_id),
        )

    def close(self) -> None:
        """Start no more computations."""
        for shelf in (self._pages, self._answers, self._verdicts, self._documents, self._files):
            shelf.close()
        if self.gallery is not None:
            self.gallery.close()
        self._slow.close()

    def _recent(
        self,
        shelf: Shelf,
        question: Hashable,
        version: Hashable,
        ask: Callable[[Results], Value],
        study: Study,
        *,
        patience: float,
    ) -> Kept[Value] | None:
        def compute() -> Value:
            with self.results(study) as results:
                return ask(results)

        return shelf.recent(
            (study.study_id, question),
            (version, study, _tick(UNANNOUNCED)),
            compute,
            patience=patience,
            ready=lambda: self.tell(study.study_id),
        )


def _tick(seconds: float) -> int:
    return int(time.monotonic() / seconds)
