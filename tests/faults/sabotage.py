"""A worker that fails at a named boundary of the ledger; the product contains no test code.

Called with the fault as JSON, and the arguments of tuner.

The boundary is reached in the ledger's own transaction: `before` its commit, with all statements
executed, or `after` it, before the worker continues.
"""

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from tuner.forkserver import Program
from tuner.store import database
from tuner.store.ledger import claims, endings
from tuner.store.ledger.leases import Answer, Claimed, Ended, Recorded
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.recording import Recorder
from tuner.store.ledger.transactions import Transaction

NONE = ""


@dataclass(frozen=True)
class Fault:
    """What happens to a worker, and where."""

    point: str = NONE
    """create | adopt | close | look | record | decide | complete | prune | strike | fail |
    interrupt | give back"""
    when: str = "before"
    nth: int = 1
    signal: int = signal.SIGKILL
    idle: str = NONE
    """The server's timeout for an idle transaction, if not the usual one."""
    trainer: Program | None = None
    """A trainer that replaces the real one."""

    def text(self) -> str:
        """Return the text that `read` reads in the worker's process."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Fault":
        """Read what `text` wrote."""
        told = json.loads(text)
        trainer = told["trainer"] and Program(**told["trainer"])
        return cls(**{**told, "trainer": trainer})


class Saboteur:
    """Watches this process's ledger and strikes at one boundary."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._point = NONE
        self._met = 0

    def arm(self) -> None:
        """Wrap the ledger's transactions, and the functions that identify their purpose."""
        self._note(claims, "claim", _of_claim)
        self._note(claims, "decide", lambda stored: "look" if stored else NONE)
        self._note(Recorder, "record", _of_record)
        self._note(endings, "complete", lambda _: "complete")
        self._note(endings, "prune", lambda _: "prune")
        self._note(endings, "fail_attempt", {"again": "strike", "failed": "fail"}.get)
        self._note(endings, "interrupt", lambda _: "interrupt")
        self._note(endings, "give_back", lambda _: "give back")
        original = Ledger._transaction

        @contextmanager
        def transaction(ledger: Ledger) -> Iterator[Transaction]:
            self._point = NONE
            with original(ledger) as opened:
                yield opened
                if self._point == self._fault.point:
                    self._met += 1
                    self._strike("before")
            if self._point == self._fault.point:
                self._strike("after")

        Ledger._transaction = transaction  # type: ignore[method-assign,assignment]

    def _note(self, place: Any, name: str, point: Callable[[Any], str | None]) -> None:
        original = getattr(place, name)

        @functools.wraps(original)
        def noted(*arguments: Any, **named: Any) -> Any:
            answer = original(*arguments, **named)
            self._point = point(answer) or NONE
            return answer

        setattr(place, name, noted)

    def _strike(self, when: str) -> None:
        if self._fault.point and self._fault.when == when and self._met == self._fault.nth:
            # The signal freezes or kills the process here: nothing after this line runs before it.
            os.kill(os.getpid(), self._fault.signal)


def _of_claim(answer: Answer) -> str:
    if isinstance(answer, Claimed):
        return "adopt" if answer.adopted else "create"
    return "close" if isinstance(answer, Ended) and answer.state == "complete" else NONE


def _of_record(answer: Recorded) -> str:
    return "record" if answer.stop_epoch is None else "decide"


def main(arguments: list[str]) -> int:
    """Run tuner with a fault injected."""
    from tuner.cli.main import run
    from tuner.work import worker

    fault = Fault.read(arguments[0])
    Saboteur(fault).arm()
    if fault.idle:
        database.SERVER_SIDE["idle_in_transaction_session_timeout"] = fault.idle
    if fault.trainer is not None:
        orders = functools.partial(worker.Orders, trainer=fault.trainer)
        worker.Orders = orders  # type: ignore[misc,assignment]
    return run(arguments[1:])
