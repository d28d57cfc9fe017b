"""A summary of a study for the live screen and `tuner status`, read in a few statements."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tuner.errors import UnknownStudyError
from tuner.records import Unit, Value, metric_of
from tuner.spec.study import Budget
from tuner.store import queue
from tuner.store import tables as t
from tuner.store.ranking import Seed, rank_settings
from tuner.store.spending import read_spending
from tuner.store.studies import Study

VARIATION_TRIALS = 3
"""Number of ended trials needed to estimate how much their times vary."""
SILENT_SECONDS = 20.0
"""A worker that has not been seen for this long is no longer shown."""


@dataclass(frozen=True)
class Counts:
    """Numbers of trials by state."""

    total: int
    complete: int = 0
    pruned: int = 0
    diverged: int = 0
    """Trials that ended because a loss was not finite."""
    failed: int = 0
    running: int = 0
    waiting: int = 0
    """Released or orphaned trials that a worker will resume."""
    paused: int = 0
    """Trials paused at a rung, to be resumed if they are among the best; or by the budget."""

    @property
    def ended(self) -> int:
        """Trials that have ended for good."""
        return self.complete + self.pruned + self.diverged + self.failed

    @property
    def at_rest(self) -> int:
        """Trials that have ended or are paused."""
        return self.ended + self.paused


@dataclass(frozen=True)
class WorkerLine:
    """One worker and a trial it holds; a worker with several trials has a line for each."""

    worker_id: int
    host: str
    pid: int
    device: str
    seen_seconds: float
    number: int | None = None
    seed: int | None = None
    attempts: int | None = None
    chosen: Mapping[str, Value] | None = None
    epoch: int = 0
    epochs: int = 0
    val_loss: float | None = None
    epochs_per_second: float | None = None
    lease_seconds: float | None = None
    """Seconds until the lease expires."""
    bytes_sent: int | None = None
    """Bytes of large predictions stored so far, while the worker is storing some."""
    bytes_to_send: int | None = None
    load: Mapping[str, Any] | None = None
    """The load at the worker's last renewal: `memory`, `cores`, `gpu`, `gpu_memory`,
    `gpu_total`."""


@dataclass(frozen=True)
class Best:
    """The best complete trial so far by the study's metric, or the best setting's median seed."""

    number: int
    seed: int
    chosen: Mapping[str, Value]
    value: float
    val_acc: float
    test_acc: float | None
    seeds: int = 1
    """How many complete seeds its setting was ranked by."""
    mean: Mapping[str, float | None] | None = None
    """The means over these seeds of the metric (`value`), `val_acc` and `test_acc`; None in a study
    with one seed per setting, which ranks trials."""


@dataclass(frozen=True)
class BudgetLine:
    """How much of its budget of hours, money and epochs a study has spent."""

    hours_spent: float
    hours: float | None
    """The limit, if there is one."""
    money_spent: float | None
    """None if no price is known."""
    money: float | None
    epochs_spent: int = 0
    epochs: int | None = None


@dataclass(frozen=True)
class Overview:
    """Everything `tuner status` shows of one study."""

    title: str
    question: str
    state: str
    reason: str
    metric: str
    unit: Unit
    """The metric's unit."""
    created: datetime
    counts: Counts
    workers: tuple[WorkerLine, ...]
    best: Best | None
    epochs_recorded: int
    """Epochs that were trained, without reused ones."""
    epochs_reused: int
    seconds_trained: float
    eta_seconds: float | None
    """Seconds left if the remaining trials take as long as the ended ones; `answers/forecast`
    gives the range."""
    adopted: tuple[int, ...]
    """Numbers of the trials that another worker took over, or that were started again."""
    retried: tuple[int, ...] = ()
    """Those of them with a failed attempt; the others were interrupted and resumed."""
    queued: tuple[Mapping[str, Value], ...] = ()
    """The settings in the queue, next one first."""
    done: float = 0.0
    """Trials that have ended, and the parts of those that are running."""
    variation: float | None = None
    """The coefficient of variation of ended trials' training times; None before the third."""
    budget: BudgetLine | None = None
    """Its hours, money and epochs, if they are limited or have a price."""

    @property
    def over(self) -> bool:
        """Whether the study has ended: it is complete, or its budget is spent."""
        return self.state in ("complete", "spent")


@dataclass(frozen=True)
class Settled:
    """The parts of a summary that do not change while trials only train further."""

    state: str
    reason: str
    budget: Budget
    """The current budget: a launch may have raised it."""
    best: Best | None
    adopted: tuple[int, ...]
    retried: tuple[int, ...]
    ended: "Trained"
    """The epochs of trials that have ended."""


def settled(connection: sa.Connection, study: Study) -> Settled:
    """Read the parts of a summary that change only with the study, or when trials end or resume."""
    row = connection.execute(
        sa.select(
            t.study.c.state, t.study.c.reason, t.study.c.spec["budget"].label("budget")
        ).where(t.study.c.study_id == study.study_id)
    ).one_or_none()
    if row is None:
        # The study was deleted while it was being watched.
        raise UnknownStudyError(f"The study {study.title} was deleted.")
    return Settled(
        state=row.state,
        reason=row.reason,
        budget=Budget(**row.budget),
        best=_best(connection, study),
        adopted=_adopted(connection, study),
        retried=_retried(connection, study),
        ended=_ended_each(connection, [study.study_id])[study.study_id],
    )


def overview(
    connection: sa.Connection, study: Study, settled_before: Settled | None = None
) -> Overview:
    """Read the summary of a study, or the rest of it where what is settled is known.

    A trial that has ended since is in neither part; it is counted once both are read anew.
    """
    known = settled_before or settled(connection, study)
    counts = count(connection, study)
    lines = _workers(connection, study)
    trained = _with_under_way(connection, {study.study_id: known.ended})[study.study_id]
    return Overview(
        title=study.title,
        question=study.spec.question,
        state=known.state,
        reason=known.reason,
        metric=study.spec.search.metric,
        unit=metric_of(study.spec.search.metric, study.spec.metrics).read_in,
        created=study.created,
        counts=counts,
        workers=lines,
        best=known.best,
        epochs_recorded=trained.epochs,
        epochs_reused=trained.reused,
        seconds_trained=trained.seconds,
        eta_seconds=_eta(counts, lines, trained.seconds),
        done=_done(counts, lines),
        variation=trained.variation,
        budget=_budget(connection, study, known.budget),
        adopted=known.adopted,
        retried=known.retried,
        queued=tuple(
            place.chosen for place in queue.places(connection, study) if place.trial is None
        ),
    )


def count(connection: sa.Connection, study: Study) -> Counts:
    """Count the trials of a study by state."""
    return count_each(connection, [study])[study.study_id]


def count_each(connection: sa.Connection, studies: Sequence[Study]) -> dict[int, Counts]:
    """Count the trials of several studies by state, in one statement; by the studies' numbers."""
    # An expired lease that was not adopted yet counts as waiting, not as running.
    held = (t.lease.c.state == "held") & (t.lease.c.expires > sa.func.clock_timestamp())
    paused = sa.case((t.lease.c.state == "paused", "paused"))
    state = sa.func.lower(sa.func.coalesce(t.ended_as, paused))
    rows = connection.execute(
        sa.select(t.trial.c.study_id, state, held, sa.func.count())
        .select_from(
            t.trial.join(t.lease).outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
        .where(t.trial.c.study_id.in_([study.study_id for study in studies]))
        .group_by(t.trial.c.study_id, state, held)
    )
    counts: dict[int, Counter[str]] = {study.study_id: Counter() for study in studies}
    for study_id, ended, is_held, number in rows:
        counts[study_id][ended or ("running" if is_held else "waiting")] += number
    return {
        study.study_id: Counts(total=study.spec.total_trials, **counts[study.study_id])
        for study in studies
    }


def workers_each(connection: sa.Connection) -> dict[int, dict[str, int]]:
    """Count the workers seen recently, by study and host."""
    unseen = sa.extract("epoch", sa.func.clock_timestamp() - t.worker.c.seen)
    rows = connection.execute(
        sa.select(t.worker.c.study_id, t.worker.c.host, sa.func.count())
        .where(t.worker.c.ended.is_(None), unseen < SILENT_SECONDS)
        .group_by(t.worker.c.study_id, t.worker.c.host)
        .order_by(t.worker.c.study_id, t.worker.c.host)
    )
    hosts: dict[int, dict[str, int]] = {}
    for study_id, host, count in rows:
        hosts.setdefault(study_id, {})[host] = count
    return hosts


def lost_each(connection: sa.Connection, studies: Sequence[Study]) -> dict[int, int]:
    """Count the leases that workers lost because they stopped responding, by study."""
    rows = connection.execute(
        sa.select(t.event.c.study_id, sa.func.count())
        .where(
            t.event.c.kind == "lost",
            t.event.c.study_id.in_([study.study_id for study in studies]),
        )
        .group_by(t.event.c.study_id)
    )
    return {row[0]: row[1] for row in rows}


def _workers(connection: sa.Connection, study: Study) -> tuple[WorkerLine, ...]:
    now = sa.func.clock_timestamp()
    # One row per lease of a worker, with the epochs of that trial only.
    recent = (
        sa.select(
            sa.func.max(t.epoch.c.epoch).label("epoch"),
            sa.func.sum(t.epoch.c.seconds).label("seconds"),
        )
        .where(t.epoch.c.trial_id == t.lease.c.trial_id)
        .lateral()
    )
    newest = (
        sa.select(t.epoch.c.val_loss)
        .where(t.epoch.c.trial_id == t.lease.c.trial_id)
        .order_by(t.epoch.c.epoch.desc())
        .limit(1)
        .lateral()
    )
    # Reads the sizes of pieces without their content.
    sent = (
        sa.select(
            t.upload.c.bytes.label("total"),
            sa.select(sa.func.coalesce(sa.func.sum(sa.func.octet_length(t.piece.c.content)), 0))
            .where(t.piece.c.trial_id == t.upload.c.trial_id, t.piece.c.token == t.upload.c.token)
            .scalar_subquery()
            .label("stored"),
        )
        .where(t.upload.c.trial_id == t.lease.c.trial_id, t.upload.c.token == t.lease.c.token)
        .lateral()
    )
    rows = connection.execute(
        sa.select(
            t.worker,
            sa.extract("epoch", now - t.worker.c.seen).label("unseen"),
            sa.extract("epoch", t.lease.c.expires - now).label("left"),
            t.attempts.label("attempts"),
            t.trial.c.number,
            t.trial.c.seed,
            t.trial.c.chosen,
            recent.c.epoch,
            recent.c.seconds,
            newest.c.val_loss,
            sent.c.stored,
            sent.c.total,
        )
        .select_from(
            t.worker.outerjoin(
                t.lease, (t.lease.c.worker_id == t.worker.c.worker_id) & (t.lease.c.state == "held")
            )
            .outerjoin(t.trial, t.trial.c.trial_id == t.lease.c.trial_id)
            .outerjoin(recent, sa.true())
            .outerjoin(newest, sa.true())
            .outerjoin(sent, sa.true())
        )
        .where(
            t.worker.c.study_id == study.study_id,
            t.worker.c.ended.is_(None),
            sa.extract("epoch", now - t.worker.c.seen) < SILENT_SECONDS,
        )
        .order_by(t.worker.c.worker_id, t.trial.c.number)
    )
    lines = [_line(study, row) for row in rows]
    held = Counter(line.worker_id for line in lines)
    return tuple(_at_a_time(line, held[line.worker_id]) for line in lines)


def _at_a_time(line: WorkerLine, trials: int) -> WorkerLine:
    """Adjust a line for trials trained together: each stores its share of an epoch's time."""
    if line.epochs_per_second is None:
        return line
    return replace(line, epochs_per_second=line.epochs_per_second / trials)


def _line(study: Study, row: sa.Row[Any]) -> WorkerLine:
    line = WorkerLine(
        row.worker_id, row.host, row.pid, row.device, float(row.unseen), load=row.load
    )
    if row.number is None:
        return line
    job = study.spec.job(row.chosen, row.seed)
    names = [name for name in study.spec.varied if name in row.chosen]
    return WorkerLine(
        worker_id=row.worker_id,
        host=row.host,
        pid=row.pid,
        device=row.device,
        seen_seconds=float(row.unseen),
        number=row.number,
        seed=row.seed,
        attempts=row.attempts,
        chosen={name: row.chosen[name] for name in names},
        epoch=row.epoch or 0,
        epochs=int(job.parameters["epochs"]),
        val_loss=row.val_loss,
        epochs_per_second=row.epoch / row.seconds if row.epoch and row.seconds else None,
        lease_seconds=float(row.left),
        bytes_sent=None if row.stored is None else int(row.stored),
        bytes_to_send=row.total,
        load=row.load,
    )


@dataclass(frozen=True)
class Trained:
    """The epochs of a study's trials."""

    epochs: int = 0
    """Without reused ones."""
    reused: int = 0
    seconds: float = 0.0
    variation: float | None = None
    """Coefficient of variation of ended trials' seconds; None before the third."""


def trained_each(connection: sa.Connection, study_ids: Sequence[int]) -> dict[int, Trained]:
    """Sum up epochs by study: for ended trials from their outcomes, for the few others directly.

    Outcomes written by workers of an older program have no sums.
    """
    return _with_under_way(connection, _ended_each(connection, study_ids))


def _ended_each(connection: sa.Connection, study_ids: Sequence[int]) -> dict[int, Trained]:
    study_id = t.trial.c.study_id
    ended = (
        sa.select(
            study_id,
            sa.func.sum(t.outcome.c.epochs_run - t.outcome.c.epochs_reused),
            sa.func.sum(t.outcome.c.epochs_reused),
            sa.func.sum(t.outcome.c.seconds),
            sa.func.count(t.outcome.c.seconds),
            sa.func.stddev_samp(t.outcome.c.seconds),
        )
        .select_from(t.trial.join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id))
        .where(study_id.in_(study_ids))
        .group_by(study_id)
    )
    found = dict.fromkeys(study_ids, Trained())
    for number, epochs, reused, seconds, trials, deviation in connection.execute(ended):
        known = trials >= VARIATION_TRIALS and seconds
        variation = float(deviation) * trials / float(seconds) if known else None
        found[number] = Trained(int(epochs or 0), int(reused or 0), float(seconds or 0), variation)
    return found


def _with_under_way(connection: sa.Connection, ended: Mapping[int, Trained]) -> dict[int, Trained]:
    study_id = t.trial.c.study_id
    own = t.epoch.c.reused.is_(False)
    under_way = (
        sa.select(
            study_id,
            sa.func.count().filter(own),
            sa.func.count().filter(~own),
            sa.func.sum(t.epoch.c.seconds).filter(own),
        )
        .select_from(
            t.trial.outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).join(
                t.epoch, t.epoch.c.trial_id == t.trial.c.trial_id
            )
        )
        .where(study_id.in_(ended), t.outcome.c.epochs_run.is_(None))
        .group_by(study_id)
    )
    found = dict(ended)
    for number, epochs, reused, seconds in connection.execute(under_way):
        before = found[number]
        found[number] = replace(
            before,
            epochs=before.epochs + int(epochs),
            reused=before.reused + int(reused),
            seconds=before.seconds + float(seconds or 0),
        )
    return found


def _adopted(connection: sa.Connection, study: Study) -> tuple[int, ...]:
    rows = connection.execute(
        sa.select(t.trial.c.number)
        .select_from(t.trial.join(t.lease))
        .where(t.trial.c.study_id == study.study_id, t.attempts > 1)
        .order_by(t.trial.c.number)
    )
    return tuple(rows.scalars())


def _retried(connection: sa.Connection, study: Study) -> tuple[int, ...]:
    failures = sa.select(t.event.c.trial_id).where(
        t.event.c.study_id == study.study_id, t.event.c.kind == "attempt failed"
    )
    rows = connection.execute(
        sa.select(t.trial.c.number)
        .select_from(t.trial.join(t.lease))
        .where(
            t.trial.c.study_id == study.study_id,
            t.attempts > 1,
            t.trial.c.trial_id.in_(failures),
        )
        .order_by(t.trial.c.number)
    )
    return tuple(rows.scalars())


def _best(connection: sa.Connection, study: Study) -> Best | None:
    if study.spec.replicates.seeds > 1:
        return _best_setting(connection, study)
    search = study.spec.search
    at = t.outcome.c.best_epoch if search.at == "best" else t.outcome.c.last_epoch
    prefix = "best_" if search.at == "best" else "last_"
    value = t.figure(t.epoch, search.metric)
    minimize = study.spec.direction == "minimize"
    row = connection.execute(
        sa.select(
            t.trial.c.number,
            t.trial.c.seed,
            t.trial.c.chosen,
            value.label("value"),
            t.outcome.c[f"{prefix}val_acc"].label("val_acc"),
            t.outcome.c[f"{prefix}test_acc"].label("test_acc"),
        )
        .select_from(
            t.trial.join(t.outcome).join(
                t.epoch, (t.epoch.c.trial_id == t.trial.c.trial_id) & (t.epoch.c.epoch == at)
            )
        )
        .where(t.trial.c.study_id == study.study_id, t.outcome.c.state == "COMPLETE")
        .order_by(value.asc() if minimize else value.desc(), t.trial.c.number)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    names = [name for name in study.spec.varied if name in row.chosen]
    chosen = {name: row.chosen[name] for name in names}
    return Best(row.number, row.seed, chosen, row.value, row.val_acc, row.test_acc)


def _best_setting(connection: sa.Connection, study: Study) -> Best | None:
    """Return the best setting by its mean over seeds, and the trial of its median seed."""
    search = study.spec.search
    at = t.outcome.c.best_epoch if search.at == "best" else t.outcome.c.last_epoch
    prefix = "best_" if search.at == "best" else "last_"
    # Of up to 10,000 trials, only the ranking's fields are read; all fields only of the best few.
    complete = t.outcome.c.state == "COMPLETE"
    rows = connection.execute(
        sa.select(
            t.trial.c.configuration,
            t.trial.c.seed,
            t.trial.c.number,
            t.outcome.c.state.is_not(None),
            sa.case((complete, t.figure(t.epoch, search.metric))),
        )
        .select_from(
            t.trial.outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).outerjoin(
                t.epoch, (t.epoch.c.trial_id == t.trial.c.trial_id) & (t.epoch.c.epoch == at)
            )
        )
        .where(t.trial.c.study_id == study.study_id)
    )
    ranked = rank_settings(study.spec, [Seed(*row) for row in rows])
    if not ranked:
        return None
    first = ranked[0]
    members = connection.execute(
        sa.select(
            t.trial.c.number,
            t.trial.c.chosen,
            t.outcome.c[f"{prefix}val_acc"].label("val_acc"),
            t.outcome.c[f"{prefix}test_acc"].label("test_acc"),
        )
        .select_from(t.trial.join(t.outcome))
        .where(
            t.trial.c.study_id == study.study_id,
            t.trial.c.number.in_([seed.number for seed in first.seeds]),
        )
    ).all()
    median = next(row for row in members if row.number == first.median.number)
    names = [name for name in study.spec.varied if name in median.chosen]
    tests = [row.test_acc for row in members if row.test_acc is not None]
    value = first.median.value
    assert value is not None  # only complete seeds are ranked
    return Best(
        number=median.number,
        seed=first.median.seed,
        chosen={name: median.chosen[name] for name in names},
        value=value,
        val_acc=median.val_acc,
        test_acc=median.test_acc,
        seeds=len(members),
        mean={
            "value": first.mean,
            "val_acc": sum(row.val_acc for row in members) / len(members),
            "test_acc": sum(tests) / len(tests) if tests else None,
        },
    )


def _budget(connection: sa.Connection, study: Study, budget: Budget) -> BudgetLine | None:
    spending = read_spending(connection, study.study_id, budget)
    epochs = replace(study.spec, budget=budget).epoch_limit
    if not budget.limited and epochs is None and spending.money is None:
        return None
    return BudgetLine(
        spending.hours, budget.hours, spending.money, budget.money, spending.epochs, epochs
    )


def _done(counts: Counts, lines: tuple[WorkerLine, ...]) -> float:
    """Return how many trials have ended, plus the finished fractions of the running ones."""
    return counts.ended + sum(line.epoch / line.epochs for line in lines if line.epochs)


def _eta(counts: Counts, lines: tuple[WorkerLine, ...], seconds: float) -> float | None:
    """Estimate the seconds left if the remaining trials take as long as the ended ones."""
    done = _done(counts, lines)
    workers = len({line.worker_id for line in lines})
    # Nobody knows how far paused trials will be trained.
    if done < 1 or not workers or counts.paused:
        return None
    return seconds / done * (counts.total - done) / workers
