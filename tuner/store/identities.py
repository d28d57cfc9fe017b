"""The code and data that a study is trained with, and accepted changes of them.

The newest row of each kind and key is in force. The first trial of a study writes the first row.
Accepting a change adds a row, which remains as a mark on the study. A trial whose code or data
differ from the newest row is not recorded.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tuner.records import DataIdentity, Identity, Value
from tuner.store import tables as t

CODE, DATA, IMAGES, TUNER = "code", "data", "images", "tuner"
SHOWN = 8
"""At most this many changed files are listed."""


@dataclass(frozen=True)
class IdentityPart:
    """One part of an identity: kind and key, hash, and the content for describing differences."""

    kind: str
    key: str
    fingerprint: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Mark:
    """An accepted change: when, what, and how many trials had ended by then."""

    made: datetime
    kind: str
    changes: tuple[str, ...]
    ended: int

    @property
    def sentence(self) -> str:
        """Return a sentence for readers of the study's answers."""
        what = "; ".join(self.changes)
        trials = "1 trial" if self.ended == 1 else f"{self.ended} trials"
        if self.kind == TUNER:
            return f"Trained with more than one version of tuner: {what} after {trials}."
        return (
            f"Code or data changed while this study ran, and the change was accepted on "
            f"{self.made:%Y-%m-%d} after {trials}: {what}. Trials before and after the change are "
            "compared as if nothing had changed."
        )


def is_settled(connection: sa.Connection, study_id: int) -> bool:
    """Return whether results of the study depend on its code and data, or may soon."""
    trials = sa.select(t.trial.c.trial_id).where(t.trial.c.study_id == study_id)
    results = t.outcome.c.state.in_(["COMPLETE", "PRUNED"])
    # Expired leases count, because their worker may wake up and go on with the old code. So do
    # paused trials: they were compared by the results of that code.
    training = t.lease.c.state.in_(["held", "paused"])
    return any(
        connection.execute(
            sa.select(table.c.trial_id).where(table.c.trial_id.in_(trials), where).limit(1)
        ).first()
        is not None
        for table, where in ((t.outcome, results), (t.lease, training))
    )


def reset(connection: sa.Connection, study_id: int) -> None:
    """Let the next trial set the study's code and data again, unless results depend on them.

    For people who fix an objective after its first trials failed. The caller holds the study's
    lock, so no trial is claimed meanwhile, and every trial is compared again when it is built.
    Epochs of the old code stay only if the new code reproduces their figures.
    """
    if not is_settled(connection, study_id):
        connection.execute(sa.delete(t.identity).where(t.identity.c.study_id == study_id))


def check(connection: sa.Connection, study_id: int, identity: Identity) -> list[str]:
    """Return the differences from the study's identity; store the parts it does not have yet."""
    changes: list[str] = []
    for part in parts(identity):
        # The first writer wins: if a peer's row came first, ours is compared with it.
        _insert(connection, study_id, part, 1)
        stored = _newest(connection, study_id, part)
        if part.kind == TUNER:
            _note_tuner(connection, study_id, part, stored)
        elif stored.fingerprint != part.fingerprint:
            changes += differences(stored, part)
    return list(dict.fromkeys(changes))


def accept(connection: sa.Connection, study_id: int, identity: Identity) -> list[str]:
    """Make this code and data the study's from now on, and mark it; return the changes."""
    changes: list[str] = []
    for part in parts(identity):
        if part.kind == TUNER:
            continue
        _insert(connection, study_id, part, 1)
        stored = _newest(connection, study_id, part)
        if stored.fingerprint != part.fingerprint:
            changes += differences(stored, part)
            _insert(connection, study_id, part, stored.number + 1)
    changes = list(dict.fromkeys(changes))
    if changes:
        text = "; ".join(changes)
        connection.execute(
            sa.insert(t.event).values(study_id=study_id, kind="change accepted", text=text)
        )
    return changes


def current(connection: sa.Connection, study_id: int) -> list[IdentityPart]:
    """Return the newest row of each kind and key, oldest key first."""
    rows = connection.execute(
        sa.select(t.identity)
        .where(t.identity.c.study_id == study_id)
        .order_by(t.identity.c.kind, t.identity.c.number, t.identity.c.made)
    )
    newest = {(row.kind, row.key): row for row in rows}
    return [IdentityPart(row.kind, row.key, row.fingerprint, row.body) for row in newest.values()]


def changes(
    stored: Sequence[IdentityPart], identities: Sequence[Identity], *, objective: str, whole: bool
) -> list[str]:
    """Return the differences between a study's stored parts and these identities.

    Unless the code was loaded whole, a file or package missing from it does not count as removed.
    """
    stored_parts = {(part.kind, part.key): part for part in stored}
    differing: list[str] = []
    for identity in identities:
        for part in parts(identity):
            before = stored_parts.get((part.kind, part.key))
            if before is None or part.kind == TUNER or before.fingerprint == part.fingerprint:
                continue
            now = part if whole or part.kind != CODE else _completed(part, before, objective)
            differing += differences(before, now)
    return list(dict.fromkeys(differing))


def _completed(part: IdentityPart, stored: IdentityPart, objective: str) -> IdentityPart:
    """Fill in files outside the objective's folder, and packages, from the stored part."""
    own = {name: it for name, it in part.body["files"].items() if name.startswith(f"{objective}/")}
    seen = {name: it for name, it in part.body["files"].items() if name in stored.body["files"]}
    outside = {
        name: it
        for name, it in stored.body["files"].items()
        if not name.startswith(f"{objective}/")
    }
    packages = {
        name: part.body["packages"].get(name, version)
        for name, version in stored.body["packages"].items()
    }
    return IdentityPart(CODE, "", "", {"files": {**outside, **seen, **own}, "packages": packages})


def marks(connection: sa.Connection, study_id: int) -> list[Mark]:
    """Return the accepted changes of a study, oldest first."""
    rows = connection.execute(
        sa.select(t.identity)
        .where(t.identity.c.study_id == study_id)
        .order_by(t.identity.c.made, t.identity.c.kind, t.identity.c.key)
    ).all()
    before: dict[tuple[str, str], Any] = {}
    marks: list[Mark] = []
    for row in rows:
        if row.number > 1:
            changes = tuple(differences(before[row.kind, row.key], row))
            mark = Mark(row.made, row.kind, changes, _ended(connection, study_id, row.made))
            # Changes accepted together, whose times differ by fractions of a second, are one mark.
            if marks and marks[-1].kind != TUNER != mark.kind and marks[-1].ended == mark.ended:
                last = marks.pop()
                joined = tuple(dict.fromkeys((*last.changes, *changes)))
                mark = Mark(last.made, last.kind, joined, last.ended)
            marks.append(mark)
        before[row.kind, row.key] = row
    return marks


def parts(identity: Identity) -> list[IdentityPart]:
    """Return the parts of an identity, which are compared one by one."""
    data = identity.data
    code = {"files": dict(identity.files), "packages": dict(identity.packages)}
    counts = _counts(data)
    found_parts = [
        IdentityPart(CODE, "", _hash(code), code),
        data_part(data),
        IdentityPart(TUNER, "", identity.trainer, {"tuner": identity.tuner}),
    ]
    if data.images:
        total = {"keys": data.images_keys, "counts": _total(counts)}
        found_parts.insert(2, IdentityPart(IMAGES, _hash(data.images_keys), data.images, total))
    return found_parts


def data_part(data: DataIdentity) -> IdentityPart:
    """Return the part of an identity that tells whether images and labels are the same."""
    counts = _counts(data)
    body = {"keys": data.keys, "counts": counts}
    return IdentityPart(DATA, _hash(data.keys), _hash([data.fingerprint, counts]), body)


def data_fingerprints(
    connection: sa.Connection, study_id: int, keys: Mapping[str, Value]
) -> tuple[str, ...]:
    """Return the hashes of all data that a study was trained on under these keys of [data].

    Several if changes were accepted; none if the study is older than identities.
    """
    rows = connection.execute(
        sa.select(t.identity.c.fingerprint)
        .where(
            t.identity.c.study_id == study_id,
            t.identity.c.kind == DATA,
            t.identity.c.key == _hash(json.dumps(dict(keys), sort_keys=True)),
        )
        .order_by(t.identity.c.number)
    )
    return tuple(rows.scalars())


def _counts(data: DataIdentity) -> dict[str, dict[str, int]]:
    return {split: dict(of) for split, of in data.counts.items()}


def _hash(of: object) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def differences(stored: Any, found: Any) -> list[str]:
    """Describe the differences between two parts of the same kind and key."""
    if found.kind == CODE:
        return list(code_changes(stored.body, found.body))
    if found.kind == TUNER:
        versions = stored.body["tuner"], found.body["tuner"]
        same = f"{versions[0]}, with other training code"
        return [same if versions[0] == versions[1] else " and ".join(versions)]
    return _data_changes(stored.body["counts"], found.body["counts"])


def code_changes(stored: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a description of each file and package that differs."""
    old, new = stored["files"], found["files"]
    differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    for name in differing[:SHOWN]:
        how = "is new" if name not in old else "was removed" if name not in new else "changed"
        yield f"{name} {how}"
    if len(differing) > SHOWN:
        yield f"{len(differing) - SHOWN} more files differ"
    old, new = stored["packages"], found["packages"]
    for name in sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
        yield f"package {name}: {old.get(name, 'not imported')} → {new.get(name, 'not imported')}"


def _data_changes(stored: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    changes = [
        f"images of class {name} in {split}: {before} → {after}"
        for split in dict.fromkeys([*stored, *found])
        for name in dict.fromkeys([*stored.get(split, {}), *found.get(split, {})])
        if (before := stored.get(split, {}).get(name, 0))
        != (after := found.get(split, {}).get(name, 0))
    ]
    return changes or [
        "same number of images per class, but different pixels, labels, names or split"
    ]


def _total(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    total: dict[str, int] = {}
    for split in counts.values():
        for name, count in split.items():
            total[name] = total.get(name, 0) + count
    return {"all splits": total}


def _insert(connection: sa.Connection, study_id: int, part: IdentityPart, number: int) -> None:
    connection.execute(
        insert(t.identity)
        .values(
            study_id=study_id,
            kind=part.kind,
            key=part.key,
            number=number,
            fingerprint=part.fingerprint,
            body=dict(part.body),
        )
        # If a peer is storing the same key, this waits for it and keeps the peer's row.
        .on_conflict_do_nothing()
    )


def _newest(connection: sa.Connection, study_id: int, part: IdentityPart) -> Any:
    return connection.execute(
        sa.select(t.identity)
        .where(
            t.identity.c.study_id == study_id,
            t.identity.c.kind == part.kind,
            t.identity.c.key == part.key,
        )
        .order_by(t.identity.c.number.desc())
        .limit(1)
    ).one()


def _note_tuner(connection: sa.Connection, study_id: int, part: IdentityPart, newest: Any) -> None:
    """Store each version of tuner that trains once, though workers of two versions alternate."""
    row = connection.execute(
        sa.select(t.identity.c.number).where(
            t.identity.c.study_id == study_id,
            t.identity.c.kind == TUNER,
            t.identity.c.fingerprint == part.fingerprint,
        )
    ).first()
    if row is None:
        _insert(connection, study_id, part, newest.number + 1)
        text = f"tuner: {'; '.join(differences(newest, part))}"
        connection.execute(sa.insert(t.event).values(study_id=study_id, kind="upgraded", text=text))


def _ended(connection: sa.Connection, study_id: int, made: datetime) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(t.outcome.join(t.trial))
        .where(t.trial.c.study_id == study_id, t.outcome.c.ended < made)
    )
    return int(connection.execute(query).scalar_one())


def refusal(title: str, changes: Sequence[str], where: str) -> str:
    """Return the message that a study cannot be continued: why, and the three ways out."""
    lines = "\n".join(f"  {change}" for change in changes)
    return (
        f"{where} differ from what the study {title} was trained with:\n{lines}\n"
        "Its trials would not be comparable. Either restore the original code and data, or retrain "
        f"the study with `tuner launch {title} --new-version`, or continue anyway with "
        f"`tuner launch {title} --accept-changes`, which marks the study."
    )
