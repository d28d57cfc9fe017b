"""What people can do with a stored study; commands and the dashboard call the same functions."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.spec import identity
from tuner.spec.faults import Faults
from tuner.spec.plan import Plan, check_plan
from tuner.spec.study import Spec
from tuner.store import identities, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import claims, endings, grants
from tuner.store.ledger.transactions import Transaction
from tuner.store.optuna_storage import Binding
from tuner.store.spending import exhausted
from tuner.store.studies import Study

NOBODY = 0
"""The worker id of actions that people take."""
TRIALS_MOST = 1_000_000
SEEDS_MOST = 10_000
TAG = re.compile(r"[\w.+-]{1,40}")
TAGS_MOST = 20
NOTE_MOST = 20_000
"""Characters of a note."""


def retry(
    database: Database, binding: Binding, study: Study, numbers: Sequence[int], who: str = ""
) -> list[int] | None:
    """Reopen failed trials under their own numbers, all or those listed; return their numbers.

    A paused or stopped study is opened even if none has failed. Returns None if nothing changed.
    """
    with database.transaction() as connection, binding.within(connection) as storage:
        now = studies.locked(connection, study)
        transaction = Transaction(connection, lambda: storage, now, NOBODY, who=who)
        failed = _failed(connection, now)
        wrong = sorted(set(numbers) - set(failed))
        if wrong:
            listed = ", ".join(map(str, wrong))
            have = ", ".join(map(str, sorted(failed))) or "none"
            raise UserError(
                f"Only failed trials can be retried; these did not fail: {listed}. "
                f"Failed trials of {study.title}: {have}."
            )
        chosen = sorted(numbers or failed)
        endings.reopen(transaction, [failed[number] for number in chosen], "retried")
        if chosen or now.state != "complete":
            # The person may have fixed the code.
            identities.reset(connection, now.study_id)
        if not chosen and now.state not in ("paused", "stopped", "spent"):
            return None
        _open(transaction)
        if now.state != "open":
            studies.add_event(connection, now, "opened", f"it was {now.state}", who)
        return chosen


def finish(
    database: Database, binding: Binding, study: Study, numbers: Sequence[int], who: str = ""
) -> list[int]:
    """Have paused trials trained to completion, before all others; return those newly chosen.

    Refused if the budget has no room for all of them, so that none pauses again on its way. A study
    that was complete is reopened.
    """
    with database.transaction() as connection, binding.within(connection) as storage:
        # Under the lock of claims: meanwhile no trial is resumed and no epoch granted.
        now = studies.locked(connection, study)
        transaction = Transaction(connection, lambda: storage, now, NOBODY, who=who)
        chosen = [row for row in _fit(connection, now, numbers) if row.lease == "paused"]
        _check_budget(transaction, chosen)
        claims.choose(transaction, {row.trial_id: row.epochs for row in chosen})
        _open(transaction)
        if now.state != "open":
            studies.add_event(connection, now, "opened", f"it was {now.state}", who)
        return [row.number for row in chosen]


def check_finish(database: Database, study: Study, numbers: Sequence[int]) -> None:
    """Raise the error that `finish` would raise for these trials; change nothing."""
    with database.transaction() as connection:
        _fit(connection, study, numbers)


def _fit(connection: sa.Connection, study: Study, numbers: Sequence[int]) -> list[sa.Row[Any]]:
    """Return the trials with these numbers, in order; raise unless all are paused or chosen."""
    rows = {row.number: row for row in _asked(connection, study, numbers)}
    asked = sorted(set(numbers))
    wrong = [why for number in asked if (why := _unfit(number, rows.get(number))) is not None]
    if wrong:
        raise UserError(
            "Only paused trials can be trained to completion: " + "; ".join(wrong) + "."
        )
    return [rows[number] for number in asked]


def _asked(
    connection: sa.Connection, study: Study, numbers: Sequence[int]
) -> Sequence[sa.Row[Any]]:
    epochs = sa.select(sa.func.count()).where(t.epoch.c.trial_id == t.trial.c.trial_id)
    return connection.execute(
        sa.select(
            t.trial.c.trial_id,
            t.trial.c.number,
            t.trial.c.chosen,
            t.lease.c.state.label("lease"),
            t.outcome.c.state,
            t.outcome.c.reason,
            epochs.scalar_subquery().label("epochs"),
            grants.is_chosen().label("is_chosen"),
        )
        .select_from(t.trial.join(t.lease).outerjoin(t.outcome))
        .where(t.trial.c.study_id == study.study_id, t.trial.c.number.in_(numbers))
    ).all()


def _unfit(number: int, row: sa.Row[Any] | None) -> str | None:
    """Return why a trial cannot be chosen for completion; None if it can."""
    if row is None:
        return f"trial {number} does not exist"
    if row.state == "FAILED":
        return f"trial {number} failed (`tuner retry` starts it again)"
    if row.state == "COMPLETE":
        return f"trial {number} is complete"
    if row.state is not None:
        return f"trial {number} was stopped for good ({row.reason})"
    # A trial chosen before may be chosen again: the same launch was repeated.
    if row.lease == "paused" or row.is_chosen:
        return None
    does = "waits for a worker" if row.lease == "released" else "is being trained"
    return f"trial {number} {does}, and can be chosen once it is paused"


def _check_budget(transaction: Transaction, chosen: Sequence[sa.Row[Any]]) -> None:
    spec, connection = transaction.study.spec, transaction.connection
    if not chosen:
        return
    if spent := exhausted(connection, transaction.study.study_id, spec.budget):
        raise UserError(f"{spent} Launch the study with a larger one to finish trials.")
    if (left := grants.left(transaction, spec)) is None:
        return
    needed = sum(spec.length(row.chosen) - row.epochs for row in chosen)
    if left.free < needed:
        assert spec.epoch_limit is not None
        before = left.promised
        beside = f" beside the {before:,} of trials chosen before" if before else ""
        larger = " ".join(_budget_of(spec, spec.epoch_limit + needed - left.free))
        raise UserError(
            f"Finishing these trials takes {needed:,} epochs{beside}, and {max(0, sum(left)):,} "
            f"of the budget are left. Add  {larger}  to the launch."
        )


def _budget_of(spec: Spec, epochs: int) -> Iterator[str]:
    """Yield the options that raise each limit below this many epochs to it."""
    if spec.budget.epochs is not None and spec.budget.epochs < epochs:
        yield f"--set budget.epochs={epochs}"
    if spec.full_epochs is not None and spec.full_epochs < epochs:
        # Rounded up, or the budget would be one epoch short.
        full = math.ceil(round(epochs / spec.longest * 10_000, 4)) / 10_000
        yield f"--set budget.full={full:.10g}"


def stop(database: Database, study: Study, who: str = "") -> None:
    """Ask all workers of a study, on every machine, to leave after their current epoch."""
    by = who or "`tuner stop`"
    with database.transaction() as connection:
        now = _unfinished(connection, study, "stop")
        studies.set_state(connection, now, "stopped", f"Stopped by {by}.", who)


def pause(database: Database, study: Study, who: str = "") -> None:
    """Let workers finish their trials without starting others."""
    with database.transaction() as connection:
        now = _unfinished(connection, study, "pause")
        if now.state == "stopped":
            raise UserError(f"{study.title} is stopped already.")
        if now.state == "spent":
            raise UserError(f"{study.title} is not training. {now.reason}")
        studies.set_state(connection, now, "paused", f"Paused by {who or 'a user'}.", who)


def go_on(database: Database, study: Study, who: str = "") -> None:
    """Open a stopped or paused study for workers again."""
    with database.transaction() as connection:
        _unfinished(connection, study, "go on with")
        studies.go_on(connection, study.ref, who)


def extend(
    database: Database,
    study: Study,
    *,
    trials: int | None = None,
    seeds: int | None = None,
    who: str = "",
) -> Study:
    """Raise the number of trials, of seeds or of both, and open the study for work."""
    changes = {"budget.trials": trials, "replicates.seeds": seeds}
    given = {key: number for key, number in changes.items() if number is not None}
    if not given:
        raise UserError("Specify --trials or --seeds.")
    with database.transaction() as connection:
        now = studies.locked(connection, study)
        spec = studies.read_spec(connection, now)
        budget = spec.budget if trials is None else replace(spec.budget, trials=trials)
        replicates = spec.replicates if seeds is None else replace(spec.replicates, seeds=seeds)
        texts = tuple(f"{key}={number}" for key, number in given.items())
        longer = replace(
            spec, budget=budget, replicates=replicates, overrides=(*spec.overrides, *texts)
        )
        for number, most in ((trials, TRIALS_MOST), (seeds, SEEDS_MOST)):
            if number is not None and not 1 <= number <= most:
                raise UserError(f"{number:,} is not between 1 and {most:,}.")
        faults = Faults({}, {})
        space = longer.space
        check_plan(
            Plan(budget, replicates, longer.search, space, space.dimensions, may_be_empty=True),
            faults,
        )
        if faults:
            raise UserError("\n".join(str(fault) for fault in faults.ordered()))
        difference = identity.compare(spec, longer)
        if difference.same:
            raise UserError(f"{study.title} already has that many.")
        if not difference.extends:
            told = "\n".join(f"  {change}" for change in difference.changes)
            raise UserError(
                f"This would reduce the number of trials or seeds of {study.title}:\n{told}"
            )
        studies.extend(connection, now, longer, who)
        return studies.find(connection, now.ref)


# Labels and notes


def tag(
    database: Database,
    study: Study,
    add: Collection[str],
    remove: Collection[str] = (),
    who: str = "",
) -> tuple[str, ...]:
    """Add tags to a study and remove others; return the resulting tags."""
    wrong = [word for word in add if TAG.fullmatch(word) is None]
    if wrong:
        raise UserError(
            f"{wrong[0]!r} cannot be a tag: use letters, digits and . _ + -, at most 40."
        )
    with database.transaction() as connection:
        # Under the lock: of two people who add tags at once, the second adds to the first's.
        now = studies.locked(connection, study)
        tags = tuple(sorted(({*now.tags} | set(add)) - set(remove)))
        if len(tags) > TAGS_MOST:
            raise UserError(f"A study has at most {TAGS_MOST} tags.")
        if tags != now.tags:
            _keep(connection, now, "tagged", ", ".join(tags) or "no tags", who, tags=list(tags))
    return tags


def note(database: Database, study: Study, text: str, who: str = "") -> None:
    """Replace a study's note; "" removes it."""
    text = text.replace("\r\n", "\n").strip()
    if len(text) > NOTE_MOST:
        raise UserError(f"A note has at most {NOTE_MOST:,} characters.")
    with database.transaction() as connection:
        now = studies.locked(connection, study)
        if text != now.note:
            _keep(connection, now, "noted", "" if text else "removed the note", who, note=text)


def archive(database: Database, study: Study, *, archived: bool, who: str = "") -> None:
    """Hide a study from lists, or show it again; no data are lost."""
    with database.transaction() as connection:
        now = studies.locked(connection, study)
        if (now.archived is not None) == archived:
            return
        kind = "archived" if archived else "unarchived"
        moment = sa.func.clock_timestamp() if archived else None
        _keep(connection, now, kind, "", who, archived=moment)


def _keep(
    connection: sa.Connection, study: Study, kind: str, text: str, who: str, **values: object
) -> None:
    mine = t.study.c.study_id == study.study_id
    connection.execute(sa.update(t.study).where(mine).values(values))
    studies.add_event(connection, study, kind, text, who)


def _unfinished(connection: sa.Connection, study: Study, verb: str) -> Study:
    """Return a study as it is now, locked; raise if it is complete."""
    # Under the lock: a worker may be completing the study right now, and stopping it afterwards
    # would make a finished study look unfinished.
    now = studies.locked(connection, study)
    if now.state == "complete":
        raise UserError(f"{study.title} is complete; there is nothing to {verb}.")
    return now


def _failed(connection: sa.Connection, study: Study) -> dict[int, int]:
    rows = connection.execute(
        sa.select(t.trial.c.number, t.trial.c.trial_id)
        .select_from(t.trial.join(t.outcome))
        .where(t.trial.c.study_id == study.study_id, t.outcome.c.state == "FAILED")
    )
    return {row.number: row.trial_id for row in rows}


def _open(transaction: Transaction) -> None:
    transaction.connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == transaction.study.study_id)
        .values(state="open", reason="", opened=sa.func.clock_timestamp())
    )
