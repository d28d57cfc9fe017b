"""Creating studies, finding them by name and version, extending, stopping and deleting them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tuner.errors import StudyConflictError, UnknownStudyError
from tuner.names import meant
from tuner.spec import identity
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store import identities
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import StudyState
from tuner.store.ledger.locks import lock_study

if TYPE_CHECKING:
    # Loaded only to create or delete a study, so that commands that only read skip Optuna.
    from optuna.storages import BaseStorage

    from tuner.store.optuna_storage import Binding


@dataclass(frozen=True)
class Study:
    """A stored study: one version, with the study file that it was launched from."""

    study_id: int
    name: str
    version: int
    spec: Spec
    fingerprint: str
    state: StudyState
    reason: str
    created: datetime
    provenance: Mapping[str, Any]
    versions: int = field(default=1, compare=False)
    """How many versions of this name were stored when this was read."""
    tags: tuple[str, ...] = ()
    archived: datetime | None = None
    note: str = ""

    @property
    def full_name(self) -> str:
        """The name that always means this version, including the first one: `name@1`."""
        return f"{self.name}@{self.version}"

    @property
    def ref(self) -> StudyRef:
        """A reference that always means this version."""
        return StudyRef(self.name, self.version)

    @property
    def title(self) -> str:
        """The name for people: `name` while there is one version, `name@1` once there are two.

        The bare name means the newest version, so it must not be shown for an older one.
        """
        return self.name if self.version == self.versions == 1 else self.full_name

    @property
    def optuna_name(self) -> str:
        """The study's name in Optuna, which never changes: `name`, then `name@2`."""
        return optuna_name(self.name, self.version)


@dataclass(frozen=True)
class Launch:
    """The result of launching: the study, and whether it was created, extended or found."""

    study: Study
    what: str  # created | extended | found | replaced
    changes: Sequence[str] = ()


def optuna_name(name: str, version: int) -> str:
    """Return the name of a study in Optuna's tables."""
    return name if version == 1 else f"{name}@{version}"


def find(connection: sa.Connection, ref: StudyRef) -> Study:
    """Return the study of a reference: a version, or the newest version of a name or a file."""
    study = find_or_none(connection, ref)
    if study is not None:
        return study
    if ref.path is not None and ref.path.is_file():
        raise UnknownStudyError(
            f"{ref} is a study file, and no study {ref.name!r} is stored in this database yet: "
            f"`tuner launch {ref}` trains it."
        )
    title = str(StudyRef(ref.name, ref.version))
    hint = meant(title, [study.title for study in listing(connection)])
    raise UnknownStudyError(
        f"There is no study {title!r} in this database.{hint or ' `tuner studies` lists them.'}"
    )


def find_or_none(connection: sa.Connection, ref: StudyRef) -> Study | None:
    """Return the study of a reference, or None if it is not stored."""
    query = _studies().where(t.study.c.name == ref.name).order_by(t.study.c.version.desc()).limit(1)
    if ref.version is not None:
        query = query.where(t.study.c.version == ref.version)
    row = connection.execute(query).one_or_none()
    return None if row is None else _study(row)


def listing(connection: sa.Connection) -> list[Study]:
    """Return all studies, oldest first."""
    rows = connection.execute(_studies().order_by(t.study.c.created, t.study.c.study_id))
    return [_study(row) for row in rows]


def foremost(connection: sa.Connection, most: int) -> list[Study]:
    """Return at most this many studies that are not archived: open ones first, then the newest."""
    shown = _studies().where(t.study.c.archived.is_(None))
    order = (t.study.c.state != "open", t.study.c.created.desc(), t.study.c.study_id.desc())
    return [_study(row) for row in connection.execute(shown.order_by(*order).limit(most))]


def by_id(connection: sa.Connection, study_id: int) -> Study:
    """Return the study with this id."""
    row = connection.execute(_studies().where(t.study.c.study_id == study_id)).one_or_none()
    if row is None:
        raise UnknownStudyError("The study was deleted.")
    return _study(row)


def in_state(connection: sa.Connection, state: StudyState) -> list[Study]:
    """Return all studies in a state, oldest first."""
    found = _studies().where(t.study.c.state == state)
    rows = connection.execute(found.order_by(t.study.c.created, t.study.c.study_id))
    return [_study(row) for row in rows]


def names(connection: sa.Connection) -> list[str]:
    """Return the names that people can use, newest first: lr, and lr@1 once there is an lr@2."""
    rows = connection.execute(
        sa.select(t.study.c.name, t.study.c.version).order_by(t.study.c.created.desc())
    ).all()
    several = Counter(row.name for row in rows)
    bare = dict.fromkeys(row.name for row in rows)
    return [*bare, *(f"{row.name}@{row.version}" for row in rows if several[row.name] > 1)]


def versions(connection: sa.Connection, name: str) -> list[Study]:
    """Return all versions of a study, oldest first."""
    query = _studies().where(t.study.c.name == name).order_by(t.study.c.version)
    return [_study(row) for row in connection.execute(query)]


def launch(
    database: Database,
    binding: "Binding",
    spec: Spec,
    provenance: Mapping[str, Any],
    *,
    new_version: bool,
    changed: bool = False,
) -> Launch:
    """Create the study, extend the stored one, or find it unchanged; then open it for work.

    If code or data `changed`, an unchanged file may be launched as a new version too.
    """
    with database.transaction() as connection, binding.within(connection) as storage:
        # If two launch one name at once, the second waits here and then finds what the first
        # created.
        key = sa.func.hashtext(f"tuner study {spec.name}")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        study = find_or_none(connection, StudyRef(spec.name))
        if study is None:
            return Launch(_create(connection, storage, spec, 1, provenance), "created")
        study = locked(connection, study)
        new_anyway = new_version and changed
        if not new_anyway and (equal := _launched_before(connection, spec)) is not None:
            _open(connection, equal)
            return Launch(find(connection, equal.ref), "found")
        difference = identity.compare(study.spec, spec)
        changes = tuple(str(change) for change in difference.changes)
        if new_version:
            version = study.version + 1
            created = _create(connection, storage, spec, version, provenance)
            if (study.spec.space, study.spec.search) == (spec.space, spec.search):
                # A new version trains the same settings longer or by other code, so it also
                # gets the queue.
                _copy_queue(connection, study, created)
            return Launch(created, "created", changes)
        if not difference.extends and _failed_untrained(connection, study):
            # A fault in the stored file (bce with three classes) can be fixed under the same
            # name, because there are no epochs that could be mixed with the new study's.
            delete(connection, study)
            created = _create(connection, storage, spec, study.version, provenance)
            return Launch(created, "replaced", changes)
        if not difference.extends:
            telling = [c for c in difference.changes if c.key not in identity.HARMLESS]
            raise StudyConflictError(_conflict(study, [str(change) for change in telling]))
        extend(connection, study, spec)
        return Launch(find(connection, study.ref), "extended", changes)


def continued(connection: sa.Connection, spec: Spec) -> Study | None:
    """Return the stored version that launching a file would continue, if there is one."""
    return _asked_before(connection, spec) or find_or_none(connection, StudyRef(spec.name))


def go_on(connection: sa.Connection, ref: StudyRef, who: str = "") -> Launch:
    """Open a stored study for work again, without its file."""
    study = locked(connection, find(connection, ref))
    _open(connection, study, who)
    return Launch(find(connection, study.ref), "found")


def read_spec(connection: sa.Connection, study: Study) -> Spec:
    """Return the study's spec as stored now: a launch may have extended it meanwhile."""
    row = connection.execute(
        sa.select(t.study.c.fingerprint, t.study.c.spec).where(t.study.c.study_id == study.study_id)
    ).one()
    return study.spec if row.fingerprint == study.fingerprint else Spec.from_json(row.spec)


def set_state(
    connection: sa.Connection, study: Study, state: StudyState, reason: str, who: str = ""
) -> None:
    """Change a study's state, and record that in its history."""
    connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == study.study_id)
        .values(state=state, reason=reason)
    )
    add_event(connection, study, state, reason, who)


def delete(connection: sa.Connection, study: Study) -> None:
    """Delete a study with everything that belongs to it, in both schemas."""
    from tuner.store import optuna_storage

    # In the ledger's order of locks: a worker commits first, and later finds that its trial is
    # gone. Deleting from the top would deadlock with it.
    lock_study(connection, study.study_id)
    leases = sa.select(t.lease.c.trial_id).where(t.lease.c.study_id == study.study_id)
    connection.execute(leases.order_by(t.lease.c.trial_id).with_for_update())
    connection.execute(sa.delete(t.study).where(t.study.c.study_id == study.study_id))
    optuna_storage.delete_study(connection, study.study_id)


def _failed_untrained(connection: sa.Connection, study: Study) -> bool:
    """Return whether a study failed before its first epoch and no worker is training it.

    The study is locked, so no trial is claimed meanwhile. A worker with a trial may be in its
    first epoch, so an unexpired lease keeps the study as it is.
    """
    trials = sa.select(t.trial.c.trial_id).where(t.trial.c.study_id == study.study_id)

    def any_of(table: sa.Table, *where: sa.ColumnElement[bool]) -> bool:
        query = sa.select(table.c.trial_id).where(table.c.trial_id.in_(trials), *where).limit(1)
        return connection.execute(query).first() is not None

    working = t.lease.c.state == "held", t.lease.c.expires > sa.func.clock_timestamp()
    if any_of(t.epoch) or any_of(t.lease, *working):
        return False
    return study.state == "paused" or any_of(t.outcome, t.outcome.c.state == "FAILED")


def _create(
    connection: sa.Connection,
    storage: "BaseStorage",
    spec: Spec,
    version: int,
    provenance: Mapping[str, Any],
) -> Study:
    from optuna.exceptions import DuplicatedStudyError

    from tuner.store import optuna_storage

    name = optuna_name(spec.name, version)
    try:
        study_id = optuna_storage.create_study(storage, name, spec.search.metric, spec.direction)
    except DuplicatedStudyError:
        raise StudyConflictError(
            f"This database already has an Optuna study {name!r} that tuner did not create. "
            "Choose another name for yours."
        ) from None
    storage.set_study_user_attr(study_id, "question", spec.question)
    connection.execute(
        sa.insert(t.study).values(
            study_id=study_id,
            name=spec.name,
            version=version,
            spec=spec.to_json(),
            fingerprint=identity.fingerprint(spec),
            state="open",
            provenance=dict(provenance),
        )
    )
    study = find(connection, StudyRef(spec.name, version))
    add_event(connection, study, "launched", _trials(spec.total_trials))
    return study


def _copy_queue(connection: sa.Connection, study: Study, version: Study) -> None:
    columns = (t.queued.c.number, t.queued.c.chosen, t.queued.c.configuration)
    rows = sa.select(sa.literal(version.study_id), *columns).where(
        t.queued.c.study_id == study.study_id
    )
    names = [t.queued.c.study_id, *columns]
    connection.execute(sa.insert(t.queued).from_select(names, rows))


def _launched_before(connection: sa.Connection, spec: Spec) -> Study | None:
    """Return the newest version with exactly this spec, locked, if there is one."""
    study = _asked_before(connection, spec)
    return None if study is None else locked(connection, study)


def _asked_before(connection: sa.Connection, spec: Spec) -> Study | None:
    wanted = (t.study.c.name == spec.name) & (t.study.c.fingerprint == identity.fingerprint(spec))
    query = _studies().where(wanted).order_by(t.study.c.version.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _study(row)


def locked(connection: sa.Connection, study: Study) -> Study:
    """Return a study as it is now, and block claims and endings until the transaction ends."""
    # A claim may be ending the study right now because of the old budget. Either it sees our
    # extension, or we see that the study has ended and open it again.
    lock_study(connection, study.study_id)
    now = find(connection, study.ref)
    # While we waited, it may have been deleted and its name given to another study, which is not
    # locked and not the one that was meant.
    if now.study_id != study.study_id:
        raise UnknownStudyError(
            f"{study.title} was deleted in the meantime, and another study now has its name."
        )
    return now


def _open(connection: sa.Connection, study: Study, who: str = "") -> None:
    identities.reset(connection, study.study_id)
    if study.state in ("open", "complete"):
        return
    connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == study.study_id)
        .values(state="open", reason="", opened=sa.func.clock_timestamp())
    )
    add_event(connection, study, "opened", f"it was {study.state}", who)


def extend(connection: sa.Connection, study: Study, launched: Spec, who: str = "") -> None:
    """Extend a locked study to the trials and seeds of a given spec, and open it."""
    identities.reset(connection, study.study_id)
    spec = identity.extended(study.spec, launched)
    connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == study.study_id)
        .values(
            spec=spec.to_json(),
            fingerprint=identity.fingerprint(spec),
            state="open",
            reason="",
            opened=sa.func.clock_timestamp(),
        )
    )
    add_event(connection, study, "extended", f"to {_trials(spec.total_trials)}", who)


def add_event(connection: sa.Connection, study: Study, kind: str, text: str, who: str = "") -> None:
    """Add a line to a study's history."""
    row = {"study_id": study.study_id, "kind": kind, "text": text, "who": who}
    connection.execute(sa.insert(t.event).values(row))


def _conflict(study: Study, changes: Sequence[str]) -> str:
    lines = "\n".join(f"  {change}" for change in changes)
    return (
        f"The study {study.title} exists, and this file differs from the one that it was launched "
        f"with:\n{lines}\n"
        "More trials or more seeds extend a study; any other change would mix two different "
        "studies. "
        "Launch it as a new version with --new-version, or undo the change."
    )


def _studies() -> sa.Select[Any]:
    """Select studies, each with the number of versions of its name."""
    same = t.study.alias()
    count = sa.select(sa.func.count()).where(same.c.name == t.study.c.name).scalar_subquery()
    return sa.select(t.study, count.label("versions"))


def _study(row: Any) -> Study:
    return Study(
        study_id=row.study_id,
        name=row.name,
        version=row.version,
        spec=_spec(json.dumps(row.spec)),
        fingerprint=row.fingerprint,
        state=row.state,
        reason=row.reason,
        created=row.created,
        provenance=row.provenance,
        versions=row.versions,
        tags=tuple(row.tags),
        archived=row.archived,
        note=row.note,
    )


@lru_cache(maxsize=256)
def _spec(stored: str) -> Spec:
    """Parse a stored spec; cached, because one with a grid of thousands takes long."""
    return Spec.from_json(json.loads(stored))


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"
