"""The thread that sends notices to hooks; nothing waits for it, except the end of its process."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from tuner.errors import DatabaseError, UnknownStudyError
from tuner.notify.hooks import COMMAND_SECONDS, SEND_SECONDS, Answer, Hook
from tuner.results import Results
from tuner.spec.study_ref import StudyRef
from tuner.store import notices, studies
from tuner.store.database import Database, is_outage
from tuner.store.notices import Happened
from tuner.store.studies import Study

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
FAILURES_SECONDS = 60.0
"""Between two notices of failed trials of a study; failures in between are sent together."""
LEAVE_SECONDS = 20.0
"""How long the end of its process waits for pending notices. One that is being sent by then is
waited for longer: if nobody renewed its lease, another process would run the command again."""


@dataclass(frozen=True)
class _Delivery:
    """A notice that was sent to a hook, and the hook's answer."""

    hook: Hook
    event_ids: list[int]
    answer: Answer
    event: str
    title: str


class Notifier:
    """Notifies hooks of the events of one study, or of all studies of a database.

    It has its own connections, and a thread that polls for events every few seconds. Several
    processes may have the same hook: each event is sent by one of them (`store/notices`).
    """

    def __init__(
        self,
        database: Database,
        hooks: Sequence[Hook],
        ref: StudyRef | None = None,
        dashboard: str | None = None,
    ) -> None:
        self._database = Database(database.address)
        self._hooks = hooks
        self._ref = ref
        self._study: Study | None = None
        """The study of `ref` once it is stored; None for all studies."""
        self._dashboard = dashboard
        """The address of a dashboard, for links."""
        self._failures_sent: dict[tuple[str, int], float] = {}
        self._registered: set[str] = set()
        self._unrecorded: list[_Delivery] = []
        """Sent while the database was away. They are not sent again, only recorded later."""
        self._ending = threading.Event()
        self._deadline = float("inf")
        """Once the process ends, the time after which no sending begins."""
        self._sending: Hook | None = None
        """The hook that is being sent a notice, or is about to be."""
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def __enter__(self) -> "Notifier":
        """Start: send events, including those of the last day since the hook was first used."""
        if self._hooks:
            # Not in the thread: the study may end before the thread runs for the first time.
            with suppress(DBAPIError):
                self._register()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Keep sending for some seconds, then wait for a notice that is still being sent."""
        # The deadline first, so that a pass in progress sees it too.
        self._deadline = time.monotonic() + LEAVE_SECONDS
        self._ending.set()
        if self._hooks:
            self._thread.join(LEAVE_SECONDS + 1.0)
            if (hook := self._sending) is not None:
                logger.warning("waiting for %s, %g s at most", hook.name, COMMAND_SECONDS)
                self._thread.join(COMMAND_SECONDS + SEND_SECONDS)
        self._database.close()

    def _run(self) -> None:
        away = False
        while True:
            # Read before the pass: a pass in progress may have missed the last events, so one more
            # follows after the end has been noticed.
            ending = self._ending.is_set()
            try:
                self._register()
                waiting = self._send_pending()
                away = False
            # No failure may stop the notifier, and nothing else depends on it.
            except Exception as error:
                waiting = True
                if not (is_outage(error) or isinstance(error, DatabaseError)):
                    logger.exception("events were not told")
                elif not away:
                    logger.warning("events are told later: the database is away")
                away = True
            if ending and (not waiting or self._is_over()):
                if waiting:
                    logger.warning(
                        "not everything could be told; a process with the same hook will do it "
                        "within a day"
                    )
                return
            if ending:
                time.sleep(LOOK_SECONDS / 4)
            else:
                self._ending.wait(LOOK_SECONDS)

    def _is_over(self) -> bool:
        return time.monotonic() > self._deadline

    def _register(self) -> None:
        for hook in self._hooks:
            if hook.key not in self._registered:
                with self._database.transaction() as connection:
                    notices.register(connection, hook.key)
                self._registered.add(hook.key)

    def _send_pending(self) -> bool:
        """Send each hook its pending events; return whether any are left for later.

        Once the process ends, new failures are sent at once, and nothing begins after the deadline.
        """
        # Before taking events: one that was sent but not recorded would be sent again.
        while self._unrecorded:
            self._record(self._unrecorded[0])
            del self._unrecorded[0]
        if self._ref is not None and self._study is None:
            with self._database.transaction() as connection:
                self._study = studies.find_or_none(connection, self._ref)
            if self._study is None:
                return False  # a worker may start before its study is stored
        waiting = False
        for hook in self._hooks:
            with self._database.transaction() as connection:
                events = notices.pending(connection, hook.key, self._study)
            by_study: dict[int, list[Happened]] = defaultdict(list)
            for event in events:
                by_study[event.study_id].append(event)
            for study_id, mine in by_study.items():
                for together in in_notices(mine):
                    if not self._ending.is_set() and self._is_too_soon(hook, study_id, together):
                        continue
                    # Set `_sending` before looking at the deadline: `__exit__` reads it only after
                    # the deadline, so it sees every sending that began before.
                    self._sending = hook
                    try:
                        if self._is_over():
                            return True
                        self._send(hook, study_id, together)
                    finally:
                        self._sending = None
            with self._database.transaction() as connection:
                waiting |= notices.is_waiting(connection, hook.key, self._study)
        return waiting

    def _is_too_soon(self, hook: Hook, study_id: int, events: Sequence[Happened]) -> bool:
        """Return whether to hold back new failures, because others were sent a moment ago."""
        if any(event.kind != "failed" or event.tried for event in events):
            return False
        sent = self._failures_sent.get((hook.key, study_id), float("-inf"))
        return time.monotonic() - sent < FAILURES_SECONDS

    def _send(self, hook: Hook, study_id: int, events: Sequence[Happened]) -> None:
        with self._database.transaction() as connection:
            taken = notices.take(connection, hook.key, events)
        mine = [event for event in events if event.event_id in taken]
        if not mine:
            return  # another process sends them
        ids = [event.event_id for event in mine]
        # Imported late: verdicts need the statistics, which would slow down every start.
        from tuner.notify.notice import compose

        with self._renewed(hook, ids):
            try:
                with self._database.snapshot() as connection:
                    study = studies.by_id(connection, study_id)
                    body = compose(Results(connection, study), mine, self._dashboard)
            except UnknownStudyError:
                return  # the study was deleted meanwhile, and its notices with it
            answer = hook.send(body)
        # The renewal ends here: it would turn the short pause before a retry into a whole lease.
        if answer.outcome != "later" and all(event.kind == "failed" for event in mine):
            self._failures_sent[hook.key, study_id] = time.monotonic()
        delivery = _Delivery(hook, ids, answer, str(body["event"]), study.title)
        try:
            self._record(delivery)
        except Exception:
            # A notice to be retried needs no record: it is due again when its lease ends.
            if answer.outcome != "later":
                self._unrecorded.append(delivery)
            raise

    @contextmanager
    def _renewed(self, hook: Hook, ids: list[int]) -> Iterator[None]:
        """Renew the lease on these events, however long it takes to send them."""
        sent = threading.Event()

        def renew() -> None:
            while not sent.wait(notices.LEASE_SECONDS / 5):
                # Ignore an outage: the lease outlasts several failed renewals.
                with (
                    suppress(DBAPIError, DatabaseError),
                    self._database.transaction() as connection,
                ):
                    notices.renew(connection, hook.key, ids)

        renewal = threading.Thread(target=renew, name="notices", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            sent.set()
            renewal.join()

    def _record(self, delivery: _Delivery) -> None:
        hook, answer = delivery.hook, delivery.answer
        event, title = delivery.event, delivery.title
        record = notices.put_off if answer.outcome == "later" else notices.end
        with self._database.transaction() as connection:
            record(connection, hook.key, delivery.event_ids, answer.reason or answer.outcome)
        if answer.outcome == "told":
            logger.info("%s: %s was told %s", title, hook.name, event)
        else:
            again = "; it is tried again" if answer.outcome == "later" else ""
            logger.warning(
                "%s: %s was not told %s: %s%s", title, hook.name, event, answer.reason, again
            )


def in_notices(events: Sequence[Happened]) -> list[list[Happened]]:
    """Group the events of one study into notices: one per end, failed trials with the first end.

    Events that were sent together before are sent together again, and with no others: the receiver
    may have got them without our knowing, and would drop a notice with the same id.
    """
    tried: dict[datetime, list[Happened]] = defaultdict(list)
    for event in events:
        if event.tried is not None:
            tried[event.tried].append(event)
    new = [event for event in events if event.tried is None]
    failed = [event for event in new if event.kind == "failed"]
    ends = [[event] for event in new if event.kind != "failed"]
    if ends:
        return [*tried.values(), [*failed, *ends[0]], *ends[1:]]
    return [*tried.values(), *([failed] if failed else [])]
