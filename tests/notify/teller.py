"""A process that notifies hooks of a study's events until its input ends."""

import sys

from tuner.notify import notifier
from tuner.notify.hooks import Command
from tuner.notify.notifier import Notifier
from tuner.spec.study_ref import StudyRef
from tuner.store import address, notices
from tuner.store.database import Database


def main(arguments: list[str]) -> int:
    """Notify a command, with short intervals for tests."""
    url, study, command, lease, leave = arguments
    notifier.LOOK_SECONDS = 0.02
    notices.LEASE_SECONDS, notifier.LEAVE_SECONDS = float(lease), float(leave)
    hooks = [Command.of(command)]
    with Database(address.parse(url)) as database, Notifier(database, hooks, StudyRef(study)):
        sys.stdin.read()
    return 0
