"""The thread that tells hooks what has happened; only the end of its process waits for it."""

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
"""How long the end of its process waits until all is told. What is being told by then is waited
for: a command that runs on without anyone who keeps its claim would be run again."""


@dataclass(frozen=True)
class _Told:
    """A notice that a hook was told, and what came of it."""

    hook: Hook
    event_ids: list[int]
    answer: Answer
    event: str
    title: str


class Notifier:
    """Tells hooks of the events of one study, or of all studies of a database.

    It has connections of its own, and a thread that looks for events every few seconds. Several
    processes may have the same hook: each event is taken by one of them (`store/notices`).
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
        """The study that is meant; None until it is stored, or for all."""
        self._dashboard = dashboard
        """The address of a dashboard, for links."""
        self._told_failures: dict[tuple[str, int], float] = {}
        self._registered: set[str] = set()
        self._unnoted: list[_Told] = []
        """What was told while the database was away: told once, so only the note is tried again."""
        self._ending = threading.Event()
        self._deadline = float("inf")
        """When the process ends: the time after which nothing is begun."""
        self._telling: Hook | None = None
        """What is being sent at this moment, or is about to be."""
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def __enter__(self) -> "Notifier":
        """Start: send events, including those of the last day since the hook was first used."""
        if self._hooks:
            # Here and not in the thread: a study may end before that runs for the first time.
            with suppress(DBAPIError):
                self._register()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send what is left for some seconds, then wait for what is still being sent."""
        # First the deadline: a look that is in progress heeds it as well.
        self._deadline = time.monotonic() + LEAVE_SECONDS
        self._ending.set()
        if self._hooks:
            self._thread.join(LEAVE_SECONDS + 1.0)
            if (hook := self._telling) is not None:
                logger.warning("waiting for %s, %g s at most", hook.name, COMMAND_SECONDS)
                self._thread.join(COMMAND_SECONDS + SEND_SECONDS)
        self._database.close()

    def _run(self) -> None:
        away = False
        while True:
            # Before the look: one that was in progress may have missed what happened last.
            ending = self._ending.is_set()
            try:
                self._register()
                waiting = self._look()
                away = False
            # Nothing that goes wrong here may end the telling, and nothing else depends on it.
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

    def _look(self) -> bool:
        """Tell each hook what is pending; return whether something is left for later.

        When the process ends, new failures do not rest, and nothing is begun after the deadline.
        """
        # Before anything is taken: what was told, but is not noted yet, would be told again.
        while self._unnoted:
            self._note(self._unnoted[0])
            del self._unnoted[0]
        if self._ref is not None and self._study is None:
            with self._database.transaction() as connection:
                self._study = studies.find_or_none(connection, self._ref)
            if self._study is None:
                return False  # a worker may be there before its study
        waiting = False
        for hook in self._hooks:
            with self._database.transaction() as connection:
                events = notices.pending(connection, hook.key, self._study)
            by_study: dict[int, list[Happened]] = defaultdict(list)
            for event in events:
                by_study[event.study_id].append(event)
            for study_id, mine in by_study.items():
                for together in in_notices(mine):
                    if not self._ending.is_set() and self._rests(hook, study_id, together):
                        continue
                    # In this order: whoever waits for the end looks at `_telling` only after the
                    # deadline, so it sees everything that was begun before.
                    self._telling = hook
                    try:
                        if self._is_over():
                            return True
                        self._tell(hook, study_id, together)
                    finally:
                        self._telling = None
            with self._database.transaction() as connection:
                waiting |= notices.is_waiting(connection, hook.key, self._study)
        return waiting

    def _rests(self, hook: Hook, study_id: int, events: Sequence[Happened]) -> bool:
        """Return whether new failures are sent later, because some were sent a moment ago."""
        if any(event.kind != "failed" or event.tried for event in events):
            return False
        told = self._told_failures.get((hook.key, study_id), float("-inf"))
        return time.monotonic() - told < FAILURES_SECONDS

    def _tell(self, hook: Hook, study_id: int, events: Sequence[Happened]) -> None:
        with self._database.transaction() as connection:
            taken = notices.take(connection, hook.key, events)
        mine = [event for event in events if event.event_id in taken]
        if not mine:
            return  # another process tells them
        ids = [event.event_id for event in mine]
        # Imported here: verdicts need statistics, which would slow down every start.
        from tuner.notify.notice import compose

        with self._kept(hook, ids):
            try:
                with self._database.snapshot() as connection:
                    study = studies.by_id(connection, study_id)
                    body = compose(Results(connection, study), mine, self._dashboard)
            except UnknownStudyError:
                return  # deleted meanwhile, and the notices with it
            answer = hook.tell(body)
        # From here on nothing is renewed: that would undo a short rest by the whole of a lease.
        if answer.outcome != "later" and all(event.kind == "failed" for event in mine):
            self._told_failures[hook.key, study_id] = time.monotonic()
        told = _Told(hook, ids, answer, str(body["event"]), study.title)
        try:
            self._note(told)
        except Exception:
            # What is to be tried later is due again when its lease ends.
            if answer.outcome != "later":
                self._unnoted.append(told)
            raise

    @contextmanager
    def _kept(self, hook: Hook, ids: list[int]) -> Iterator[None]:
        """Keep what is being sent from other senders, however long it takes."""
        told = threading.Event()

        def renew() -> None:
            while not told.wait(notices.LEASE_SECONDS / 5):
                # An outage: the next one may work, and the lease is longer than several.
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
            told.set()
            renewal.join()

    def _note(self, told: _Told) -> None:
        hook, answer, event, title = told.hook, told.answer, told.event, told.title
        keep = notices.put_off if answer.outcome == "later" else notices.end
        with self._database.transaction() as connection:
            keep(connection, hook.key, told.event_ids, answer.reason or answer.outcome)
        if answer.outcome == "told":
            logger.info("%s: %s was told %s", title, hook.name, event)
        else:
            again = "; it is tried again" if answer.outcome == "later" else ""
            logger.warning(
                "%s: %s was not told %s: %s%s", title, hook.name, event, answer.reason, again
            )


def in_notices(events: Sequence[Happened]) -> list[list[Happened]]:
    """Divide the events of one study into notices: one an end, failed trials with the first.

    What was told together before is told together again, and nothing with it: the receiver may
    have taken it without our knowing, and drops what comes with the same id.
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
