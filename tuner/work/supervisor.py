"""The supervisor: claims trials, has them trained by its child, and keeps the leases.

It holds the database, the leases, the signals and the terminal, and never loads
torch. A child that dies costs its trial one attempt, not the worker.

If the child offers to train several trials of one kind at a time, the supervisor
claims that many: each has its own lease, records and ending.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState
from tenacity.stop import stop_base

from tuner import logs
from tuner.errors import StudyConflictError
from tuner.processes import Process, Streams
from tuner.records import Value
from tuner.settings import Timing
from tuner.store.checkpoints import labels
from tuner.store.database import is_outage, patiently
from tuner.store.ledger.leases import (
    Answer,
    Claimed,
    Company,
    Ended,
    Lease,
    NeedsLook,
    NeedsProposal,
    Proposal,
    Wait,
)
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.looks import Decided, Look
from tuner.train.alike import kind
from tuner.work.child import Child
from tuner.work.housekeeping import Tidier
from tuner.work.messages import Message
from tuner.work.proposer import Proposer
from tuner.work.renewal import Renewal
from tuner.work.stopping import StopRequest
from tuner.work.training import HeldTrial, Watch

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.1
"""How long an idle worker waits before it claims again; doubles each time, up to `poll`. Usually
the last trials of other workers end soon, and the study with them."""
ASKING_SECONDS = 0.02
"""All idle workers of a study together claim at most once in this time, so that they do not delay
workers that start or end a trial."""
LONGEST_WAIT = 1 / 3
"""Longest wait of an idle worker as a fraction of a lease: it must show signs of life."""
LOOK_SECONDS = 0.25
"""How long to wait for a message of the child before attending to its trials."""
QUIT_SECONDS = 5.0
"""How long a trainer may write its last checkpoint when its worker exits."""
RELIEVED = "The worker was wanted for another study."
LEAVE_SECONDS = 5.0
"""How long a stopping worker still tries to reach the database to give its trial back."""


@dataclass(frozen=True)
class Workshop:
    """How a trainer is started, and its settings."""

    start: Callable[[Streams], Process]
    log: Path
    device: str
    threads: int
    cache: Path
    folders: tuple[Path, ...]
    checkpoints: str | None = None
    """The place for checkpoints, if they are kept."""
    lookup_seconds: float = Timing.lookup
    """How long a training waits for that place to answer."""
    cores: tuple[int, ...] = ()
    """The cores to which the trainer is pinned; empty for any."""
    memory: int | None = None
    """Limit of a trainer's memory in bytes, if there is one."""

    def open(self) -> Child:
        """Start a trainer; if it is not forked, it begins to load torch at once."""
        child = Child(self.start, self.log)
        child.send(
            Message(
                "settings",
                {
                    "device": self.device,
                    "threads": self.threads,
                    "cores": list(self.cores),
                    "cache": str(self.cache),
                    "folders": [str(folder) for folder in self.folders],
                    "checkpoints": self.checkpoints,
                    "lookup_seconds": self.lookup_seconds,
                    "memory": self.memory,
                },
            )
        )
        return child


@dataclass(frozen=True)
class Leaving:
    """When a worker leaves a study that has not ended."""

    idle_seconds: float = math.inf
    """After this long without a trial."""
    relieved: Callable[[], bool] = lambda: False
    """Returns whether the worker is needed by another study; called between two trials."""


class Supervisor:
    """One worker's main loop."""

    def __init__(
        self,
        ledger: Ledger,
        renewal: Renewal,
        stop: StopRequest,
        workshop: Workshop,
        child: Child,
        *,
        leaving: Leaving | None = None,
    ) -> None:
        self._leaving = leaving or Leaving()
        self._ledger = ledger
        self._renewal = renewal
        self._stop = stop
        self._workshop = workshop
        self._child = child
        self._serial = 0
        self._proposer = Proposer(
            ledger.study, ledger.worker_id, workshop.log.with_name(f"proposer-{os.getpid()}.log")
        )
        self._tidier = _tidier(workshop, ledger)
        self._timing: Timing = ledger.timing

    @property
    def trainer(self) -> int:
        """The process id of the current trainer, which may be replaced at any time."""
        return self._child.pid

    def run(self) -> Ended:
        """Train trials until the study ends or the worker is asked to stop."""
        proposal: Proposal | None = None
        idle = FIRST_WAIT_SECONDS
        busy = time.monotonic()
        while not self._stop.asked:
            self._renewal.tick()
            if self._leaving.relieved():
                return Ended("open", RELIEVED)
            answer = self._claim(proposal)
            made, proposal = proposal, None
            match answer:
                case Claimed(lease=lease, adopted=adopted):
                    self._train(lease, adopted=adopted)
                case NeedsProposal(configuration=configuration):
                    if made is not None:
                        self._proposer.overtaken()
                    trials = self._patiently(self._ledger.observations)
                    proposal = self._proposer.propose(trials, configuration, self._renewal.tick)
                case NeedsLook(look=look):
                    self._decide(look)
                case Wait(reason=reason, workers=workers):
                    if time.monotonic() - busy >= self._leaving.idle_seconds:
                        return Ended("open", f"No trial was free for this worker: {reason}")
                    self._stop.pause(min(idle, longest_wait(workers, self._timing)))
                    idle *= 2
                    continue
                case Ended():
                    self._leave_nothing()
                    return answer
            idle = FIRST_WAIT_SECONDS
            busy = time.monotonic()
        return Ended("stopped", "The worker was asked to stop.")

    def close(self) -> None:
        """End the trainer and the proposer's helper."""
        if not self._stop.now:
            self._child.send(Message("quit"))
            self._child.wait(QUIT_SECONDS)
        self._child.kill()
        self._proposer.close()

    def _leave_nothing(self) -> None:
        """Remove the checkpoints that trials resumed from, if the study keeps none.

        Trainers leave them, because an equal trial may be paused at the same one; tidying knows.
        """
        spec = self._ledger.study.spec
        if self._tidier is not None and spec.pauses and spec.checkpoints.keep == "none":
            self._tidier.after_study()

    def _claim(self, proposal: Proposal | None) -> Answer:
        # `settled` is evaluated at each try: just after an outage, silent peers may be alive.
        begun = time.monotonic()
        answer = self._patiently(lambda: self._ledger.claim(proposal, adopt=self._renewal.settled))
        self._renewal.tally.claimed(time.monotonic() - begun)
        return answer

    def _decide(self, look: Look) -> None:
        """Compare the contenders of a race and store the decision.

        Peers may be working on the same look. All of them see the same data, and the first one's
        decision is stored.
        """
        # Imported late: only races need the statistics, which would slow down every start.
        from tuner.results import Results, judge_look

        def judged() -> Decided:
            with self._ledger.database.snapshot() as connection:
                return judge_look(Results(connection, self._ledger.study), look)

        decided = self._patiently(judged)
        self._renewal.tick()
        if self._patiently(lambda: self._ledger.decide(decided)):
            dropped = ", ".join(map(str, decided.dropped)) or "none"
            logger.info("after seed %d %s was dropped", look.rounds, dropped)

    def _train(self, lease: Lease, *, adopted: bool) -> None:
        """Have a trial trained, and others of its kind beside it, until all have ended."""
        if self._child.gone:
            self._child.kill()
            self._child = self._workshop.open()
        trials = [self._begin(lease, adopted=adopted)]
        together, asked = 1, -self._timing.poll
        try:
            while trials:
                self._renewal.tick()
                self._receive(trials)
                # Once the child is gone, keep the number of trials that it had.
                together = together if self._child.gone else len(trials)
                ended = [trial for trial in trials if self._has_ended(trial, together)]
                trials = [trial for trial in trials if trial not in ended]
                idle = trials and len(trials) < trials[0].most
                if idle and (ended or time.monotonic() - asked > self._timing.poll):
                    asked = time.monotonic()
                    gone = self._child.gone
                    trials += self._companions(trials)
                    # If the child dies from now on, the new trials count too.
                    together = together if gone else len(trials)
        except StudyConflictError:
            for trial in trials:
                trial.leave("its worker's code or data differ from the study's")
            raise
        except BaseException:
            # The worker exits, so its trainer must stop rather than train until it is killed.
            for trial in trials:
                trial.halt()
            raise

    def _begin(self, lease: Lease, *, adopted: bool) -> HeldTrial:
        self._renewal.hold(lease)
        self._serial += 1
        # An idle child may have been silent for long.
        self._child.heard = time.monotonic()
        spec = self._ledger.study.spec
        job = spec.job(lease.chosen, lease.seed)
        # A trial that must be alone has the same checkpoint keys as in a pack.
        packs = {"pack": 1 if lease.alone else spec.search.pack, "study_pack": spec.search.pack}
        trial = HeldTrial(self._watch(), self._child, lease, self._serial)
        order = {"serial": self._serial, "job": job.plain(), "plan": self._plan(lease)}
        self._child.send(Message("train", {**order, **packs}))
        _log(lease, "adopted" if adopted else "started", str(dict(lease.chosen)))
        return trial

    def _receive(self, in_training: Sequence[HeldTrial]) -> None:
        """Pass each received message to its trial; wait a moment if there is none."""
        by_serial = {trial.serial: trial for trial in in_training}
        message = self._child.next(LOOK_SECONDS)
        while message is not None:
            if (addressee := by_serial.get(message.body.get("serial", 0))) is not None:
                addressee.take(message)
            message = self._child.next(0)

    def _has_ended(self, trial: HeldTrial, together: int) -> bool:
        ending = trial.step(together)
        if ending is None:
            return False
        self._renewal.release(trial.lease)
        self._renewal.tally.lost += ending == "lost"
        _log(trial.lease, ending, "")
        self._keep_output(trial)
        if self._tidier is not None:
            self._tidier.after_trial()
        return True

    def _companions(self, trials: Sequence[HeldTrial]) -> list[HeldTrial]:
        """Claim trials to be trained beside the current ones, up to the child's number."""
        companions: list[HeldTrial] = []
        # A pack that is always refilled would never pause between two trials.
        if self._child.gone or self._stop.asked or self._leaving.relieved():
            return companions
        spec, first = self._ledger.study.spec, trials[0].lease
        alike = kind(spec.job(first.chosen, first.seed))

        def fits(chosen: Mapping[str, Value], seed: int) -> bool:
            return kind(spec.job(chosen, seed)) == alike

        def claimed() -> Answer:
            company = Company([trial.lease for trial in (*trials, *companions)], fits)
            return self._ledger.claim(None, adopt=self._renewal.settled, company=company)

        while len(trials) + len(companions) < trials[0].most and not self._child.gone:
            self._renewal.tick()
            answer = self._patiently(claimed)
            if not isinstance(answer, Claimed):
                break
            companions.append(self._begin(answer.lease, adopted=answer.adopted))
        return companions

    def _plan(self, lease: Lease) -> dict[str, object]:
        """Return which checkpoints of a trial to keep, and which peers' epochs to expect."""
        study, sharing = self._ledger.study, self._ledger.sharing
        checkpoints = study.spec.checkpoints
        return {
            "labels": labels(study, lease.number),
            "every": checkpoints.every,
            "keep": checkpoints.keep,
            "branches": sharing.branches(lease.configuration) if sharing else [],
            "expected": lease.expected_epochs if checkpoints.keep == "auto" else 0,
            "until": lease.until,
            "pauses": study.spec.pauses,
        }

    def _keep_output(self, trial: HeldTrial) -> None:
        """Store what the child printed during the trial; trials in a pack share the output."""
        printed = self._child.printed(trial.printed)
        if not printed.strip():
            return
        lease = trial.lease
        try:
            self._patiently(lambda: self._ledger.keep_output(lease, printed))
        # No result depends on the output, so its loss must not end the worker.
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception(
                "trial %d: its output was not stored", lease.number, extra=logs.trial(lease.number)
            )

    def _watch(self) -> Watch:
        return Watch(
            ledger=self._ledger,
            renewal=self._renewal,
            stop=self._stop,
            limits=self._ledger.study.spec.limits,
            give_back_seconds=self._timing.give_back,
            patiently=self._patiently,
        )

    def _patiently(self, work: Callable[[], T]) -> T:
        def report(error: BaseException) -> None:
            self._renewal.tick()
            self._renewal.tally.retried()
            words = self._ledger.database.words(error)
            if is_outage(error):
                self._renewal.unreachable()
                logger.warning("the database is away; trying again (%s)", words)
            else:
                logger.warning("the database refused the request; trying again (%s)", words)

        return patiently(work, stop=_StopRetrying(self._stop), before_sleep=report)


def longest_wait(workers: int, timing: Timing) -> float:
    """Return the longest time in seconds that an idle worker waits before it claims again."""
    crowd = min(workers * ASKING_SECONDS, timing.lease * LONGEST_WAIT)
    return max(timing.poll, crowd)


def _tidier(workshop: Workshop, ledger: Ledger) -> Tidier | None:
    if workshop.checkpoints is None:
        return None
    limit = ledger.study.spec.checkpoints.limit_bytes
    return Tidier(workshop.checkpoints, ledger.database, limit)


class _StopRetrying(stop_base):
    """Retries without limit, but only for a few seconds once the worker was asked to stop."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def __call__(self, retry_state: RetryCallState) -> bool:  # noqa: ARG002
        return self._stop.now or (self._stop.asked and self._stop.waited > LEAVE_SECONDS)


def _log(lease: Lease, what: str, more: str) -> None:
    extra = logs.trial(lease.number)
    logger.info("trial %d (seed %d) %s %s", lease.number, lease.seed, what, more, extra=extra)
