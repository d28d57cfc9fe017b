"""Claiming a trial: adopt an orphan, resume a paused one, create the next one, wait, or end."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tuner.records import Value
from tuner.spec.search import SAMPLERS
from tuner.spec.study import Spec
from tuner.store import sampling
from tuner.store import tables as t
from tuner.store.ledger import endings, grants
from tuner.store.ledger.assignments import (
    LOOK_AHEAD,
    PENDING,
    RACING,
    WAITING,
    Assignment,
    Existing,
    next_assignment,
    then,
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
    StudyState,
    Wait,
)
from tuner.store.ledger.looks import Decided, Look
from tuner.store.ledger.promotion import Climb, Ladder, Rung, Stretch
from tuner.store.ledger.reuse import Runner
from tuner.store.ledger.transactions import Past, Transaction, in_seconds
from tuner.store.optuna_storage import add_trial
from tuner.store.queue import Queued, read_queue, take
from tuner.store.races import insert_decision, read_decisions
from tuner.store.spending import epochs_spent, exhausted
from tuner.store.studies import Study, read_spec

FRESH_SECONDS = 15.0
YIELDS = 3
"""After this many interruptions in a row, new trials go first: this one may be killing workers."""
OUT = "the last epochs of the budget are being trained"
WAITS = {
    None: "the last trials are running",
    PENDING: "the contenders are chosen when the exploration has ended",
    RACING: "the contenders are compared when their current trials have ended",
    WAITING: "peers are training the next epochs",
}


@dataclass(frozen=True)
class StudyAsFound:
    """The state of a study and its worker at the start of a claim."""

    state: StudyState
    reason: str
    fingerprint: str = ""
    queued: bool = False
    """Whether any setting was ever queued."""
    held: tuple[int, int] | None = None
    """Trial and token of a lease that the worker holds without knowing: its claim's answer was
    lost."""
    orphans: bool = False
    """Whether there are trials without a worker, be it one that has only fallen silent."""
    cut: bool = False
    """Whether there are trials that a budget in epochs has paused."""


def claim(
    transaction: Transaction,
    proposal: Proposal | None,
    *,
    adopt: bool,
    company: Company | None = None,
) -> Answer:
    """Give the worker a trial to train, or say why there is none.

    A worker that already trains a pack gets a trial of the same kind or none, and never more
    than its share.
    """
    # From here to commit no other worker counts or creates trials: the count below and
    # the creation are one transaction, so the budget is exact.
    transaction.lock_study()
    standing = _standing(transaction, company)
    if standing.state != "open":
        return Ended(standing.state, standing.reason)
    if standing.held is not None:
        return Claimed(_lease(transaction, *standing.held), adopted=False)
    spec = _spec(transaction, standing)
    if spent := exhausted(transaction.connection, transaction.study.study_id, spec.budget):
        return _end_spent(transaction, spec, standing, spent)
    budget = grants.left(transaction, spec)
    left = None if budget is None else budget.free
    out = left is not None and left <= 0
    if company is not None:
        return Wait(OUT) if out else _companion(transaction, spec, standing, company, left, adopt)
    # Chosen trials, to which the rest may be promised, are taken over before all others.
    any_left = budget is None or sum(budget) > 0
    orphans = Orphans(without_epochs=any_left, expired=adopt)
    # Out of epochs there are no new trials that an often interrupted one could yield to.
    below = None if out else YIELDS
    # Peers wait for the study's lock, so what `standing` has not seen is not looked for. Where
    # epochs are limited it is: a trial that was given back since must not be missed, because what
    # comes next may end the study.
    seek = standing.orphans or left is not None
    if seek and (adopted := _adopt(transaction, spec, orphans, below=below)):
        return Claimed(adopted, adopted=True)
    if out:
        answer = _out_of_epochs(transaction, spec, standing)
    elif (cut := _cut(transaction, standing, left)) is not None:
        return _go_on(transaction, spec, cut, left)
    else:
        answer = _next(transaction, spec, standing, proposal, left)
    if isinstance(answer, Wait) and seek:
        adopted = _adopt(transaction, spec, orphans, below=None)
        if adopted is not None:
            return Claimed(adopted, adopted=True)
    return answer


def _companion(  # noqa: PLR0917
    transaction: Transaction,
    spec: Spec,
    standing: StudyAsFound,
    company: Company,
    left: int | None,
    adopt: bool,
) -> Answer:
    """Give a trial to train beside these: a released one, a paused one, or the next new one."""
    if len(company.held) >= _share(transaction, spec):
        return Wait("the remaining trials are for other workers")
    orphan = None
    if standing.orphans:
        orphan = _orphan(transaction, Orphans(expired=adopt), below=YIELDS)
    if orphan is not None:
        # A trial that must be trained alone, or by another worker, must not starve because this
        # pack is always refilled. So the pack drains, and the next claim adopts the trial.
        lease = _lease(transaction, orphan.trial_id, orphan.token + 1)
        if lease.alone or orphan.state == "held" or not company.fits(lease.chosen, lease.seed):
            return Wait("an unfinished trial goes first")
        grants.regrant(transaction, spec, orphan.trial_id, lost=False)
        _hold(transaction, orphan.trial_id, lease.token)
        transaction.add_event("adopted", f"from worker {orphan.worker_id}", lease.trial_id)
        _tell_joined(transaction, company, lease)
        return Claimed(_lease(transaction, lease.trial_id, lease.token), adopted=True)
    if (cut := _cut(transaction, standing, left)) is not None:
        return _go_on(transaction, spec, cut, left, company)
    assignment = _assignment(transaction, spec, standing)
    if isinstance(assignment, Stretch):
        return _resumed(transaction, spec, assignment, left, company)
    # If a sampler or a race must decide first, that is left to a worker without trials.
    chosen = (
        _chosen(transaction, spec, assignment, standing)
        if isinstance(assignment, Assignment)
        else None
    )
    if not isinstance(assignment, Assignment) or chosen is None:
        return Wait("the next trial is not decided yet")
    if not company.fits(sampling.in_file_order(spec, chosen.values), assignment.seed):
        return Wait("the next trial is of another kind")
    # No waiting for a checkpoint: the pack's other trials would wait too.
    created = _create(transaction, spec, assignment, chosen, left)
    _tell_joined(transaction, company, created)
    return Claimed(created, adopted=False)


def _tell_joined(transaction: Transaction, company: Company, joining: Lease) -> None:
    beside = ", ".join(str(lease.number) for lease in company.held)
    transaction.add_event("joined", f"trained together with {beside}", joining.trial_id)


def _share(transaction: Transaction, spec: Spec) -> int:
    """Return how many of the unfinished trials one worker may hold at a time."""
    here = t.lease.c.study_id == transaction.study.study_id
    # Counts open trials, which are few and have a partial index, rather than the many ended ones.
    unfinished = sa.select(sa.func.count()).where(here, t.lease.c.state != "ended")
    begun, open_trials = transaction.connection.execute(
        sa.select(_next_number(transaction), unfinished.scalar_subquery())
    ).one()
    left = spec.total_trials - int(begun) + int(open_trials)
    return -(-left // max(1, _peers(transaction)))


def configurations_ahead(connection: sa.Connection, study: Study, past: Past) -> list[int]:
    """Return the configurations that a claim will look at: the started ones and the next ones.

    Started configurations that an earlier call returned are left out.
    """
    # Numbers are assigned under the study's lock, so none is missing below the largest one seen.
    rows = connection.execute(
        sa.select(t.trial.c.number, t.trial.c.configuration).where(
            t.trial.c.study_id == study.study_id, t.trial.c.number >= past.seen
        )
    ).all()
    past.seen = max((row.number + 1 for row in rows), default=past.seen)
    begun = {row.configuration for row in rows} - past.begun
    past.begun |= begun
    # The spec as of when the worker joined. If the study was extended or deleted since, the claim
    # notices, because it reads the study again.
    spec = study.spec
    order = dict.fromkeys([*_queued_cells(connection, study), *range(spec.configurations)])
    new = (index for index in order if index not in past.begun)
    return [*begun, *islice(new, LOOK_AHEAD)]


def decide(transaction: Transaction, decided: Decided) -> bool:
    """Store the decision of a look; return whether this call stored it.

    The first writer wins. Nothing is stored either if the decision is out of date because a trial
    was retried or the study extended meanwhile.
    """
    # Under the lock of claims, so that no trial is created or reopened in between.
    transaction.lock_study()
    standing = _standing(transaction)
    if standing.state != "open":
        return False
    spec = _spec(transaction, standing)
    if _due(transaction, spec, _existing(transaction, spec)) != decided.look:
        return False
    insert_decision(transaction.connection, transaction.study.study_id, decided)
    transaction.add_event("looked", _summary(decided))
    return True


def _summary(decided: Decided) -> str:
    left = len(decided.look.racing) - len(decided.dropped)
    dropped = ", ".join(map(str, decided.dropped))
    who = "none" if not decided.dropped else f"configuration {dropped}"
    return f"after seed {decided.look.rounds}: eliminated {who}; {left} contenders left"


def _due(transaction: Transaction, spec: Spec, existing: Sequence[Existing]) -> Look | None:
    decided = read_decisions(transaction.connection, transaction.study.study_id)
    climb = _climb(transaction, spec)
    due = next_assignment(spec, existing, decided=decided, climb=climb)
    return due if isinstance(due, Look) else None


def _standing(transaction: Transaction, company: Company | None = None) -> StudyAsFound:
    """Read the state of the study and of the worker that a claim starts from, in one statement."""
    present = (
        sa.exists()
        .where(t.worker.c.worker_id == transaction.worker_id, t.worker.c.ended.is_(None))
        .where(t.worker.c.study_id == t.study.c.study_id)
    )
    queued = sa.exists().where(t.queued.c.study_id == t.study.c.study_id)

    def lease_exists(condition: sa.ColumnElement[bool]) -> sa.Exists:
        return sa.exists().where(t.lease.c.study_id == t.study.c.study_id, condition)

    known = [lease.trial_id for lease in company.held] if company else []
    held = (
        sa.select(t.lease.c.trial_id, t.lease.c.token)
        .where(
            t.lease.c.study_id == transaction.study.study_id,
            t.lease.c.worker_id == transaction.worker_id,
            t.lease.c.state == "held",
            t.lease.c.trial_id.not_in(known),
        )
        .order_by(t.lease.c.trial_id)
        .limit(1)
        .subquery()
    )
    row = transaction.connection.execute(
        sa.select(
            t.study.c.state,
            t.study.c.reason,
            t.study.c.fingerprint,
            present.label("present"),
            queued.label("queued"),
            lease_exists(_free(Orphans(expired=True))).label("orphans"),
            lease_exists(grants.CUT).label("cut"),
            held,
        )
        .select_from(t.study.outerjoin(held, sa.true()))
        .where(t.study.c.study_id == transaction.study.study_id)
    ).one_or_none()
    if row is None:
        return StudyAsFound("stopped", "The study was deleted.")
    if not row.present:
        # After a restore, this id may even belong to a different study.
        return StudyAsFound(
            "stopped",
            "The database was restored and does not know this worker: start the worker again.",
        )
    lease = None if row.trial_id is None else (row.trial_id, row.token)
    return StudyAsFound(
        row.state, row.reason, row.fingerprint, row.queued, lease, row.orphans, row.cut
    )


def _spec(transaction: Transaction, standing: StudyAsFound) -> Spec:
    """Return the study's spec as stored now: a launch may have extended it meanwhile."""
    if standing.fingerprint == transaction.study.fingerprint:
        return transaction.study.spec
    return read_spec(transaction.connection, transaction.study)


@dataclass(frozen=True)
class Orphans:
    """Which trials without a worker a claim may take over."""

    without_epochs: bool = True
    """Trials released before their first epoch was stored; none if the budget has no epochs left.
    A trial with stored epochs needs no more: granted these, it completes or pauses there."""
    expired: bool = False
    """Trials whose worker no longer responds; the successor inherits the granted epochs."""


def _adopt(
    transaction: Transaction, spec: Spec, orphans: Orphans, *, below: int | None
) -> Lease | None:
    """Take over a trial without a worker under its next token.

    If `below` is given, only a trial interrupted fewer than `below` times in a row.
    """
    while (row := _orphan(transaction, orphans, below=below)) is not None:
        grants.regrant(transaction, spec, row.trial_id, lost=row.state == "held")
        # Take the next token first, even if the trial ends here: its silent holder may only be
        # slow, and must be fenced off.
        _hold(transaction, row.trial_id, row.token + 1)
        if row.state == "held":
            # Its worker or machine died, was cut off or slept. The trial is probably not to blame,
            # so this does not count as a failed attempt.
            transaction.add_event(
                "lost", f"worker {row.worker_id} stopped responding", row.trial_id
            )
            why = endings.count_interruption(transaction, row.trial_id, row.worker_id)
            if why is not None:
                endings.fail_for_good(transaction, row.trial_id, row.token + 1, why)
                continue
        transaction.add_event("adopted", f"from worker {row.worker_id}", row.trial_id)
        return _lease(transaction, row.trial_id, row.token + 1)
    return None


def _orphan(transaction: Transaction, orphans: Orphans, *, below: int | None) -> sa.Row[Any] | None:
    return transaction.connection.execute(
        sa.select(t.lease)
        .where(
            t.lease.c.study_id == transaction.study.study_id,
            _free(orphans),
            sa.true() if below is None else t.lease.c.interruptions < below,
        )
        .order_by(
            # Trials that a person chose come first: the budget reserves epochs for them.
            sa.desc(grants.is_chosen()),
            t.lease.c.strikes + t.lease.c.interruptions,
            t.lease.c.trial_id,
        )
        .limit(1)
        # Skip locked rows: their holders are renewing or recording right now, so they are alive.
        .with_for_update(skip_locked=True)
    ).one_or_none()


def _free(orphans: Orphans) -> sa.ColumnElement[bool]:
    free = t.lease.c.state == "released"
    if not orphans.without_epochs:
        free &= sa.exists().where(t.epoch.c.trial_id == t.lease.c.trial_id)
    if orphans.expired:
        # By the server's clock: a worker's may be an hour off.
        free |= (t.lease.c.state == "held") & (t.lease.c.expires < sa.func.clock_timestamp())
    return free


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
            checkpoint=None,
        )
    )


def _next(
    transaction: Transaction,
    spec: Spec,
    standing: StudyAsFound,
    proposal: Proposal | None,
    left: int | None,
) -> Answer:
    assignment = _assignment(transaction, spec, standing)
    if isinstance(assignment, Look):
        return NeedsLook(assignment)
    if isinstance(assignment, Stretch):
        return _resumed(transaction, spec, assignment, left)
    if assignment is None and not _any_open(transaction):
        return _complete_study(transaction)
    if not isinstance(assignment, Assignment):
        return Wait(WAITS[assignment], _peers(transaction))
    chosen = _chosen(transaction, spec, assignment, standing)
    if chosen is None:
        if proposal is None or proposal.configuration not in {None, assignment.configuration}:
            return NeedsProposal(assignment.configuration)
        chosen = Chosen(proposal.chosen)
    created = _create(transaction, spec, assignment, chosen, left)
    expected = _expected(transaction, assignment)
    return Claimed(replace(created, expected_epochs=expected), adopted=False)


def _any_open(transaction: Transaction) -> bool:
    """Return whether a trial is in training, or waits to be taken over or resumed."""
    here = t.lease.c.study_id == transaction.study.study_id
    open_one = sa.exists().where(here, t.lease.c.state.in_(["held", "released"]) | grants.CUT)
    return bool(transaction.connection.execute(sa.select(open_one)).scalar_one())


def _peers(transaction: Transaction) -> int:
    """Return how many workers of the study are alive, this one included."""
    here = t.worker.c.study_id == transaction.study.study_id
    # A worker that died has no `ended`, so its `seen` decides.
    present = t.worker.c.ended.is_(None) & (t.worker.c.seen > in_seconds(-transaction.timing.lease))
    count = sa.select(sa.func.count()).select_from(t.worker).where(here, present)
    return int(transaction.connection.execute(count).scalar_one())


def _out_of_epochs(transaction: Transaction, spec: Spec, standing: StudyAsFound) -> Answer:
    """End a study whose budget in epochs is used up; wait if trials may still leave some over."""
    if grants.any_in_training(transaction):
        return Wait(OUT, _peers(transaction))
    # A trial given back takes no lock of the study. If that was committed after this claim looked
    # for such trials, nothing is in training any more, and its epochs are free again.
    left = grants.left(transaction, spec)
    if left is not None and sum(left) > 0:
        return Wait(OUT)
    assignment = _assignment(transaction, spec, standing)
    if isinstance(assignment, Look):
        # A look costs no epochs, and may be all that the study still lacks.
        return NeedsLook(assignment)
    return _end_spent(transaction, spec, standing, epochs_spent(spec))


def _cut(transaction: Transaction, standing: StudyAsFound, left: int | None) -> sa.Row[Any] | None:
    """Return the first trial that was paused because the budget ran out of epochs."""
    # With a limit a peer may have paused one since, and left others the epochs to go on.
    if left is None and not standing.cut:
        return None
    return transaction.connection.execute(
        sa.select(
            t.trial,
            t.lease.c.token,
            grants.rung().label("rung"),
            sa.select(sa.func.count())
            .where(t.epoch.c.trial_id == t.trial.c.trial_id)
            .scalar_subquery()
            .label("epochs"),
        )
        .select_from(t.trial.join(t.lease))
        .where(t.lease.c.study_id == transaction.study.study_id, grants.CUT)
        .order_by(t.trial.c.trial_id)
        .limit(1)
    ).one_or_none()


def _go_on(
    transaction: Transaction,
    spec: Spec,
    cut: sa.Row[Any],
    left: int | None,
    company: Company | None = None,
) -> Answer:
    """Resume a trial that the budget paused, within its stretch, so that no decision is needed."""
    chosen = sampling.in_file_order(spec, cut.chosen)
    if company is not None and not company.fits(chosen, cut.seed):
        return Wait("a paused trial of another kind goes first")
    end = spec.length(chosen) if cut.rung is None else cut.rung
    granted = grants.reach(cut.epochs, end, left)
    lease = _wake(transaction, cut, granted)
    transaction.add_event("continued", f"from epoch {cut.epochs}", cut.trial_id)
    if company is not None:
        _tell_joined(transaction, company, lease)
    return Claimed(lease, adopted=False)


def _wake(transaction: Transaction, paused: sa.Row[Any], granted: int | None) -> Lease:
    """Lease a paused trial to this worker."""
    transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id == paused.trial_id)
        .values(stretches=t.lease.c.stretches + 1, granted=granted)
    )
    _hold(transaction, paused.trial_id, paused.token + 1)
    # After the lease's row, because this locks the study's (see the order in `ledger`).
    endings.resume(transaction, [paused.trial_id])
    return _lease(transaction, paused.trial_id, paused.token + 1)


def _resumed(
    transaction: Transaction,
    spec: Spec,
    stretch: Stretch,
    left: int | None,
    company: Company | None = None,
) -> Answer:
    """Resume a paused trial, unless it does not fit the trials that the worker is training.

    The study's lock is held from reading the data of the decision until the commit, so no other
    claim decides by the same state. In addition, only one stretch of a trial can begin at an epoch.
    """
    row = transaction.connection.execute(
        sa.select(t.trial, t.lease.c.token)
        .select_from(t.trial.join(t.lease))
        .where(t.trial.c.study_id == transaction.study.study_id, t.trial.c.number == stretch.number)
    ).one()
    chosen = sampling.in_file_order(spec, row.chosen)
    if company is not None and not company.fits(chosen, row.seed):
        return Wait("a paused trial of another kind goes first")
    rung = _rung(spec, chosen, stretch)
    _give(transaction, row.trial_id, stretch, rung)
    end = spec.length(chosen) if rung is None else rung
    lease = _wake(transaction, row, grants.reach(stretch.start, end, left))
    reached = stretch.saw["rungs"][str(stretch.start)]["reached"]
    transaction.add_event(
        stretch.why,
        f"from epoch {stretch.start}, where it ranks {stretch.saw['rank']} of {reached}",
        row.trial_id,
    )
    if company is not None:
        _tell_joined(transaction, company, lease)
    return Claimed(lease, adopted=False)


def choose(transaction: Transaction, starts: Mapping[int, int]) -> None:
    """Release paused trials, to be trained from these epochs to completion by the next claims.

    A decision like the others, made by a person under the study's lock. Like trials that were given
    back, they are claimed first, and that does not count as another attempt.
    """
    if not starts:
        return
    saw = {"who": transaction.who}
    given = insert(t.stretch).values(
        [
            {"trial_id": trial_id, "start": start, "why": "chosen", "saw": saw}
            for trial_id, start in starts.items()
        ]
    )
    transaction.connection.execute(
        given.on_conflict_do_update(
            # A trial may have lost epochs on another machine after a stretch had begun, and been
            # paused again where it began. Its place in the order is that of the new decision.
            index_elements=[t.stretch.c.trial_id, t.stretch.c.start],
            set_={
                "stretch_id": sa.text("DEFAULT"),
                "until": None,
                "why": given.excluded.why,
                "saw": given.excluded.saw,
                "made": sa.func.clock_timestamp(),
            },
        )
    )
    transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id.in_(starts))
        .values(state="released", stretches=t.lease.c.stretches + 1, granted=None)
    )
    # After the leases' rows, because this locks the study's.
    endings.resume(transaction, [*starts])
    for trial_id, start in starts.items():
        text = f"to be trained to completion, from epoch {start}"
        transaction.add_event("chosen", text, trial_id)


def _rung(spec: Spec, chosen: Mapping[str, Value], stretch: Stretch) -> int | None:
    """Return the rung at which a stretch of training ends; None at the trial's end."""
    ladder = Ladder.of(spec)
    assert ladder is not None
    return ladder.until(stretch.start, spec.length(chosen))


def _give(transaction: Transaction, trial_id: int, stretch: Stretch, rung: int | None) -> None:
    """Store a decision before it takes effect."""
    transaction.connection.execute(
        sa.insert(t.stretch).values(
            trial_id=trial_id,
            start=stretch.start,
            until=rung,
            why=stretch.why,
            saw=dict(stretch.saw),
        )
    )


def _climb(transaction: Transaction, spec: Spec) -> Climb | None:
    """Return how far the trials have got in a study in which trials pause.

    The server counts: of ten thousand trials, only a few rows are read.
    """
    ladder = Ladder.of(spec)
    if ladder is None:
        return None
    connection = transaction.connection
    here = t.trial.c.study_id == transaction.study.study_id
    given = t.trial.join(t.lease).join(t.stretch, t.stretch.c.trial_id == t.trial.c.trial_id)
    finishing = (
        # Distinct: a trial paused by the budget and then chosen has two stretches to its end.
        sa.select(sa.func.count(t.trial.c.trial_id.distinct()))
        .select_from(given)
        .where(
            here,
            t.trial.c.seed == 0,
            t.lease.c.state.in_(["held", "released"]),
            t.stretch.c.until.is_(None),
        )
    )
    last_turn = (
        sa.select(t.stretch.c.start)
        .select_from(given)
        .where(here, t.stretch.c.why == "in turn")
        .order_by(t.stretch.c.stretch_id.desc())
        .limit(1)
    )
    complete = (
        sa.select(sa.func.count())
        .select_from(t.trial.join(t.outcome))
        .where(here, t.trial.c.seed == 0, t.outcome.c.state == "COMPLETE")
    )
    row = connection.execute(
        sa.select(
            complete.scalar_subquery().label("complete"),
            finishing.scalar_subquery().label("finishing"),
            last_turn.scalar_subquery().label("last_turn"),
        )
    ).one()
    return Climb(
        ladder,
        complete=row.complete,
        finishing=row.finishing,
        last_turn=row.last_turn,
        counted=_rungs(transaction, spec),
    )


def _rungs(transaction: Transaction, spec: Spec) -> dict[int, Rung]:
    """Return every rung that a trial has reached, as `promotion.rungs_of` would."""
    value = t.rung.c.value if spec.direction == "minimize" else -t.rung.c.value
    # PostgreSQL sorts NaN after every number, as the rule does.
    worse = sa.case(
        (t.rung.c.value == sa.text("'NaN'::float8"), sa.text("'Infinity'::float8")), else_=value
    )
    # A trial that a person chose for completion promotes no other at the rungs that it passes.
    passed = sa.exists().where(
        t.stretch.c.trial_id == t.rung.c.trial_id,
        t.stretch.c.why == "chosen",
        t.stretch.c.start < t.rung.c.epoch,
    )
    reached = (
        sa.select(
            t.trial.c.number,
            t.rung.c.epoch,
            sa.func.row_number()
            .over(partition_by=t.rung.c.epoch, order_by=(worse, t.trial.c.number))
            .label("rank"),
            (
                # A trial paused by the budget is on its way to the next rung.
                (t.lease.c.state == "paused")
                & t.lease.c.granted.is_(None)
                & (
                    t.rung.c.epoch
                    == sa.func.max(t.rung.c.epoch).over(partition_by=t.rung.c.trial_id)
                )
            ).label("rests"),
        )
        .select_from(t.trial.join(t.lease).join(t.rung, t.rung.c.trial_id == t.trial.c.trial_id))
        .where(t.trial.c.study_id == transaction.study.study_id, ~passed)
        .cte("reached")
    )
    first = sa.func.min(reached.c.rank).filter(reached.c.rests)
    counted = (
        sa.select(
            reached.c.epoch,
            sa.func.count().label("reached"),
            sa.func.count().filter(reached.c.rests).label("paused"),
            first.label("rank"),
        )
        .group_by(reached.c.epoch)
        .subquery()
    )
    best = reached.alias()
    rows = transaction.connection.execute(
        sa.select(counted, best.c.number).select_from(
            counted.outerjoin(
                best, (best.c.epoch == counted.c.epoch) & (best.c.rank == counted.c.rank)
            )
        )
    )
    return {row.epoch: Rung(row.reached, row.paused, row.number, row.rank or 0) for row in rows}


def _assignment(
    transaction: Transaction, spec: Spec, standing: StudyAsFound
) -> Assignment | Stretch | Look | str | None:
    """Return the next assignment.

    It usually follows from which cells exist. A race and promotions also depend on the results of
    trials, and a queue of cells changes their order: then all trials are read.
    """
    cells = _queued_cells(transaction.connection, transaction.study) if standing.queued else []
    raced = spec.replicates.of == "top"
    if not (raced or cells):
        # No trial need be read. If trials pause, each cell has one seed.
        climb = _climb(transaction, spec)
        if climb is not None and (promoted := climb.promotion()) is not None:
            return promoted
        return then(_first_free(transaction, spec), climb)
    existing = _existing(transaction, spec)
    first = frozenset(cells)
    decided = read_decisions(transaction.connection, transaction.study.study_id) if raced else ()
    waits = _Waits(transaction)
    return next_assignment(
        spec,
        existing,
        # Queued cells were asked for explicitly: they do not wait for a peer's epochs.
        lambda assignment: assignment.configuration not in first and waits(assignment),
        decided,
        cells,
        climb=_climb(transaction, spec),
    )


def _first_free(transaction: Transaction, spec: Spec) -> Assignment | str | None:
    """Return the first free cell that need not wait for a peer's epochs."""
    waits = _Waits(transaction)
    waiting = False
    for assignment in islice(_free_cells(transaction, spec), LOOK_AHEAD):
        if not waits(assignment):
            return assignment
        waiting = True
    return WAITING if waiting else None


def _free_cells(transaction: Transaction, spec: Spec) -> Iterator[Assignment]:
    """Yield the free cells, those without a trial, in the order in which they are assigned.

    Trials are numbered from 0, and each has its own cell. If the position of the last occupied cell
    equals the highest number, no cell is missing before it, and the next one follows it; this costs
    the same for any number of trials. Otherwise (a cell was skipped because it waits, or the study
    was extended) the cells from the first missing one on are read.
    """
    configurations = spec.configurations
    of_study = t.trial.c.study_id == transaction.study.study_id
    last = sa.select(t.trial.c.seed, t.trial.c.configuration).where(of_study)
    last = last.order_by(t.trial.c.seed.desc(), t.trial.c.configuration.desc()).limit(1)
    row = transaction.connection.execute(
        last.add_columns(_next_number(transaction).label("trials"))
    ).one_or_none()
    past, total = transaction.past, spec.total_trials
    if row is None or row.seed * configurations + row.configuration + 1 == row.trials:
        after = 0 if row is None else row.trials
        yield from (_cell(place, configurations) for place in range(after, total))
        return
    first = past.first_free(configurations)
    begin = _cell(first, configurations)
    taken = {
        row.seed * configurations + row.configuration
        for row in transaction.connection.execute(
            sa.select(t.trial.c.seed, t.trial.c.configuration).where(
                of_study,
                sa.tuple_(t.trial.c.seed, t.trial.c.configuration)
                >= sa.tuple_(begin.seed, begin.configuration),
            )
        )
    }
    while first in taken:
        first += 1
    past.keep_first_free(first, configurations)
    yield from (_cell(p, configurations) for p in range(first, total) if p not in taken)


def _cell(place: int, configurations: int) -> Assignment:
    """Return a cell by its place: all configurations under seed 0, then under seed 1, and so on."""
    return Assignment(place % configurations, place // configurations)


def _next_number(transaction: Transaction) -> sa.ScalarSelect[int]:
    """Return the number of the next trial, which is also how many there are: it has no gaps."""
    return (
        sa.select(sa.func.coalesce(sa.func.max(t.trial.c.number) + 1, 0))
        .where(t.trial.c.study_id == transaction.study.study_id)
        .scalar_subquery()
    )


def _queued_cells(connection: sa.Connection, study: Study) -> list[int]:
    """Return the queued cells of a grid, in order; none for other studies."""
    if study.spec.search.sampler != "grid":
        return []
    queue = read_queue(connection, study.study_id)
    return [queued.configuration for queued in queue if queued.configuration is not None]


@dataclass(frozen=True)
class Chosen:
    """The parameters of the next trial, and whether they come from the queue."""

    values: Mapping[str, Value]
    queued: Queued | None = None


def _chosen(
    transaction: Transaction, spec: Spec, assignment: Assignment, standing: StudyAsFound
) -> Chosen | None:
    """Return a configuration's parameters; None if a learning sampler has to propose them.

    A configuration that has started keeps the parameters of its other seeds; not necessarily of
    seed 0, which may be waiting for a peer's epochs. One that has not started gets the setting
    queued for it, or the first one in the queue.
    """
    stored = transaction.connection.execute(
        sa.select(t.trial.c.chosen)
        .where(
            t.trial.c.study_id == transaction.study.study_id,
            t.trial.c.configuration == assignment.configuration,
        )
        .limit(1)
    ).scalar_one_or_none()
    if stored is not None:
        return Chosen(stored)
    if spec.search.sampler != "grid" and standing.queued:
        queue = read_queue(transaction.connection, transaction.study.study_id)
        mine = [entry for entry in queue if entry.configuration == assignment.configuration]
        waiting = [entry for entry in queue if entry.configuration is None]
        for queued in (*mine, *waiting):
            return Chosen(queued.chosen, queued)
    if SAMPLERS[spec.search.sampler].learns:
        return None
    return Chosen(sampling.choose(spec, assignment.configuration))


class _Waits:
    """Whether an assignment should wait for a peer's epochs.

    Only settings that share their first epoch can share any. So nothing is read for a setting
    without such relatives, and otherwise only the relatives' trials under the same seed.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._families: dict[tuple[frozenset[int], int], tuple[list[Runner], set[str]]] = {}

    def __call__(self, assignment: Assignment) -> bool:
        sharing = self._transaction.sharing
        if sharing is None:
            return False
        relatives = sharing.relatives(assignment.configuration)
        if len(relatives) < 2:
            return False
        family = relatives, assignment.seed
        if family not in self._families:
            running = _running(self._transaction, *family)
            ended = _complete(self._transaction, *family) if running else []
            self._families[family] = running, sharing.reached(ended)
        running, reached = self._families[family]
        speeds = [one.seconds_per_epoch for one in running if one.seconds_per_epoch is not None]
        mean_seconds = sum(speeds) / len(speeds) if speeds else None
        stored = sharing.stored(assignment.configuration, reached)
        return sharing.waits(assignment.configuration, stored, running, mean_seconds)


def _expected(transaction: Transaction, assignment: Assignment) -> int:
    """Return how many epochs a peer has just trained and may still be saving."""
    sharing = transaction.sharing
    if sharing is None:
        return 0
    relatives = sharing.relatives(assignment.configuration)
    if len(relatives) < 2:
        return 0
    fresh = t.outcome.c.ended > in_seconds(-FRESH_SECONDS)
    ended = _complete(transaction, relatives, assignment.seed, fresh)
    return sharing.stored(assignment.configuration, sharing.reached(ended))


def _complete(
    transaction: Transaction,
    configurations: Collection[int],
    seed: int,
    *where: sa.ColumnElement[bool],
) -> list[int]:
    """Return which of these configurations are complete under a seed."""
    rows = transaction.connection.execute(
        sa.select(t.trial.c.configuration)
        .select_from(t.trial.join(t.outcome))
        .where(
            t.trial.c.study_id == transaction.study.study_id,
            t.trial.c.seed == seed,
            t.trial.c.configuration.in_(configurations),
            t.outcome.c.state == "COMPLETE",
            *where,
        )
    )
    return list(rows.scalars())


def _running(transaction: Transaction, configurations: Collection[int], seed: int) -> list[Runner]:
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
        .where(
            t.lease.c.study_id == transaction.study.study_id,
            t.lease.c.state != "ended",
            t.trial.c.seed == seed,
            t.trial.c.configuration.in_(configurations),
        )
        .group_by(t.trial.c.configuration, t.trial.c.seed)
    )
    return [Runner(row.configuration, row.seed, row.done, row.seconds) for row in rows]


def _existing(transaction: Transaction, spec: Spec) -> list[Existing]:
    """Return all trials by number; only the newest are read from the database.

    Call it under the study's lock. Reopening trials takes the same lock, so no trial can be
    reopened between reading the count of reopenings and reading the trials.
    """
    sign = 1.0 if spec.direction == "minimize" else -1.0
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
            (t.lease.c.state == "paused").label("paused"),
            fresh.label("fresh"),
            value.label("value"),
        )
        .select_from(
            t.trial.join(t.lease).outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
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
            paused=row.paused,
            value=sign * row.value if row.state == "COMPLETE" and row.value is not None else None,
        )
        # Cache an unbroken range from trial 0 on. Trials after one that still runs are read again
        # each time, which is slower but just as correct.
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
        sa.select(t.figure(t.epoch, spec.search.metric))
        .where(t.epoch.c.trial_id == t.trial.c.trial_id, t.epoch.c.epoch == moment)
        .scalar_subquery()
    )


def _create(
    transaction: Transaction,
    spec: Spec,
    assignment: Assignment,
    origin: Chosen,
    left: int | None,
) -> Lease:
    chosen = sampling.in_file_order(spec, origin.values)
    if origin.queued is not None:
        # In the transaction that creates the trial: if it is rolled back, the setting stays queued.
        study_id = transaction.study.study_id
        take(transaction.connection, study_id, origin.queued, assignment.configuration)
    trial_id, number = add_trial(
        transaction.connection,
        transaction.study.study_id,
        chosen,
        sampling.distributions(spec),
        {"seed": assignment.seed, "configuration": assignment.configuration},
        number=_next_number(transaction),
    )
    rung, granted = None, None
    begun = Stretch(number, 0, "begun", assignment.saw)
    # Further seeds are for the race, which compares complete trials, so they have no rungs.
    climbs = spec.promotes and assignment.seed == 0
    if climbs:
        rung = _rung(spec, chosen, begun)
    if left is not None:
        granted = grants.reach(0, spec.length(chosen) if rung is None else rung, left)
    stored = _insert_trial(transaction, trial_id, number, assignment, chosen, granted)
    if climbs:
        _give(transaction, trial_id, begun, rung)
    return Lease(
        trial_id=trial_id,
        number=number,
        configuration=assignment.configuration,
        seed=assignment.seed,
        # As read back from the database, so that exactly the stored parameters are trained.
        chosen=sampling.in_file_order(transaction.study.spec, stored),
        token=1,
        stored_epochs=0,
        until=grants.pause_epoch(spec, chosen, granted, rung),
    )


def _insert_trial(  # noqa: PLR0917
    transaction: Transaction,
    trial_id: int,
    number: int,
    assignment: Assignment,
    chosen: Mapping[str, Value],
    granted: int | None,
) -> Mapping[str, Value]:
    """Store a trial with its lease and its first line of history; return the stored parameters."""
    lease = sa.insert(t.lease).values(
        trial_id=trial_id,
        study_id=transaction.study.study_id,
        state="held",
        worker_id=transaction.worker_id,
        token=1,
        expires=in_seconds(transaction.timing.lease),
        granted=granted,
    )
    stored: Mapping[str, Value] = transaction.connection.execute(
        sa.insert(t.trial)
        .values(
            trial_id=trial_id,
            study_id=transaction.study.study_id,
            number=number,
            configuration=assignment.configuration,
            seed=assignment.seed,
            chosen=chosen,
        )
        .returning(t.trial.c.chosen)
        # In the same statement: peers wait for this transaction.
        .add_cte(lease.cte(), transaction.event("created", f"trial {number}", trial_id).cte())
    ).scalar_one()
    return stored


def _lease(transaction: Transaction, trial_id: int, token: int) -> Lease:
    # Read back from the database, so that exactly the stored parameters are trained.
    row = transaction.connection.execute(
        sa.select(
            t.trial,
            sa.select(sa.func.count())
            .where(t.epoch.c.trial_id == t.trial.c.trial_id)
            .scalar_subquery()
            .label("epochs"),
            grants.rung().label("rung"),
            t.lease.c.granted,
            t.lease.c.interruptions,
            t.lease.c.strikes,
        )
        .select_from(t.trial.join(t.lease))
        .where(t.trial.c.trial_id == trial_id)
    ).one()
    spec = transaction.study.spec
    chosen = sampling.in_file_order(spec, row.chosen)
    return Lease(
        trial_id=trial_id,
        number=row.number,
        configuration=row.configuration,
        seed=row.seed,
        chosen=chosen,
        token=token,
        stored_epochs=row.epochs,
        alone=row.interruptions + row.strikes > 0,
        until=grants.pause_epoch(spec, chosen, row.granted, row.rung),
    )


def _complete_study(transaction: Transaction) -> Ended:
    _close(transaction, "complete", "")
    return Ended("complete", "")


def _end_spent(transaction: Transaction, spec: Spec, standing: StudyAsFound, reason: str) -> Ended:
    """End a study whose budget is spent: as complete if all of its trials have ended."""
    if not _any_open(transaction) and _assignment(transaction, spec, standing) is None:
        return _complete_study(transaction)
    _close(transaction, "spent", reason)
    return Ended("spent", reason)


def _close(transaction: Transaction, state: str, reason: str) -> None:
    changed = transaction.connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == transaction.study.study_id, t.study.c.state == "open")
        .values(state=state, reason=reason)
    )
    if changed.rowcount:
        transaction.add_event(state, reason)
