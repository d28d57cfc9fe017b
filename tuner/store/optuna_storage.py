"""Optuna's tables, written through our own transactions.

Optuna's storage opens its own session for every call. Bound to our connection,
each call becomes a savepoint of our transaction instead, so that Optuna's rows
and ours commit or roll back together. With two separate connections, a backend
that died between count and ask gave 2 trials for a budget of 1.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb import storage as storage_module
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import ARRAY, insert

from tuner.errors import DatabaseNewerError
from tuner.records import Value
from tuner.store import tables as t
from tuner.store.database import Database

optuna.logging.set_verbosity(optuna.logging.WARNING)
# SQLAlchemy would do this at the first query. Done at import, forks of a fork server inherit it.
orm.configure_mappers()

DRIVER = "postgresql+psycopg2://"
METRIC_NAMES = "study:metric_names"
"""Optuna's attribute for the metric's name; without it, its dashboard shows "Objective 0"."""
RUNG = "completed_rung_"
"""Prefix of the trial attributes in which Optuna's pruners record completed rungs."""
TRIALS: sa.Table = models.TrialModel.__table__
REPORTS: sa.Table = models.TrialIntermediateValueModel.__table__
PARAMETERS: sa.Table = models.TrialParamModel.__table__
ATTRIBUTES: sa.Table = models.TrialUserAttributeModel.__table__
VALUES: sa.Table = models.TrialValueModel.__table__


def create_tables(database: Database) -> None:
    """Create Optuna's tables, or refuse tables written by a newer Optuna."""
    try:
        with _MAKING:
            storage = RDBStorage(DRIVER, engine_kwargs={"creator": database.connect})
    except RuntimeError as error:
        raise DatabaseNewerError(
            f"The database's Optuna tables do not fit Optuna {optuna.__version__} here: {error}"
        ) from None
    storage.engine.dispose()


class Cache(_CachedStorage):
    """Optuna's cache of finished trials, from which some can be dropped."""

    def forget(self, study_id: int, trial_ids: Iterable[int]) -> None:
        """Drop trials, so that they are read again."""
        for trial_id in trial_ids:
            place = self._trial_id_to_study_id_and_number.pop(trial_id, None)
            if place is not None:
                study = self._studies[study_id]
                del study.trials[place[1]]
                # Optuna rereads unfinished trials, and all that are newer than those in the cache.
                study.unfinished_trial_ids.add(trial_id)


class Reopenings:
    """Tells which trials were reopened since a worker last read a study's trials.

    A trial that has ended, or is paused, changes only if it is reopened, so whoever keeps such
    trials in memory reads just these again. A reopened trial has not ended since, or it has ended
    under a higher token: it must be claimed first. For a trial in memory, `_tokens` never has a
    higher token than the trial had when it was read, because whatever has risen is reported here.
    So one that was reopened is always reported; one that was adopted, read and not reopened is
    reported once too often.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._tokens: dict[int, dict[int, int]] = {}
        """By study and trial, when `_counts` was read; without the first token, 1."""

    def since(self, connection: sa.Connection, study_id: int) -> list[int] | None:
        """Return the trials to read again, None for all; call it before trials are read."""
        count = connection.execute(
            sa.select(t.study.c.reopenings).where(t.study.c.study_id == study_id)
        ).scalar_one_or_none()
        if count is None or self._counts.get(study_id) == count:
            return []
        # After the count: a trial that is reopened in between is compared again by the next call.
        rows = connection.execute(
            sa.select(t.lease.c.trial_id, t.lease.c.token, _IS_OPEN)
            .select_from(t.trial.join(t.lease))
            .where(t.trial.c.study_id == study_id, (t.lease.c.token > 1) | _IS_OPEN)
        ).all()
        tokens = self._tokens.get(study_id)
        self._tokens[study_id] = {row.trial_id: row.token for row in rows if row.token > 1}
        self._counts[study_id] = count
        if tokens is None:
            return None
        return [
            row.trial_id for row in rows if row.is_open or row.token != tokens.get(row.trial_id, 1)
        ]


class Binding:
    """Optuna's storage for one process, taking part in our transactions.

    Not thread-safe: the worker's main loop owns it.
    """

    def __init__(self, database: Database) -> None:
        with _MAKING, _no_version_manager():
            self._rdb = RDBStorage(
                DRIVER,
                engine_kwargs={"creator": database.connect},
                skip_table_creation=True,
                skip_compatibility_check=True,
            )
        self._rdb.engine.dispose()
        self._rdb.engine = database.engine
        self._bind(database.engine)
        self._cached = Cache(self._rdb)
        self._reopenings = Reopenings()

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage, with finished trials kept in memory."""
        return self._cached

    def heed(self, connection: sa.Connection, study_id: int) -> None:
        """Forget cached trials that were reopened; call it before trials are read.

        Optuna's cache never rereads a finished trial: for pruners here, a trial that failed and
        was retried, or was paused and resumed, would stay ended forever.
        """
        reopened = self._reopenings.since(connection, study_id)
        if reopened is None:
            # Nothing is cached yet, unless trials were read without this.
            self._cached = Cache(self._rdb)
        elif reopened:
            self._cached.forget(study_id, reopened)

    @contextmanager
    def within(self, connection: sa.Connection) -> Iterator[BaseStorage]:
        """Yield the storage, with every write part of the connection's transaction."""
        self._bind(connection)
        try:
            yield self._cached
        except BaseException:
            # The cache may contain what was rolled back: a trial that does not exist, or a finished
            # state. It is cheaper to rebuild than to repair.
            self._cached = Cache(self._rdb)
            raise
        finally:
            self._rdb.scoped_session.remove()
            self._bind(connection.engine)

    def _bind(self, bind: sa.Engine | sa.Connection) -> None:
        self._rdb.scoped_session = orm.scoped_session(
            orm.sessionmaker(bind=bind, join_transaction_mode="create_savepoint")
        )


_IS_OPEN = t.lease.c.state.not_in(["paused", "ended"]).label("is_open")
"""Whether a trial is running for Optuna."""
_MAKING = threading.Lock()
"""Held while a storage is created, because `_no_version_manager` replaces a name for all threads.
Two at a time could leave the replacement in place, and tables would be created without a
version."""


@contextmanager
def _no_version_manager() -> Iterator[None]:
    """Create Optuna's storages without their version manager.

    `store/schema` has checked the tables already. Optuna would load Alembic and query the database
    four more times, which costs every worker 0.2 s before its first trial.
    """
    usual = getattr(storage_module, "_VersionManager", None)
    if usual is None:  # an Optuna without this name is just slower
        yield
        return
    storage_module._VersionManager = lambda *_: None  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        storage_module._VersionManager = usual  # type: ignore[misc]


def create_study(storage: BaseStorage, title: str, metric: str, direction: str) -> int:
    """Create the Optuna study for our study's metric and return its id."""
    study_id = storage.create_new_study([StudyDirection[direction.upper()]], study_name=title)
    storage.set_study_system_attr(study_id, METRIC_NAMES, [metric])
    return study_id


def add_trial(
    connection: sa.Connection,
    study_id: int,
    chosen: Mapping[str, Value],
    distributions: Mapping[str, BaseDistribution],
    attributes: Mapping[str, Value],
    *,
    number: int | sa.ScalarSelect[int],
) -> tuple[int, int]:
    """Create a RUNNING trial with its parameters; return its id and number.

    One statement on Optuna's tables instead of its storage's twenty, because other workers wait
    meanwhile. The study's lock keeps them from taking the same number.
    """
    trial = (
        sa.insert(TRIALS)
        .values(
            number=number,
            study_id=study_id,
            state=TrialState.RUNNING,
            datetime_start=datetime.now(),  # noqa: DTZ005  # Optuna stores local times
        )
        .returning(TRIALS.c.trial_id, TRIALS.c.number)
        .cte("made")
    )
    internal = [distributions[name].to_internal_repr(value) for name, value in chosen.items()]
    described = [distribution_to_json(distributions[name]) for name in chosen]
    parameters = {"param_name": [*chosen], "param_value": internal, "distribution_json": described}
    notes = {name: json.dumps(value) for name, value in attributes.items() if value is not None}
    statement = sa.select(trial.c.trial_id, trial.c.number)
    for table, columns in (
        (PARAMETERS, parameters),
        (ATTRIBUTES, {"key": [*notes], "value_json": [*notes.values()]}),
    ):
        # Arrays, not rows: a statement that is the same for every trial is compiled once.
        arrays = (
            sa.cast(values, ARRAY(sa.Double if name == "param_value" else sa.Text))
            for name, values in columns.items()
        )
        given = sa.func.unnest(*arrays).table_valued(*columns).render_derived(name="given")
        of_trial = sa.select(trial.c.trial_id, *given.c).join_from(trial, given, sa.true())
        insertion = sa.insert(table).from_select(["trial_id", *columns], of_trial)
        statement = statement.add_cte(insertion.cte(f"made_{table.name}"))
    trial_id, numbered = connection.execute(statement).one()
    return int(trial_id), int(numbered)


def _set_attributes(
    connection: sa.Connection, trial_id: int, attributes: Mapping[str, Value | None]
) -> None:
    rows = [
        {"trial_id": trial_id, "key": name, "value_json": json.dumps(value)}
        for name, value in attributes.items()
        if value is not None
    ]
    if not rows:
        return
    statement = insert(ATTRIBUTES)
    statement = statement.on_conflict_do_update(
        index_elements=[ATTRIBUTES.c.trial_id, ATTRIBUTES.c.key],
        set_={"value_json": statement.excluded.value_json},
    )
    # With RETURNING, SQLAlchemy sends all rows in one statement; without it, one by one.
    connection.execute(statement.returning(ATTRIBUTES.c.key), rows)


def reports(trial_id: int, values: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return the rows of Optuna's table for values of the study's metric by epoch.

    One statement stores them, where its storage takes six for each value; our fence has checked
    that the trial may still be written.
    """
    represent = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    rows = []
    for epoch, value in values.items():
        stored, kind = represent(value)
        rows.append(
            {
                "trial_id": trial_id,
                "step": epoch,
                "intermediate_value": stored,
                "intermediate_value_type": kind,
            }
        )
    return rows


def remove_reports(connection: sa.Connection, trial_id: int, first: int, rungs: int | None) -> None:
    """Remove a trial's reported values from epoch `first` on.

    The first `rungs` of its completed rungs stay; None keeps all. ASHA and Hyperband store a rung's
    value as an attribute of the trial and compare peers with it.
    """
    connection.execute(
        sa.delete(REPORTS).where(REPORTS.c.trial_id == trial_id, REPORTS.c.step >= first)
    )
    if rungs is None:
        return
    notes: sa.Table = models.TrialSystemAttributeModel.__table__
    mine = (notes.c.trial_id == trial_id) & notes.c.key.startswith(RUNG, autoescape=True)
    rungs_to_keep = [f"{RUNG}{number}" for number in range(rungs)]
    connection.execute(sa.delete(notes).where(mine, notes.c.key.not_in(rungs_to_keep)))


def end_trial(
    connection: sa.Connection,
    trial_id: int,
    state: TrialState,
    value: float | None,
    attributes: Mapping[str, Value | None],
) -> None:
    """End a trial for good, with the attributes that become columns in the dashboard.

    Three statements instead of Optuna's four per attribute; our fence has checked that the trial
    may still be written.
    """
    _set_attributes(connection, trial_id, attributes)
    if value is not None:
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        connection.execute(
            sa.insert(VALUES).values(trial_id=trial_id, objective=0, value=stored, value_type=kind)
        )
    now = datetime.now()  # noqa: DTZ005  # Optuna stores local times
    connection.execute(
        sa.update(TRIALS)
        .where(TRIALS.c.trial_id == trial_id)
        .values(state=state, datetime_complete=now)
    )


def reopen_trials(connection: sa.Connection, trial_ids: Sequence[int]) -> None:
    """Make ended trials RUNNING again, which Optuna's API does not offer."""
    connection.execute(sa.delete(VALUES).where(VALUES.c.trial_id.in_(trial_ids)))
    reasons = ATTRIBUTES.c.trial_id.in_(trial_ids) & (ATTRIBUTES.c.key == "reason")
    connection.execute(sa.delete(ATTRIBUTES).where(reasons))
    connection.execute(
        sa.update(TRIALS)
        .where(TRIALS.c.trial_id.in_(trial_ids))
        .values(state=TrialState.RUNNING, datetime_complete=None)
    )


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Delete a study's rows table by table; Optuna would load each row into memory first."""
    trials = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    tables = models.BaseModel.metadata.sorted_tables
    for table in reversed(tables):
        if table.name != TRIALS.name and "trial_id" in table.c:
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(trials)))
    for table in reversed(tables):
        if "study_id" in table.c:
            connection.execute(sa.delete(table).where(table.c.study_id == study_id))


class TrialsInMemory(optuna.storages.InMemoryStorage):
    """A read-only snapshot of a study's trials for samplers; their writes are dropped."""

    def __init__(self, trials: Sequence[FrozenTrial], direction: str) -> None:
        super().__init__()
        self._frozen = list(trials)
        self._direction = StudyDirection[direction.upper()]

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: ARG002
        """Return the id of the only study."""
        return 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: ARG002
        """Return the study's direction."""
        return [self._direction]

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: object = None,
    ) -> list[FrozenTrial]:
        """Return the trials of the snapshot."""
        if states is None:
            return self._frozen
        return [trial for trial in self._frozen if trial.state in states]  # type: ignore[operator]

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        """Ignore a sampler's notes for its peers: our trials get all parameters at once."""
