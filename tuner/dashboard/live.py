"""Notifies every open page of changes in the database.

    PostgreSQL ── NOTIFY, by triggers on our tables ──> one connection ──> versions of studies
                                                                      ──> a stream for each tab

Of transactions that commit at the same time, only one notifies of its study (migration 0019).
So a study that was announced counts as changed once more a moment later.

A page is told that its study has changed, not what has changed: it requests the parts that it
shows again, with the filters in its address, at most a few times a second.
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
"""The least number of seconds between two messages to a page."""
BREATH = 15.0
"""Seconds without a change after which a page still reloads its parts. This also keeps proxies
from closing a silent stream, and detects closed tabs."""
PROBE = 10.0
"""Seconds between notifications to ourselves, which show that the connection works."""
AGAIN = 1.0
"""Seconds between two attempts to listen."""
ECHOES = (0.5, 2.0, 8.0)
"""Seconds after a study's last notification at which pages reload again. Transactions that
committed at the same time are visible by the first of these, unless they take long."""
UNHEARD = 2.0
"""Without a connection, what was read counts as current for this many seconds."""

Version = tuple[int, int, int]


class Announcements:
    """Listens to the database, and knows the current version of each study."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._versions: Counter[int] = Counter()
        self._all = 0
        """Incremented when changes may have been missed, or concern all studies."""
        self._heard = 0.0
        self._tabs: set[_Tab] = set()
        self._echoes: dict[int, list[asyncio.TimerHandle]] = {}
        self._closed = False
        self.live = False
        """Whether notifications arrive."""

    def version(self, study_id: int | None = None) -> Version:
        """Return a version that differs after a study, or any of them, has changed."""
        silent = 0 if self.live else int(time.monotonic() / UNHEARD)
        changes = self._versions.total() if study_id is None else self._versions[study_id]
        return self._all, silent, changes

    def name_version(self, study_id: int | None) -> tuple[Version, int]:
        """Return a version that differs after a study, or what its name refers to, has changed.

        A newly launched study is announced by a number that was not seen before.
        """
        return self.version(study_id), len(self._versions)

    def changed(self, study_id: int | None) -> None:
        """Notify every page that shows this study, or all pages."""
        if study_id is None:
            self._all += 1
        else:
            self._versions[study_id] += 1
        self.refresh(study_id)

    def refresh(self, study_id: int | None) -> None:
        """Make pages reload because an answer is ready, although nothing stored has changed."""
        for tab in self._tabs:
            if study_id is None or tab.study_id in (None, study_id):
                tab.hear(study_id)

    async def stream(self, study_id: int | None) -> AsyncIterator[str]:
        """Yield server-sent events for one tab, or for all tabs of one browser.

        They are about one study, or all; the data of `changed` are the numbers of the changed
        studies, or empty if all may have changed.
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
                    # A page reloads from time to time: how long a worker has been silent, for
                    # instance, is not announced.
                    yield _changed([])
                    continue
                if self._closed:
                    return
                # Cleared before sending: a change from here on goes into the next message.
                studies = tab.heard()
                if self.live != state:
                    state = self.live
                    yield f"event: {'live' if state else 'away'}\ndata:\n\n"
                yield _changed(studies)
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
                        # A pooler in transaction mode accepts LISTEN, but no notification ever
                        # arrives.
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
            # By number, because a lost connection no longer knows its descriptor.
            loop.remove_reader(line)
            connection.close()

    def _hear(self, connection: Any, now: float) -> None:
        if not connection.notifies:
            return
        self._heard = now
        studies = {note.payload for note in connection.notifies}
        connection.notifies.clear()
        if not self.live:
            # Changes before the connection was restored are unknown.
            self.live = True
            self.changed(None)
        for payload in studies:
            # Anyone who can connect to the database can send any payload.
            if payload.isascii() and payload.isdigit():
                self.changed(int(payload))
                self._echo(int(payload))

    def _echo(self, study_id: int) -> None:
        """Count a study as changed again, some time after its last notification."""
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
        """The studies that changed since the last message; None for all."""

    def hear(self, study_id: int | None) -> None:
        """Note that a study, or any study, has changed."""
        if study_id is None:
            self._studies = None
        elif self._studies is not None:
            self._studies.add(study_id)
        self.changed.set()

    def heard(self) -> Collection[int]:
        """Return and reset the studies that have changed; empty stands for all."""
        studies, self._studies = self._studies or (), set()
        self.changed.clear()
        return studies
