"""Follows one leased trial: turns the trainer's messages into records until the trial ends."""

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from tuner import logs
from tuner.errors import MachineError, StudyConflictError
from tuner.processes import has_folder
from tuner.records import (
    DIVERGED,
    DataIdentity,
    Dataset,
    Epoch,
    Figures,
    Identity,
    Labels,
    Predictions,
    Result,
    Setup,
)
from tuner.spec.study import Limits
from tuner.store import identities
from tuner.store.database import is_outage, server_words
from tuner.store.ledger.leases import Lease, LeaseLostError
from tuner.store.ledger.ledger import Ledger
from tuner.text import storable, storable_json, storable_names
from tuner.work.child import GARBLED, Child
from tuner.work.memory import memory_kills
from tuner.work.messages import Message
from tuner.work.recomputed import disagreement
from tuner.work.renewal import Renewal
from tuner.work.stopping import StopRequest

logger = logging.getLogger(__name__)

T = TypeVar("T")

GATHER_SECONDS = 0.25
"""Epochs shorter than this are stored together in one transaction."""
MEMORY_SECONDS = 2.0
SENDING_SECONDS = 10.0
"""How often the progress of storing a large result is logged."""

HowItEnded = Literal["complete", "pruned", "again", "failed", "paused", "given back", "lost"]


@dataclass
class Watch:
    """The parts of a supervisor that a running trial needs."""

    ledger: Ledger
    renewal: Renewal
    stop: StopRequest
    limits: Limits
    give_back_seconds: float
    patiently: Callable[[Callable[[], T]], T]
    """Retries a transaction until it succeeds."""


class RefusedError(Exception):
    """The database rejects a trainer's data; the text is the server's message."""


class UnwantedError(Exception):
    """The trial was stopped while its result was being stored; the message says why."""


class HeldTrial:
    """Follows one trial in a child, from the first message to its ending."""

    def __init__(self, watch: Watch, child: Child, lease: Lease, serial: int) -> None:
        self.lease = lease
        self.serial = serial
        self.most = 1
        """How many trials of its kind the child would train at a time."""
        self.printed = child.position()
        """The position in the child's log at which the trial's output begins."""
        self._watch = watch
        self._child = child
        self._together = 1
        """How many trials may be to blame if the attempt fails."""
        self._setup: Setup | None = None
        self._result: tuple[Dataset, Result] | None = None
        self._error: str | None = None
        self._of = 1
        """How many trials the error concerns."""
        self._inbox: list[Message] = []
        self._epochs: list[Epoch] = []
        self._curve: dict[int, Epoch] = {}
        """All epochs of this attempt, including those from a checkpoint."""
        self._left = False
        self._checkpoint: str | None = None
        """The key of the checkpoint with which the trainer paused the trial."""
        self._given_back = False
        self._saved = 0
        self._stored = time.monotonic()
        self._since: float | None = None
        self._memory_looked = 0.0
        self._memory_kills = memory_kills()
        self._said = time.monotonic()

    def step(self, together: int) -> HowItEnded | None:
        """Record the messages that have arrived; return how the trial ended, if it did.

        `together` is how many trials the child has, or had when it was last alive.
        """
        self._together = together
        try:
            return self._step_or_end()
        except LeaseLostError:
            self.halt()
            return "lost"

    def _step_or_end(self) -> HowItEnded | None:
        try:
            self._read_all()
            return self._step()
        except RefusedError as error:
            self.halt()
            return self._fail(str(error))
        except UnwantedError as error:
            return self._give_back(str(error))

    def halt(self) -> None:
        """Tell the child to stop training this trial."""
        self._child.send(Message("stop", {"serial": self.serial}))

    def take(self, message: Message) -> None:
        """Add a message about this trial to the inbox, for the next step to read."""
        self._inbox.append(message)

    def _read_all(self) -> None:
        messages, self._inbox = self._inbox, []
        for message in messages:
            if self.ready:
                return  # ignore anything after a result or an error
            try:
                self._read(message)
            except (AttributeError, KeyError, TypeError, ValueError):
                # A trainer runs other people's code, so its messages may be invalid.
                self._child.kill(GARBLED)
                self._error = GARBLED
                return

    def _step(self) -> HowItEnded | None:
        if self._watch.renewal.lost(self.lease):
            raise LeaseLostError("the lease has another holder")
        if self._epochs and self._due:
            ending = self._record()
            if ending is not None:
                return ending
        if self._result is not None:
            return self._complete(*self._result)
        if self._error is not None:
            return self._fail_with_others(self._error, self._of)
        if self._checkpoint is not None:
            return self._pause(self._checkpoint)
        # Store epochs that arrived just before the end first: they are progress.
        if self._child.gone and not self._epochs:
            return self._died()
        return self._misbehaviour() or self._unwanted()

    @property
    def _due(self) -> bool:
        """Whether to store epochs now: short ones are stored a few at a time."""
        waited = time.monotonic() - self._stored
        over = self.ready or self._left or self._checkpoint is not None or self._child.gone
        return over or waited >= GATHER_SECONDS

    @property
    def ready(self) -> bool:
        """Whether its result or its error has arrived."""
        return self._result is not None or self._error is not None

    def _read(self, message: Message) -> None:
        body = storable_json(message.body)
        if message.kind == "epoch":
            self._take_epoch(Epoch(**body["epoch"]))
        elif message.kind == "setup":
            self._setup = Setup(**body["setup"])
            if "identity" in body:
                self._check_identity(_identity(body["identity"]))
            self._tell_resumed(int(body.get("resumed", 0)))
            self.most = int(body.get("pack", 1))
        elif message.kind == "saved":
            self._saved = int(body["epoch"])
        elif message.kind == "left":
            self._left = True
        elif message.kind == "paused":
            self._take_pause(storable(body["checkpoint"]))
        elif message.kind == "result":
            self._known_setup()
            self._result = _dataset(message), _result(message)
        elif message.kind == "error":
            self._error = f"{body['error']}: {body['text']}".rstrip(": ")
            self._of = int(body.get("of", 1))
        elif message.kind == "stopped":
            self._error = "the trainer left the trial without being asked to"

    def _take_epoch(self, epoch: Epoch) -> None:
        self._known_setup()
        if self.lease.until is not None and epoch.epoch > self.lease.until:
            raise ValueError("a trainer trains no epoch that it was not told to")
        self._curve[epoch.epoch] = epoch
        self._epochs.append(epoch)

    def _take_pause(self, checkpoint: str) -> None:
        if self.lease.until not in self._curve:
            raise ValueError("a trainer pauses a trial where it was told to")
        self._checkpoint = checkpoint

    def leave(self, why: str) -> None:
        """Give the trial back, unless that was done before, and stop it in the child."""
        if not self._given_back:
            # It does not matter if the trial has just ended, or has another holder.
            with contextlib.suppress(LeaseLostError):
                self._give_back(why)

    def _check_identity(self, identity: Identity) -> None:
        """Give the trial back before recording anything if its code or data differ."""
        ledger = self._watch.ledger
        changes = self._watch.patiently(lambda: ledger.identify(self.lease, identity))
        if not changes:
            return
        self.halt()
        self._given_back = True
        why = f"its code or data differ from the study's here: {'; '.join(changes)}"
        self._watch.patiently(lambda: ledger.give_back(self.lease, why))
        where = f"Code or data on {socket.gethostname()}"
        raise StudyConflictError(identities.refusal(ledger.study.title, changes, where))

    def _tell_resumed(self, epochs: int) -> None:
        if epochs:
            whose = "" if self.lease.stored_epochs else " of another trial"
            text = f"at epoch {epochs}, from a checkpoint{whose}"
            self._store(lambda: self._watch.ledger.add_event(self.lease, "resumed", text))

    def _record(self) -> HowItEnded | None:
        epochs, self._epochs = self._epochs, []
        # Only the newest checkpoint since the last record matters.
        saved, self._saved = self._saved, 0
        self._stored = time.monotonic()
        self._memory_kills = memory_kills()
        answer = self._store(lambda: self._watch.ledger.record(self.lease, epochs, saved))
        self._watch.renewal.tally.epochs += sum(not epoch.reused for epoch in epochs)
        if answer.stop_epoch is None:
            return None
        self.halt()
        return self._prune(answer.stop_epoch, diverged=answer.diverged)

    def _prune(self, epoch: int, *, diverged: bool) -> HowItEnded:
        pruner = self._watch.ledger.study.spec.search.pruner
        reason = f"{DIVERGED} at epoch {epoch}" if diverged else f"{pruner} at epoch {epoch}"
        setup = self._known_setup()
        self._store(lambda: self._watch.ledger.prune(self.lease, setup, reason))
        return "pruned"

    def _pause(self, checkpoint: str) -> HowItEnded:
        setup = self._known_setup()
        self._store(lambda: self._watch.ledger.pause(self.lease, setup, checkpoint))
        return "paused"

    def _complete(self, data: Dataset, result: Result) -> HowItEnded:
        setup = self._known_setup()
        if (why := disagreement(data, result, self._curve)) is not None:
            return self._fail(why)
        ledger, lease = self._watch.ledger, self.lease
        self._store(lambda: ledger.complete(lease, setup, data, result, self._sending))
        return "complete"

    def _sending(self, sent: int, total: int) -> None:
        """Keep the lease alive while predictions are sent, which may take minutes; log progress."""
        self._watch.renewal.tick()
        if self._watch.renewal.lost(self.lease):
            raise LeaseLostError("the lease has another holder")
        if sent < total and (why := self._why_unwanted()) is not None:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if self._watch.stop.now or now - self._since > self._watch.give_back_seconds:
                raise UnwantedError(why)
        if time.monotonic() - self._said >= SENDING_SECONDS or sent == total:
            self._said = time.monotonic()
            words = "trial %d: %.1f of %.1f MB of its predictions are stored"
            extra = logs.trial(self.lease.number)
            logger.info(words, self.lease.number, sent / 1e6, total / 1e6, extra=extra)

    def _store(self, transaction: Callable[[], T]) -> T:
        """Run a transaction on the trainer's data; if they are rejected, only the attempt fails.

        A trainer runs other people's code, and may send values that no column can store. An outage
        is not the trainer's fault and is raised unchanged.
        """
        try:
            return self._watch.patiently(transaction)
        except (LeaseLostError, UnwantedError):
            raise
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception(
                "trial %d: its transaction failed",
                self.lease.number,
                extra=logs.trial(self.lease.number),
            )
            words = server_words(error)
            if words is None:
                words = f"{type(error).__name__}: {error}".rstrip(": ")
            raise RefusedError(f"the trainer's data cannot be stored: {words}") from None

    def _fail(self, reason: str) -> HowItEnded:
        if not has_folder():
            # The machine is shutting down, so this failure says nothing about the trial.
            text = "the worker's working directory is gone"
            about = f"{text}: {reason}"
            self._watch.patiently(lambda: self._watch.ledger.interrupt(self.lease, about))
            raise MachineError(f"{text.capitalize()}; no trial can be trained here any more.")
        return self._watch.patiently(lambda: self._watch.ledger.fail(self.lease, reason))

    def _fail_with_others(self, reason: str, trials: int) -> HowItEnded:
        """End an attempt because of an error that affected this many trials at once.

        If there were several, we cannot tell which one caused it: none is charged with a failed
        attempt, and each is retried alone.
        """
        if trials == 1:
            return self._fail(reason)
        shared_reason = f"{reason}; {trials} trials were trained together; each is retried alone"
        return self._watch.patiently(
            lambda: self._watch.ledger.interrupt(self.lease, shared_reason)
        )

    def _died(self) -> HowItEnded:
        """Decide whether the trainer was killed from outside or ended by itself.

        SIGKILL does not say who sent it: a person, a scheduler that wants the machine back, or the
        kernel because memory ran out, which is the trial's own fault. The kernel counts its kills.
        If the count has risen since the last epoch, another process may have been the cause; that
        costs one failed attempt, which the next epoch resets.
        """
        reason = self._child.death()
        sent = self._child.killed_by
        if sent is None:
            return self._fail_with_others(reason, self._together)
        if sent == signal.SIGKILL and memory_kills() > self._memory_kills:
            return self._fail_with_others(
                "the kernel killed the trainer: the machine ran out of memory", self._together
            )
        return self._watch.patiently(lambda: self._watch.ledger.interrupt(self.lease, reason))

    def _misbehaviour(self) -> HowItEnded | None:
        silent = time.monotonic() - self._child.heard
        if silent > self._watch.limits.silence_seconds:
            limit = self._watch.limits.silence_seconds
            silence = f"the trainer did not respond for {limit:g} s"
            self._child.kill(silence)
            return self._fail_with_others(silence, self._together)
        return self._too_large()

    def _too_large(self) -> HowItEnded | None:
        allowed = self._watch.limits.memory_bytes
        now = time.monotonic()
        if allowed is None or now - self._memory_looked < MEMORY_SECONDS:
            return None
        self._memory_looked = now
        if self._child.memory() <= allowed:
            return None
        why = f"the trainer used more memory than [limits] allows ({allowed:,} bytes)"
        self._child.kill(why)
        return self._fail_with_others(why, self._together)

    def _unwanted(self) -> HowItEnded | None:
        """Give the trial back if it must stop: after an epoch, or when time is up."""
        why = self._why_unwanted()
        if why is None:
            # The reason may no longer hold by the time the trainer has left the trial.
            return self._give_back("its trainer has left it") if self._left else None
        if self._since is None:
            self._since = time.monotonic()
            self._child.send(Message("leave", {"serial": self.serial}))
        waited = time.monotonic() - self._since
        if not (self._left or self._watch.stop.now or waited > self._watch.give_back_seconds):
            return None
        return self._give_back(why)

    def _give_back(self, why: str) -> HowItEnded:
        self.halt()
        self._watch.patiently(lambda: self._watch.ledger.give_back(self.lease, why))
        return "given back"

    def _why_unwanted(self) -> str | None:
        if self._watch.stop.asked:
            return "the worker was asked to stop"
        if self._watch.renewal.study_state != "open":
            return f"the study is {self._watch.renewal.study_state}"
        return "the budget is spent" if self._watch.renewal.spent else None

    def _known_setup(self) -> Setup:
        if self._setup is None:
            raise ValueError("a trainer describes its setup before its first epoch")
        return self._setup


def _identity(body: Mapping[str, Any]) -> Identity:
    return Identity(**{**body, "data": DataIdentity(**body["data"])})


def _dataset(message: Message) -> Dataset:
    described: Mapping[str, Any] = message.body["dataset"]
    first = len(message.body["predictions"])
    labels = tuple(
        Labels(
            header["split"],
            storable_names(header["ids"]),
            array,
            storable_names(header["patients"]),
        )
        for header, array in zip(described["labels"], message.arrays[first:], strict=True)
    )
    return Dataset(
        storable(described["fingerprint"]),
        storable_names(described["classes"]),
        storable_json(described["sizes"]),
        labels,
    )


def _result(message: Message) -> Result:
    described = message.body["predictions"]
    predictions = tuple(
        Predictions(
            header["split"],
            header["at"],
            array,
            {
                storable(name): np.array(values, dtype=np.float32)
                for name, values in header.get("resampled", {}).items()
            },
        )
        for header, array in zip(described, message.arrays, strict=False)
    )
    return Result(Figures(**message.body["best"]), Figures(**message.body["last"]), predictions)
