"""Claiming a trial: adopt an orphan, create the next one, wait, or end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import sqlalchemy as sa

from tuner.records import METRICS, Value
from tuner.spec.study import Spec
from tuner.store import sampling
from tuner.store import tables as t
from tuner.store.ledger import endings
from tuner.store.ledger.assignments import (
    LOOK_AHEAD,
    PENDING,
    RACING,
    WAITING,
    Assignment,
    Existing,
    next_assignment,
)
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
from tuner.store.ledger.race import Decided, Look
from tuner.store.ledger.reuse import Runner
from tuner.store.ledger.transactions import Past, Transaction, in_seconds
from tuner.store.ledger.workers import hours_left
from tuner.store.optuna_storage import add_trial
from tuner.store.queue import Queued, read_queue, take
from tuner.store.races import insert_decision, read_decisions
from tuner.store.studies import Study, read_spec

FRESH_SECONDS = 15.0
YIELDS = 3
"""A trial interrupted so often in a row lets new trials go first: it may be what kills workers."""
WAITS = {
    None: "the last trials are running",
    PENDING: "the contenders are known when the exploration has ended",
    RACING: "the contenders are compared when their trials so far have ended",
    WAITING: "peers are training the epochs that are next",
}


def claim(
    transaction: Transaction,
    proposal: Proposal | None,
    *,
    adopt: bool,
    company: Company | None = None,
) -> Answer:
    """Give the worker a trial to train, or say why there is none.

    In company it gets one of its kind or none, and never more than its share.
    """
    # From here to commit no other worker counts or creates: the count below
    # and the creation belong to one transaction, so the budget is exact.
    transaction.lock_study()
    state, reason = _study_state(transaction)
    if state != "open":
        return Ended(state, reason)  # type: ignore[arg-type]
    if (lease := _already_held(transaction, company)) is not None:
        return Claimed(lease, adopted=False)
    spec = read_spec(transaction.connection, transaction.study)
    left = hours_left(transaction.connection, transaction.study.study_id, spec.budget.hours)
    if left is not None and left <= 0:
        return _stop_for_hours(transaction, spec)
    if company is not None:
        return _companion(transaction, spec, company, expired=adopt)
    if (adopted := _adopt(transaction, expired=adopt, below=YIELDS)) is not None:
        return Claimed(adopted, adopted=True)
    answer = _next(transaction, spec, proposal)
    if isinstance(answer, Wait):
        adopted = _adopt(transaction, expired=adopt, below=None)
        if adopted is not None:
            return Claimed(adopted, adopted=True)
    return answer


def _companion(transaction: Transaction, spec: Spec, company: Company, *, expired: bool) -> Answer:
    """Give a trial for this company: one that was given back, or the next new one."""
    if len(company.held) >= _share(transaction, spec):
        return Wait("the rest is for other workers")
    orphan = _orphan(transaction, expired=expired, below=YIELDS)
    if orphan is not None:
        # Who must be trained alone, or elsewhere, is not kept waiting by a company that is
        # filled up for ever: it ends, and the next claim adopts.
        lease = _lease(transaction, orphan.trial_id, orphan.token + 1)
        if lease.alone or orphan.state == "held" or not company.fits(lease.chosen, lease.seed):
            return Wait("an unfinished trial goes first")
        _hold(transaction, orphan.trial_id, lease.token)
        transaction.tell("adopted", f"from worker {orphan.worker_id}", lease.trial_id)
        _tell_joined(transaction, company, lease)
        return Claimed(lease, adopted=True)
    existing = _existing(transaction, spec)
    assignment = _assignment(transaction, spec, existing)
    # Where somebody has to think first (a sampler, a race), whoever is free does that.
    chosen = _chosen(transaction, spec, assignment) if isinstance(assignment, Assignment) else None
    if not isinstance(assignment, Assignment) or chosen is None:
        return Wait("the next trial is not known yet")
    if not company.fits(sampling.in_file_order(spec, chosen.values), assignment.seed):
        return Wait("the next trial is of another kind")
    # No checkpoint is waited for: the others would wait as well.
    created = _create(transaction, spec, assignment, chosen)
    _tell_joined(transaction, company, created)
    return Claimed(created, adopted=False)


def _tell_joined(transaction: Transaction, company: Company, joining: Lease) -> None:
    beside = ", ".join(str(lease.number) for lease in company.held)
    transaction.tell("joined", f"trained beside {beside}", joining.trial_id)


def _share(transaction: Transaction, spec: Spec) -> int:
    """Return how many of the trials that are not over a worker may have at a time."""
    here = transaction.study.study_id
    # Of workers that died nobody has noted the end.
    there = t.worker.c.ended.is_(None) & (t.worker.c.seen > in_seconds(-transaction.timing.lease))
    workers_there = sa.select(sa.func.count()).where(t.worker.c.study_id == here, there)
    over = sa.select(sa.func.count()).where(t.lease.c.study_id == here, t.lease.c.state == "ended")
    workers, ended = transaction.connection.execute(
        sa.select(workers_there.scalar_subquery(), over.scalar_subquery())
    ).one()
    return -(-(spec.total_trials - int(ended)) // max(1, int(workers)))


def configurations_ahead(connection: sa.Connection, study: Study, past: Past) -> list[int]:
    """Return the configurations that a claim will look at: those begun, and the next ones.

    Of those begun, the ones that an earlier call has returned are left out.
    """
    # Numbers are given under the study's lock: below the largest that is seen none is missing.
    rows = connection.execute(
        sa.select(t.trial.c.number, t.trial.c.configuration).where(
            t.trial.c.study_id == study.study_id, t.trial.c.number >= past.seen
        )
    ).all()
    past.seen = max((row.number + 1 for row in rows), default=past.seen)
    begun = {row.configuration for row in rows} - past.begun
    past.begun |= begun
    # As it was when the worker joined: one that was extended, or deleted, since then is met
    # by the claim itself, which reads it again.
    spec = study.spec
    order = dict.fromkeys([*_queued_cells(connection, study), *range(spec.configurations)])
    new = (one for one in order if one not in past.begun)
    return [*begun, *islice(new, LOOK_AHEAD)]


def decide(transaction: Transaction, decided: Decided) -> bool:
    """Store what came of a look; say whether it was this call that did.

    The first writer wins. Whoever comes later, or decided upon what is no
    longer so (a trial was retried, the study extended meanwhile), stores nothing.
    """
    # The same lock as a claim's: no trial is created and none reopened in between.
    transaction.lock_study()
    if _study_state(transaction)[0] != "open":
        return False
    spec = read_spec(transaction.connection, transaction.study)
    if _due(transaction, spec, _existing(transaction, spec)) != decided.look:
        return False
    insert_decision(transaction.connection, transaction.study.study_id, decided)
    transaction.tell("looked", _told(decided))
    return True


def _told(decided: Decided) -> str:
    left = len(decided.look.racing) - len(decided.dropped)
    dropped = ", ".join(map(str, decided.dropped))
    who = "nobody" if not decided.dropped else f"configuration {dropped}"
    return f"after seed {decided.look.rounds}: dropped {who}; {left} left in the race"


def _due(transaction: Transaction, spec: Spec, existing: Sequence[Existing]) -> Look | None:
    decided = read_decisions(transaction.connection, transaction.study.study_id)
    found = next_assignment(spec, existing, decided=decided)
    return found if isinstance(found, Look) else None


def _study_state(transaction: Transaction) -> tuple[str, str]:
    present = (
        sa.exists()
        .where(t.worker.c.worker_id == transaction.worker_id, t.worker.c.ended.is_(None))
        .where(t.worker.c.study_id == t.study.c.study_id)
    )
    row = transaction.connection.execute(
        sa.select(t.study.c.state, t.study.c.reason, present.label("present")).where(
            t.study.c.study_id == transaction.study.study_id
        )
    ).one_or_none()
    if row is None:
        return "stopped", "The study was deleted."
    if not row.present:
        # After a restore even the study may be another one of the same number.
        return "stopped", "The database was restored, and this worker is unknown: start it again."
    return row.state, row.reason


def _already_held(transaction: Transaction, company: Company | None) -> Lease | None:
    """Return a lease that this worker has and does not know of.

    Its last claim's commit went through, and the answer was lost.
    """
    known = [lease.trial_id for lease in company.held] if company else []
    row = transaction.connection.execute(
        sa.select(t.lease.c.trial_id, t.lease.c.token)
        .where(
            t.lease.c.study_id == transaction.study.study_id,
            t.lease.c.worker_id == transaction.worker_id,
            t.lease.c.state == "held",
            t.lease.c.trial_id.not_in(known),
        )
        .order_by(t.lease.c.trial_id)
    ).first()
    return None if row is None else _lease(transaction, row.trial_id, row.token)


def _adopt(transaction: Transaction, *, expired: bool, below: int | None) -> Lease | None:
    """Take over a released trial, or an expired one if `expired` allows; next token.

    Only one that was interrupted less than `below` times in a row, where that is given.
    """
    while (row := _orphan(transaction, expired=expired, below=below)) is not None:
        # The next token first, also for a trial that ends here: its silent holder
        # may only be slow, and must find itself fenced off.
        _hold(transaction, row.trial_id, row.token + 1)
        if row.state == "held":
            # Its worker or machine died, was cut off or slept: nothing that the trial did,
            # as far as anybody can tell, so that it is no failed attempt.
            transaction.tell("lost", f"worker {row.worker_id} fell silent", row.trial_id)
            why = endings.count_interruption(transaction, row.trial_id, row.worker_id)
            if why is not None:
                endings.fail_for_good(transaction, row.trial_id, row.token + 1, why)
                continue
        transaction.tell("adopted", f"from worker {row.worker_id}", row.trial_id)
        return _lease(transaction, row.trial_id, row.token + 1)
    return None


def _orphan(transaction: Transaction, *, expired: bool, below: int | None) -> sa.Row[Any] | None:
    free = t.lease.c.state == "released"
    if expired:
        # The server's clock only; a worker's may be an hour off.
        free |= (t.lease.c.state == "held") & (t.lease.c.expires < sa.func.clock_timestamp())
    return transaction.connection.execute(
        sa.select(t.lease)
        .where(
            t.lease.c.study_id == transaction.study.study_id,
            free,
            sa.true() if below is None else t.lease.c.interruptions < below,
        )
        .order_by(t.lease.c.strikes + t.lease.c.interruptions, t.lease.c.trial_id)
        .limit(1)
        # A holder that is renewing or recording right now is alive: leave it alone.
        .with_for_update(skip_locked=True)
    ).one_or_none()


def _hold(transaction: Transaction, trial_id: int, token: int) -> None:
    transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id == trial_id)
        .values(
            state="held",
            worker_id=transaction.worker_id,
            token=token,
            claimed=sa.func.clock_timestamp(),
            renewed=sa.func.clock_timestamp(),
            expires=in_seconds(transaction.timing.lease),
        )
    )


def _next(transaction: Transaction, spec: Spec, proposal: Proposal | None) -> Answer:
    existing = _existing(transaction, spec)
    assignment = _assignment(transaction, spec, existing)
    if isinstance(assignment, Look):
        return NeedsLook(assignment)
    if assignment is None and all(one.ended for one in existing):
        return _complete_study(transaction)
    if not isinstance(assignment, Assignment):
        return Wait(WAITS[assignment])
    chosen = _chosen(transaction, spec, assignment)
    if chosen is None:
        if proposal is None or proposal.configuration != assignment.configuration:
            return NeedsProposal(assignment.configuration)
        chosen = Chosen(proposal.chosen)
    created = _create(transaction, spec, assignment, chosen)
    expected = _expected(transaction, assignment, existing)
    return Claimed(replace(created, expected_epochs=expected), adopted=False)


def _assignment(
    transaction: Transaction, spec: Spec, existing: Sequence[Existing]
) -> Assignment | Look | str | None:
    raced = spec.replicates.of == "top"
    study_id = transaction.study.study_id
    decided = read_decisions(transaction.connection, study_id) if raced else ()
    waits = _waits(transaction, existing)
    cells = _queued_cells(transaction.connection, transaction.study)
    if cells:
        # Somebody asked for these first: they do not wait for what a peer is training.
        first = frozenset(cells)
        return next_assignment(
            spec,
            existing,
            lambda assignment: assignment.configuration not in first and waits(assignment),
            decided,
            cells,
        )
    return next_assignment(spec, existing, waits, decided)


def _queued_cells(connection: sa.Connection, study: Study) -> list[int]:
    """Return the cells of a grid that were queued, in their order; of other studies none."""
    if study.spec.search.sampler != "grid":
        return []
    queue = read_queue(connection, study.study_id)
    return [queued.configuration for queued in queue if queued.configuration is not None]


@dataclass(frozen=True)
class Chosen:
    """The parameters of the next trial, and whether they come from the queue."""

    values: Mapping[str, Value]
    queued: Queued | None = None


def _chosen(transaction: Transaction, spec: Spec, assignment: Assignment) -> Chosen | None:
    """Return a configuration's parameters; None where a sampler that learns has to propose them.

    One that has begun has those of its other seeds. It need not have begun under seed 0: that
    trial may be waiting for epochs of a peer. One that has not takes the setting that was queued
    for it, or the first that waits in the queue.
    """
    known = transaction.connection.execute(
        sa.select(t.trial.c.chosen)
        .where(
            t.trial.c.study_id == transaction.study.study_id,
            t.trial.c.configuration == assignment.configuration,
        )
        .limit(1)
    ).scalar_one_or_none()
    if known is not None:
        return Chosen(known)
    if spec.search.sampler != "grid":
        queue = read_queue(transaction.connection, transaction.study.study_id)
        mine = [one for one in queue if one.configuration == assignment.configuration]
        waiting = [one for one in queue if one.configuration is None]
        for queued in (*mine, *waiting):
            return Chosen(queued.chosen, queued)
    if spec.search.sampler in sampling.LEARNING:
        return None
    return Chosen(sampling.choose(spec, assignment.configuration))


def _waits(transaction: Transaction, existing: Sequence[Existing]) -> Callable[[Assignment], bool]:
    """Return who should wait for epochs that a peer is training right now."""
    sharing = transaction.sharing
    running = [] if sharing is None else _running(transaction)
    if sharing is None or not running:
        return lambda _: False
    reached: dict[int, set[str]] = {}
    speeds = [
        runner.seconds_per_epoch for runner in running if runner.seconds_per_epoch is not None
    ]
    mean_seconds = sum(speeds) / len(speeds) if speeds else None

    def waits(assignment: Assignment) -> bool:
        peers = [runner for runner in running if runner.seed == assignment.seed]
        if not peers:
            return False
        if assignment.seed not in reached:
            reached[assignment.seed] = sharing.reached(_ended(existing, assignment.seed))
        stored = sharing.stored(assignment.configuration, reached[assignment.seed])
        return sharing.waits(assignment.configuration, stored, peers, mean_seconds)

    return waits


def _expected(
    transaction: Transaction, assignment: Assignment, existing: Sequence[Existing]
) -> int:
    """Return how many epochs a peer has just trained and may still be storing."""
    sharing = transaction.sharing
    if sharing is None:
        return 0
    ended = _ended([one for one in existing if one.fresh], assignment.seed)
    return sharing.stored(assignment.configuration, sharing.reached(ended))


def _ended(existing: Sequence[Existing], seed: int) -> list[int]:
    """Return the configurations whose curves are whole under a seed."""
    return [one.configuration for one in existing if one.seed == seed and one.complete]


def _running(transaction: Transaction) -> list[Runner]:
    rows = transaction.connection.execute(
        sa.select(
            t.trial.c.configuration,
            t.trial.c.seed,
            sa.func.count(t.epoch.c.epoch).label("done"),
            sa.func.avg(t.epoch.c.seconds).label("seconds"),
        )
        .select_from(
            t.trial.join(t.lease).outerjoin(t.epoch, t.epoch.c.trial_id == t.trial.c.trial_id)
        )
        .where(t.lease.c.study_id == transaction.study.study_id, t.lease.c.state != "ended")
        .group_by(t.trial.c.configuration, t.trial.c.seed)
    )
    return [Runner(row.configuration, row.seed, row.done, row.seconds) for row in rows]


def _existing(transaction: Transaction, spec: Spec) -> list[Existing]:
    """Return all trials in the order of their numbers; only the newest are read.

    To be called under the study's lock, as whatever opens trials again holds it too: the count
    of reopenings that is read here cannot be out of date when the trials are.
    """
    sign = 1.0 if METRICS[spec.search.metric] == "minimize" else -1.0
    value = _metric_value(spec)
    study_id, past = transaction.study.study_id, transaction.past
    reopenings = transaction.connection.execute(
        sa.select(t.study.c.reopenings).where(t.study.c.study_id == study_id)
    ).scalar_one()
    past.heed(reopenings, (spec.search.metric, spec.search.at, spec.replicates.of))
    fresh = t.outcome.c.ended > in_seconds(-FRESH_SECONDS)
    rows = transaction.connection.execute(
        sa.select(
            t.trial.c.number,
            t.trial.c.configuration,
            t.trial.c.seed,
            t.outcome.c.state,
            fresh.label("fresh"),
            value.label("value"),
        )
        .select_from(t.trial.outerjoin(t.outcome))
        .where(t.trial.c.study_id == study_id, t.trial.c.number >= past.floor)
        .order_by(t.trial.c.number)
    )
    newest: list[Existing] = []
    for row in rows:
        trial = Existing(
            row.configuration,
            row.seed,
            ended=row.state is not None,
            complete=row.state == "COMPLETE",
            fresh=bool(row.fresh),
            value=sign * row.value if row.state == "COMPLETE" and row.value is not None else None,
        )
        # In one piece from the first: a trial that still runs keeps all after it from being
        # remembered. Those are read again, which costs time and is as right.
        if trial.ended and not trial.fresh and not newest:
            past.trials.append(trial)
            past.floor = row.number + 1
        else:
            newest.append(trial)
    return [*past.trials, *newest]


def _metric_value(spec: Spec) -> sa.ColumnElement[Any]:
    """The study's metric of a trial: its best epoch's or its last epoch's."""
    if spec.replicates.of == "all":
        return sa.null()
    moment = t.outcome.c.best_epoch if spec.search.at == "best" else t.outcome.c.last_epoch
    return (
        sa.select(t.epoch.c[spec.search.metric])
        .where(t.epoch.c.trial_id == t.trial.c.trial_id, t.epoch.c.epoch == moment)
        .scalar_subquery()
    )


def _create(transaction: Transaction, spec: Spec, assignment: Assignment, origin: Chosen) -> Lease:
    chosen = sampling.in_file_order(spec, origin.values)
    if origin.queued is not None:
        # In the transaction that creates the trial: were it rolled back, the setting would wait on.
        study_id = transaction.study.study_id
        take(transaction.connection, study_id, origin.queued, assignment.configuration)
    trial_id, number = add_trial(
        transaction.connection,
        transaction.study.study_id,
        chosen,
        sampling.distributions(spec),
        {"seed": assignment.seed, "configuration": assignment.configuration},
    )
    transaction.connection.execute(
        sa.insert(t.trial).values(
            trial_id=trial_id,
            study_id=transaction.study.study_id,
            number=number,
            configuration=assignment.configuration,
            seed=assignment.seed,
            chosen=chosen,
        )
    )
    transaction.connection.execute(
        sa.insert(t.lease).values(
            trial_id=trial_id,
            study_id=transaction.study.study_id,
            state="held",
            worker_id=transaction.worker_id,
            token=1,
            expires=in_seconds(transaction.timing.lease),
        )
    )
    transaction.tell("created", f"trial {number}", trial_id)
    return _lease(transaction, trial_id, 1)


def _lease(transaction: Transaction, trial_id: int, token: int) -> Lease:
    # Read back from the database, not from memory: what is stored is what is trained.
    row = transaction.connection.execute(
        sa.select(
            t.trial,
            sa.select(sa.func.count())
            .where(t.epoch.c.trial_id == t.trial.c.trial_id)
            .scalar_subquery()
            .label("epochs"),
            t.lease.c.interruptions,
            t.lease.c.strikes,
        )
        .select_from(t.trial.join(t.lease))
        .where(t.trial.c.trial_id == trial_id)
    ).one()
    spec = transaction.study.spec
    return Lease(
        trial_id=trial_id,
        number=row.number,
        configuration=row.configuration,
        seed=row.seed,
        chosen=sampling.in_file_order(spec, row.chosen),
        token=token,
        stored_epochs=row.epochs,
        alone=row.interruptions + row.strikes > 0,
    )


def _complete_study(transaction: Transaction) -> Ended:
    _close(transaction, "complete", "")
    return Ended("complete", "")


def _stop_for_hours(transaction: Transaction, spec: Spec) -> Ended:
    reason = f"The budget of {spec.budget.hours:g} worker hours is spent."
    _close(transaction, "stopped", reason)
    return Ended("stopped", reason)


def _close(transaction: Transaction, state: str, reason: str) -> None:
    changed = transaction.connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == transaction.study.study_id, t.study.c.state == "open")
        .values(state=state, reason=reason)
    )
    if changed.rowcount:
        transaction.tell(state, reason)
