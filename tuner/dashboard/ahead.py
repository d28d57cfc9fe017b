"""Answers computed before anybody asks for them.

An answer over the predictions of hundreds of trials takes a second. After a start there is none,
and twenty people who open their pages at once would wait for twenty of them, two at a time. So the
server begins with the studies that are likely to be opened: running ones, then the newest.

One study at a time, on one of the two threads that pages have their answers computed on: whoever
opens another study meanwhile has the other thread. Verdicts of the front page follow, on its own.
"""

import logging
import threading
import time

from tuner.dashboard.desk import Desk
from tuner.dashboard.pages.curves import find_curves
from tuner.dashboard.pages.front import verdict
from tuner.dashboard.pages.study import answered
from tuner.dashboard.pages.view import View
from tuner.errors import TunerError
from tuner.store import studies
from tuner.store.studies import Study

MOST = 40
"""How many studies are prepared."""
SECONDS = 60.0
"""After this time, those that are left are not prepared: their trials are many."""
LISTENING_SECONDS = 5.0
"""How long to wait until changes are announced: what was read before is read again then."""
POLL = 0.1

logger = logging.getLogger(__name__)


def begin(desk: Desk) -> threading.Thread:
    """Prepare pages in a thread of their own, until the server stops."""
    thread = threading.Thread(target=_prepare_pages, args=(desk,), name="ahead", daemon=True)
    thread.start()
    return thread


def _prepare_pages(desk: Desk) -> None:
    until = time.monotonic() + LISTENING_SECONDS
    while not desk.announcements.live and time.monotonic() < until and not desk.stopping:
        time.sleep(POLL)
    try:
        prepare_pages(desk)
    except Exception as error:  # noqa: BLE001  # pages compute their answers themselves
        if not desk.stopping:
            logger.warning("no answers were prepared: %s", desk.database.words(error))


def prepare_pages(desk: Desk, most: int = MOST, seconds: float = SECONDS) -> list[str]:
    """Compute what the pages of these studies show first; return the studies' names."""
    until = time.monotonic() + seconds
    prepared: list[Study] = []
    for study in desk.read("foremost", lambda connection: studies.foremost(connection, most)):
        if desk.stopping or time.monotonic() >= until:
            break
        try:
            if answered(desk, study, patience=until - time.monotonic()) is None:
                break  # no time is left, or the database is away
            find_curves(desk, study, View.first(study), patience=until - time.monotonic())
        except TunerError:
            continue  # such as a study that was deleted; its page says what is wrong
        prepared.append(study)
    for study in prepared:
        # The front page does not wait for verdicts, so they need not be waited for here.
        verdict(desk, study)
    return [study.title for study in prepared]
