"""Notifies every open page of changes in the database.

    PostgreSQL ── NOTIFY, by triggers on our tables ──> one connection ──> versions of studies
                                                                      ──> a stream for each tab

Of transactions that commit at the same time, only one notifies of its study (migration 0019).
So a study that was announced is examined again a moment later.

A notification names a study, not what has changed. At most a few times a second, one statement
reads the marks of all studies announced since (`store/marks.py`). They tell an epoch of a running
trial from changes that invalidate answers, charts and rankings, which only depend on trials that
have ended.

A page is told that its study has changed, or that only its running trials have moved on: it
requests the parts concerned again, with the filters in its address.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from enum import Enum, auto
from typing import Any

import sqlalchemy as sa

from tuner.store.database import Database
from tuner.store.marks import StudyMark, read_marks
from tuner.store.tables import CHANNEL

logger = logging.getLogger(__name__)

PAUSE = 0.25
"""The least number of seconds between two messages to a page."""
SHARE = 0.8
"""Processor cores. A server that has used more since its last messages delays the next ones: then
it computes answers as fast as it can, and pages that ask at once would wait for them anyway."""
PAUSE_MOST = 2.0
BREATH = 15.0
"""Seconds without a change after which a page still reloads its parts. This also keeps proxies
from closing a silent stream, and detects closed tabs."""
PROBE = 10.0
"""Seconds between notifications to ourselves, which show that the connection works."""
AGAIN = 1.0
"""Seconds between two attempts to listen."""
ECHOES = (0.5, 2.0, 8.0)
"""Seconds after a study's last notification at which its marks are read again. Transactions that
committed at the same time are visible by the first of these, unless they take long."""
UNHEARD = 2.0
"""Without a connection, what was read counts as current for this many seconds."""

Version = tuple[int, int, int]
Prepare = Callable[[Collection[int], Callable[[int], None]], None]
"""Is given the studies that have changed, and what to call with each one that is ready."""


class Extent(Enum):
    """What of a study has changed; see `StudyMark`."""

    SETTLED = auto()
    WORKING = auto()
    MOVING = auto()


class Announcements:
    """Listens to the database, and knows the current version of each study."""

    def __init__(self, database: Database, prepare: Prepare | None = None) -> None:
        """Create it; `prepare` reads what pages of the changed studies will request."""
        self._database = database
        self._prepare: Prepare = prepare or (lambda _changed, _ready: None)
        self._versions: Counter[int] = Counter()
        self._settled: Counter[int] = Counter()
        """The same, incremented only when a trial ended, paused or was reopened, or its study was
        changed."""
        self._answers: Counter[int] = Counter()
        """The same, incremented by all but the progress of trials under way."""
        self._all = 0
        """Incremented when changes may have been missed, or concern all studies."""
        self._marks: dict[int, StudyMark] = {}
        """The last marks of the studies that were announced."""
        self._noted: dict[int, bool] = {}
        """Studies whose marks are to be read; True if announced, False for an echo."""
        self._heard = 0.0
        self._tabs: set[_Tab] = set()
        self._echoes: dict[int, list[asyncio.TimerHandle]] = {}
        self._wake: Callable[[], None] = lambda: None
        """Ends the wait of the loop that reads marks."""
        self._closed = False
        self.live = False
        """Whether notifications arrive."""

    def version(self, study_id: int | None = None) -> Version:
        """Return a version that differs after a study, or any of them, has changed."""
        changes = self._versions.total() if study_id is None else self._versions[study_id]
        return self._all, self._silent, changes

    def settled_version(self, study_id: int) -> Version:
        """Return a version that differs after a trial ended, paused or was reopened.

        It also differs after a change of the study itself.
        """
        return self._all, self._silent, self._settled[study_id]

    def answer_version(self, study_id: int) -> Version:
        """Return a version that differs after a change that invalidates answers.

        Answers say how many trials are running or waiting, but not how far they are.
        """
        return self._all, self._silent, self._answers[study_id]

    def name_version(self, study_id: int | None) -> tuple[Version | None, int]:
        """Return a version that differs after a study, or what its name refers to, has changed.

        A newly launched study is announced by a number that was not seen before.
        """
        version = None if study_id is None else self.settled_version(study_id)
        return version, len(self._versions)

    @property
    def _silent(self) -> int:
        return 0 if self.live else int(time.monotonic() / UNHEARD)

    def changed(self, study_id: int | None) -> None:
        """Notify every page that shows this study, or all pages."""
        if study_id is None:
            self._all += 1
        else:
            self._raise(study_id, Extent.SETTLED)
        self.refresh(study_id)

    def refresh(self, study_id: int | None) -> None:
        """Make pages reload because an answer is ready, although nothing stored has changed."""
        for tab in self._tabs:
            if study_id is None or tab.study_id in (None, study_id):
                tab.hear(study_id)

    def _raise(self, study_id: int, change: Extent) -> None:
        self._versions[study_id] += 1
        if change is Extent.SETTLED:
            self._settled[study_id] += 1
        if change is not Extent.MOVING:
            self._answers[study_id] += 1

    def _tell(self, study_id: int, change: Extent) -> None:
        for tab in self._tabs:
            if tab.study_id in (None, study_id):
                tab.hear(study_id, moved=change is Extent.MOVING)

    async def stream(self, study_id: int | None) -> AsyncIterator[str]:
        """Yield server-sent events for one tab, or for all tabs of one browser.

        They are about one study, or all. The data of `changed` are the numbers of the changed
        studies, or empty if all may have changed; those of `moved` are the numbers of studies in
        which only running trials have moved on.
        """
        tab = _Tab(study_id)
        self._tabs.add(tab)
        try:
            state = self.live
            yield f"retry: 1500\n{_event('live' if state else 'away')}"
            while True:
                try:
                    await asyncio.wait_for(tab.told.wait(), BREATH)
                except TimeoutError:
                    # A page reloads from time to time: how long a worker has been silent, for
                    # instance, is not announced.
                    yield _event("changed")
                    continue
                if self._closed:
                    return
                # Cleared before sending: a change from here on goes into the next message.
                events = tab.heard()
                if self.live != state:
                    state = self.live
                    yield _event("live" if state else "away")
                for event in events:
                    yield event
                await asyncio.sleep(PAUSE)
        finally:
            self._tabs.discard(tab)

    async def listen(self) -> None:
        """Listen for ever, reconnecting after errors."""
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001  # after any error, pages must not say "live"
                if self.live:
                    logger.warning("changes are not heard: %s", self._database.words(error))
            finally:
                if self.live:
                    self.live = False
                    self.changed(None)
            await asyncio.sleep(AGAIN)

    def close(self) -> None:
        """End all streams, for which a stopping server waits."""
        self._closed = True
        for tab in self._tabs:
            tab.told.set()

    async def _listen_once(self) -> None:
        connection = await asyncio.to_thread(self._open)
        try:
            await self._listen_to(connection)
        finally:
            connection.close()

    async def _listen_to(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        line = driver.fileno()
        loop.add_reader(line, readable.set)
        self._wake = readable.set
        try:
            self._heard = loop.time()
            sent, pace = 0.0, _Pace()
            while True:
                if loop.time() - sent >= PROBE:
                    if sent and self._heard < sent:
                        # A pooler in transaction mode accepts LISTEN, but no notification ever
                        # arrives.
                        raise OSError("no announcement came back; is there a pooler between?")
                    sent = loop.time()
                    await asyncio.to_thread(connection.exec_driver_sql, f"NOTIFY {CHANNEL}")
                    self._hear(driver, loop.time())
                if self._noted and pace.rest <= 0:
                    pace.begin()
                    # Nothing polls the connection meanwhile: a notification that arrives would wake
                    # this loop again and again.
                    loop.remove_reader(line)
                    await self._renew(connection)
                    loop.add_reader(line, readable.set)
                    self._hear(driver, loop.time())
                wait = pace.rest if self._noted else PROBE
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(readable.wait(), wait)
                readable.clear()
                driver.poll()
                self._hear(driver, loop.time())
        finally:
            # By number, because a lost connection no longer knows its descriptor.
            loop.remove_reader(line)

    async def _renew(self, connection: sa.Connection) -> None:
        """Find out what has changed of the studies announced, and tell their pages."""
        noted, self._noted = self._noted, {}
        marks = await asyncio.to_thread(read_marks, connection, noted)
        changes = self._judge(noted, marks)
        # Versions first: what is prepared is of the new ones, and pages find it.
        for study_id, change in changes.items():
            self._raise(study_id, change)
        untold = dict(changes)

        def tell(study_id: int) -> None:
            if (change := untold.pop(study_id, None)) is not None:
                self._tell(study_id, change)

        # Each study's pages are told as soon as it is ready. Told together, all would ask at once,
        # and each would wait for the others.
        loop = asyncio.get_running_loop()

        def soon(study_id: int) -> None:
            loop.call_soon_threadsafe(tell, study_id)

        try:
            await asyncio.to_thread(self._prepare, changes, soon)
        except Exception as error:  # noqa: BLE001  # pages read for themselves, and say what fails
            logger.warning("summaries were not prepared: %s", self._database.words(error))
        for study_id in list(untold):
            tell(study_id)

    def _hear(self, driver: Any, now: float) -> None:
        if not driver.notifies:
            return
        self._heard = now
        studies = {note.payload for note in driver.notifies}
        driver.notifies.clear()
        if not self.live:
            # Changes before the connection was restored are unknown.
            self.live = True
            self.changed(None)
        for payload in studies:
            # Anyone who can connect to the database can send any payload.
            if payload.isascii() and payload.isdigit() and len(payload) < 10:
                self._noted[int(payload)] = True
                self._echo(int(payload))

    def _echo(self, study_id: int) -> None:
        """Have a study's marks read again, some time after its last notification."""
        for earlier in self._echoes.pop(study_id, ()):
            earlier.cancel()
        later = asyncio.get_running_loop().call_later
        self._echoes[study_id] = [later(wait, self._look_again, study_id) for wait in ECHOES]

    def _look_again(self, study_id: int) -> None:
        self._noted.setdefault(study_id, False)
        self._wake()

    def _judge(
        self, noted: Mapping[int, bool], marks: Mapping[int, StudyMark]
    ) -> dict[int, Extent]:
        """Return what has changed of the studies whose marks were read."""
        changes = {}
        for study_id, announced in noted.items():
            before, now = self._marks.pop(study_id, None), marks.get(study_id)
            if now is not None:
                self._marks[study_id] = now
            if before is not None and now is not None:
                change = _change(before, now)
            else:  # not seen before, or deleted
                change = Extent.SETTLED if before is not now else None
            if announced:
                # Something has changed, even if no mark tells what.
                change = change or (Extent.SETTLED if now is None else Extent.MOVING)
            if change is not None:
                changes[study_id] = change
        return changes

    def _open(self) -> sa.Connection:
        connection = self._database.engine.connect()
        try:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            # It is closed in the end, and never lent to anybody else.
            connection.detach()
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        except BaseException:
            connection.close()
            raise
        return connection


def _change(before: StudyMark, now: StudyMark) -> Extent | None:
    if before.settled != now.settled:
        return Extent.SETTLED
    if before.working != now.working:
        return Extent.WORKING
    return Extent.MOVING if before.moving != now.moving else None


class _Pace:
    """When pages are told next: after a pause, which is longer while this process is busy."""

    def __init__(self) -> None:
        self._begun = self._next = 0.0
        self._used = time.process_time()

    @property
    def rest(self) -> float:
        """How many seconds are left of the pause."""
        return self._next - time.monotonic()

    def begin(self) -> None:
        """Begin a pause, by whose end this process has used its share of a core at most."""
        now, used = time.monotonic(), time.process_time()
        pause = (used - self._used) / SHARE - (now - self._begun)
        self._begun, self._used = now, used
        self._next = now + min(max(PAUSE, pause), PAUSE_MOST)


def _event(name: str, studies: Collection[int] = ()) -> str:
    return f"event: {name}\ndata: {' '.join(map(str, sorted(studies)))}\n\n"


class _Tab:
    """One open stream."""

    def __init__(self, study_id: int | None) -> None:
        self.study_id = study_id
        self.told = asyncio.Event()
        self._studies: set[int] | None = set()
        """The studies that changed since the last message; None for all."""
        self._moved: set[int] = set()

    def hear(self, study_id: int | None, *, moved: bool = False) -> None:
        """Note that a study, or any study, has changed; or only its running trials moved on."""
        if study_id is None:
            self._studies = None
        elif moved:
            self._moved.add(study_id)
        elif self._studies is not None:
            self._studies.add(study_id)
        self.told.set()

    def heard(self) -> list[str]:
        """Return the events for what was noted, and reset it."""
        studies, self._studies = self._studies, set()
        moved, self._moved = self._moved, set()
        self.told.clear()
        if studies is None:
            return [_event("changed")]
        moved -= studies
        events = [_event("changed", studies)] if studies else []
        return [*events, _event("moved", moved)] if moved else events
