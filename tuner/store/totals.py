"""Totals of the whole database at one moment, for monitoring.

They are read by a fixed number of statements, for any number of studies.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.store import studies
from tuner.store import tables as t
from tuner.store.overview import SILENT_SECONDS, count_each, trained_each, workers_each
from tuner.store.studies import Study
from tuner.store.tallies import CLAIM_BOUNDS, Tally

STUDIES_MOST = 200
"""At most this many studies have their own figures, open ones first, then the newest: monitors keep
every series that they have ever seen."""
STATES = ("open", "paused", "stopped", "spent", "complete")
EVENTS = ("lost", "interrupted", "attempt failed")
CLAIMING = "10 minutes"
"""Claims, eleven series each, are reported for studies that had a worker within this time."""


@dataclass(frozen=True)
class StudyTotals:
    """The totals of one study."""

    name: str
    """Its full name, which stays the same when a second version is added."""
    state: str
    trials: Mapping[str, int]
    """By state, including `not_started`; together they are the budget."""
    epochs: int
    """Stored epochs of all trials, without reused ones."""
    workers: int
    queued: int
    """Queued settings that have not started."""
    events: Mapping[str, int]
    """By kind (`EVENTS`)."""
    busy_seconds: float
    """How long all workers together have held trials."""
    tally: Tally
    """The sums of its workers' counters."""
    claiming: bool
    """Whether workers claimed trials recently."""


@dataclass(frozen=True)
class GpuLoad:
    """One GPU's load, as last measured by its workers."""

    utilization: float | None
    memory: int | None
    memory_total: int | None


@dataclass(frozen=True)
class Totals:
    """The totals of the database."""

    states: Mapping[str, int]
    """Number of studies by state; archived ones are counted separately."""
    studies: tuple[StudyTotals, ...]
    gpus: Mapping[tuple[str, str], GpuLoad]
    """By host and device."""


def read(connection: sa.Connection) -> Totals:
    """Read everything, from a snapshot."""
    shown = studies.foremost(connection, STUDIES_MOST)
    ids = [study.study_id for study in shown]
    counts, trained = count_each(connection, shown), trained_each(connection, ids)
    busy = workers_each(connection)
    queued, events = _queued(connection, ids), _events(connection, ids)
    tallies, active, claiming = _tallies(connection, ids)

    def totals(study: Study) -> StudyTotals:
        number = study.study_id
        of = counts[number]
        trials = {
            "complete": of.complete,
            "pruned": of.pruned,
            "diverged": of.diverged,
            "failed": of.failed,
            "running": of.running,
            "waiting": of.waiting,
            "paused": of.paused,
            "not_started": max(0, of.total - of.at_rest - of.running - of.waiting),
        }
        return StudyTotals(
            name=study.full_name,
            state=study.state,
            trials=trials,
            epochs=trained[number].epochs,
            workers=sum(busy.get(number, {}).values()),
            queued=queued[number],
            events={kind: events[number, kind] for kind in EVENTS},
            busy_seconds=active.get(number, 0.0),
            tally=tallies.get(number, Tally()),
            claiming=number in claiming,
        )

    return Totals(_states(connection), tuple(map(totals, shown)), _gpus(connection))


def _states(connection: sa.Connection) -> dict[str, int]:
    state = sa.case((t.study.c.archived.is_not(None), "archived"), else_=t.study.c.state)
    rows = connection.execute(sa.select(state, sa.func.count()).group_by(state))
    return dict.fromkeys((*STATES, "archived"), 0) | {row[0]: row[1] for row in rows}


def _queued(connection: sa.Connection, ids: Sequence[int]) -> Counter[int]:
    """Count the queued settings of each study that have not started."""
    begun = sa.exists().where(
        t.trial.c.study_id == t.queued.c.study_id,
        t.trial.c.configuration == t.queued.c.configuration,
    )
    rows = connection.execute(
        sa.select(t.queued.c.study_id, sa.func.count())
        .where(t.queued.c.study_id.in_(ids), ~begun)
        .group_by(t.queued.c.study_id)
    )
    return Counter({row[0]: row[1] for row in rows})


def _events(connection: sa.Connection, ids: Sequence[int]) -> Counter[tuple[int, str]]:
    rows = connection.execute(
        sa.select(t.event.c.study_id, t.event.c.kind, sa.func.count())
        # Literals, so that the partial index of these kinds applies.
        .where(t.event.c.kind.in_([sa.literal_column(f"'{kind}'") for kind in EVENTS]))
        .where(t.event.c.study_id.in_(ids))
        .group_by(t.event.c.study_id, t.event.c.kind)
    )
    return Counter({(row[0], row[1]): row[2] for row in rows})


def _tallies(
    connection: sa.Connection, ids: Sequence[int]
) -> tuple[dict[int, Tally], dict[int, float], set[int]]:
    """Return, by study, the sums of workers' counters and busy seconds, and which studies claim."""
    tally = t.worker.c.tally
    mine = t.worker.c.study_id.in_(ids)

    def total(key: str, kind: type[sa.types.TypeEngine[Any]]) -> sa.ColumnElement[Any]:
        return sa.func.coalesce(sa.func.sum(sa.cast(tally[key].astext, kind)), 0)

    recent = t.worker.c.seen > sa.func.clock_timestamp() - sa.text(f"interval '{CLAIMING}'")
    rows = connection.execute(
        sa.select(
            t.worker.c.study_id,
            total("epochs", sa.BigInteger).label("epochs"),
            total("retries", sa.BigInteger).label("retries"),
            total("lost", sa.BigInteger).label("lost"),
            total("claim_seconds", sa.Double).label("claim_seconds"),
            sa.func.sum(t.worker.c.active_seconds).label("active"),
            sa.func.bool_or(recent).label("claiming"),
        )
        .where(mine)
        .group_by(t.worker.c.study_id)
    ).all()
    # Each worker's list of counts as rows (count, index), summed by index.
    listed = (
        sa.func.jsonb_array_elements_text(tally["claims"])
        .table_valued("count", with_ordinality="place")
        .render_derived()
    )
    claims: dict[int, list[int]] = {}
    for study_id, place, count in connection.execute(
        sa.select(
            t.worker.c.study_id, listed.c.place, sa.func.sum(sa.cast(listed.c.count, sa.BigInteger))
        )
        .select_from(t.worker.join(listed, sa.true()))
        .where(mine)
        .group_by(t.worker.c.study_id, listed.c.place)
    ):
        counts = claims.setdefault(study_id, [0] * (len(CLAIM_BOUNDS) + 1))
        counts[place - 1] = int(count)
    none = [0] * (len(CLAIM_BOUNDS) + 1)
    tallies = {
        row.study_id: Tally(
            int(row.epochs),
            int(row.retries),
            int(row.lost),
            claims.get(row.study_id, none),
            float(row.claim_seconds),
        )
        for row in rows
    }
    active = {row.study_id: float(row.active) for row in rows}
    return tallies, active, {row.study_id for row in rows if row.claiming}


def _gpus(connection: sa.Connection) -> dict[tuple[str, str], GpuLoad]:
    """Return the GPUs of workers seen recently; several workers may share one."""
    load, unseen = t.worker.c.load, sa.func.clock_timestamp() - t.worker.c.seen
    rows = connection.execute(
        sa.select(
            t.worker.c.host,
            t.worker.c.device,
            sa.func.max(sa.cast(load["gpu"].astext, sa.Double)).label("used"),
            sa.func.max(sa.cast(load["gpu_memory"].astext, sa.BigInteger)).label("memory"),
            sa.func.max(sa.cast(load["gpu_total"].astext, sa.BigInteger)).label("total"),
        )
        .where(
            t.worker.c.ended.is_(None),
            sa.extract("epoch", unseen) < SILENT_SECONDS,
            load["gpu_total"].astext.is_not(None),
        )
        .group_by(t.worker.c.host, t.worker.c.device)
    )
    return {(row.host, row.device): GpuLoad(row.used, row.memory, row.total) for row in rows}
