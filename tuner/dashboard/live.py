"""What changes in the database, told to every open page.

    PostgreSQL ── NOTIFY, by triggers on our tables ──> one connection ──> versions of studies
                                                                      ──> a stream for each tab

Of transactions that commit beside each other one announces its study, and the others do not
(migration 0019). So a study that was announced counts as changed once more a moment later.

A page is told that its study has changed, not what: it asks again for the parts that it shows, with
the filters in its address. At most a few times a second, however fast trials train.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from typing import Any

from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from tuner.store.database import Database
from tuner.store.tables import CHANNEL

logger = logging.getLogger(__name__)

PAUSE = 0.25
"""Seconds between two messages to a page, at least."""
BREATH = 15.0
"""Seconds without a change after which a page asks again all the same. It also keeps proxies from
closing a silent stream, and notices a tab that has gone."""
PROBE = 10.0
"""Seconds between two announcements to ourselves, by which we know that the line still works."""
AGAIN = 1.0
"""Seconds between two attempts to listen."""
ECHOES = (0.5, 2.0, 8.0)
"""Seconds after the last announcement of a study at which pages look again. What committed beside
it is there by the first, unless its transaction takes long."""
UNHEARD = 2.0
"""While nothing is heard, what was read is taken for current for this many seconds."""

Version = tuple[int, int, int]


class Announcements:
    """Listens to the database, and knows which version of each study is current."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._versions: Counter[int] = Counter()
        self._all = 0
        """Raised when something may have been missed, or concerns all studies."""
        self._heard = 0.0
        self._tabs: set[_Tab] = set()
        self._echoes: dict[int, list[asyncio.TimerHandle]] = {}
        self._closed = False
        self.live = False
        """Whether changes are heard of."""

    def version(self, study_id: int | None = None) -> Version:
        """Return a mark that differs once a study, or any of them, has changed."""
        silent = 0 if self.live else int(time.monotonic() / UNHEARD)
        changes = self._versions.total() if study_id is None else self._versions[study_id]
        return self._all, silent, changes

    def name_version(self, study_id: int | None) -> tuple[Version, int]:
        """Return a mark that differs once a study's name may mean another, or it has changed.

        A study that is launched is announced by a number that nobody has heard of.
        """
        return self.version(study_id), len(self._versions)

    def changed(self, study_id: int | None) -> None:
        """Tell every page that shows this study, or all pages."""
        if study_id is None:
            self._all += 1
        else:
            self._versions[study_id] += 1
        self.refresh(study_id)

    def refresh(self, study_id: int | None) -> None:
        """Make pages ask again, though nothing was stored: an answer has been found out."""
        for tab in self._tabs:
            if study_id is None or tab.study_id in (None, study_id):
                tab.hear(study_id)

    async def stream(self, study_id: int | None) -> AsyncIterator[str]:
        """Yield server-sent events for one tab, or for all tabs of one browser.

        They are of one study, or of all; the data of `changed` are the numbers of the studies that
        have, and empty where all may have.
        """
        tab = _Tab(study_id)
        self._tabs.add(tab)
        try:
            state = self.live
            yield f"retry: 1500\nevent: {'live' if state else 'away'}\ndata:\n\n"
            while True:
                try:
                    await asyncio.wait_for(tab.changed.wait(), BREATH)
                except TimeoutError:
                    # A page asks again from time to time, whatever it may have missed: how long
                    # a worker has been silent, for instance, nobody announces.
                    yield _changed([])
                    continue
                if self._closed:
                    return
                # Cleared before it is told: a change from here on is told the next time.
                studies = tab.heard()
                if self.live != state:
                    state = self.live
                    yield f"event: {'live' if state else 'away'}\ndata:\n\n"
                yield _changed(studies)
                await asyncio.sleep(PAUSE)
        finally:
            self._tabs.discard(tab)

    async def listen(self) -> None:
        """Listen for ever; a lost connection is opened again."""
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001  # whatever it is, pages must not say "live"
                if self.live:
                    logger.warning("changes are not heard: %s", self._database.words(error))
            finally:
                if self.live:
                    self.live = False
                    self.changed(None)
            await asyncio.sleep(AGAIN)

    def close(self) -> None:
        """End all streams; a server that stops waits for them."""
        self._closed = True
        for tab in self._tabs:
            tab.changed.set()

    async def _listen_once(self) -> None:
        connection = await asyncio.to_thread(self._open)
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        line = connection.fileno()
        loop.add_reader(line, readable.set)
        try:
            self._heard = loop.time()
            sent = 0.0
            while True:
                if loop.time() - sent >= PROBE:
                    if sent and self._heard < sent:
                        # Behind a pooler that lends connections by the transaction, LISTEN is
                        # accepted and nothing is ever heard.
                        raise OSError("no announcement came back; is there a pooler between?")
                    sent = loop.time()
                    await asyncio.to_thread(_announce, connection)
                    self._hear(connection, loop.time())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(readable.wait(), PROBE)
                readable.clear()
                connection.poll()
                self._hear(connection, loop.time())
        finally:
            # By its number: a connection that was lost does not know its own any more.
            loop.remove_reader(line)
            connection.close()

    def _hear(self, connection: Any, now: float) -> None:
        if not connection.notifies:
            return
        self._heard = now
        studies = {note.payload for note in connection.notifies}
        connection.notifies.clear()
        if not self.live:
            # Whatever happened while nothing was heard is unknown.
            self.live = True
            self.changed(None)
        for payload in studies:
            # Whoever may connect to the database may announce anything.
            if payload.isascii() and payload.isdigit():
                self.changed(int(payload))
                self._echo(int(payload))

    def _echo(self, study_id: int) -> None:
        """Take a study for changed some more times, when no announcement has come for a moment."""
        for earlier in self._echoes.pop(study_id, ()):
            earlier.cancel()
        later = asyncio.get_running_loop().call_later
        self._echoes[study_id] = [later(wait, self.changed, study_id) for wait in ECHOES]

    def _open(self) -> Any:
        connection = self._database.connect()
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        return connection


def _announce(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"NOTIFY {CHANNEL}")


def _changed(studies: Collection[int]) -> str:
    return f"event: changed\ndata: {' '.join(map(str, sorted(studies)))}\n\n"


class _Tab:
    """One open stream."""

    def __init__(self, study_id: int | None) -> None:
        self.study_id = study_id
        self.changed = asyncio.Event()
        self._studies: set[int] | None = set()
        """Those that changed since the last message; None for all."""

    def hear(self, study_id: int | None) -> None:
        """Note that a study has changed, or perhaps any."""
        if study_id is None:
            self._studies = None
        elif self._studies is not None:
            self._studies.add(study_id)
        self.changed.set()

    def heard(self) -> Collection[int]:
        """Return the studies that have changed, and forget them; none stands for all."""
        studies, self._studies = self._studies or (), set()
        self.changed.clear()
        return studies
