"""The tables of the schema `tuner`, beside Optuna's own in the same database.

Optuna stores studies, trials, parameters, curves of the study's metric and
states; these tables store what Optuna has no place for. `trial_id` and `study_id`
are Optuna's, without foreign keys into its tables, so as not to block Optuna's
migrations. Changes go through `migrations/`; a test compares the two.
"""

import math
from dataclasses import Field, fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    FromClause,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    case,
    cast,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.types import TypeDecorator, TypeEngine

from tuner.records import DIVERGED, OWN, Epoch, Figures

SCHEMA = "tuner"
REVISION = "0021"
"""The newest migration: the schema that this program reads and writes."""
CHANNEL = "tuner"
"""The channel on which triggers announce the id of a study whose rows changed (migration 0009)."""
metadata = MetaData(schema=SCHEMA)

NOW = text("clock_timestamp()")


def _moment(name: str, *, required: bool = False) -> Column[object]:
    if required:
        return Column(name, DateTime(timezone=True), nullable=False, server_default=NOW)
    return Column(name, DateTime(timezone=True))


class OwnFigures(TypeDecorator[dict[str, float]]):
    """Figures of further metrics by column, as JSON: NaN, which JSON lacks, is null there."""

    impl = JSONB
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> Any:  # noqa: ARG002
        """Return the JSON of figures."""
        if value is None:
            return None
        return {name: one if math.isfinite(one) else None for name, one in value.items()}

    def process_result_value(self, value: Any, dialect: object) -> dict[str, float]:  # noqa: ARG002
        """Return the figures from JSON; none for rows that are older than further metrics."""
        return {
            name: math.nan if one is None else float(one) for name, one in (value or {}).items()
        }


def _kind(field: Field[Any]) -> TypeEngine[Any]:
    """Return the type of the column that stores a record's field."""
    if field.name == OWN:
        return OwnFigures()
    if field.type is bool:
        return Boolean()
    return Integer() if field.type is int else Double()


def _unmeasured(field: Field[Any]) -> TextClause | None:
    """Return the value of a figure in rows older than it: NaN, the default of its record."""
    if field.name == OWN:
        return text("'{}'")
    return text("'NaN'") if isinstance(field.default, float) else None


study = Table(
    "study",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    # JSON, not JSONB, to keep the order of [fixed] in the file: tables show columns in it.
    Column("spec", JSON, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("state", Text, nullable=False),  # open | stopped | paused | complete
    Column("reason", Text, nullable=False, server_default=""),
    Column("provenance", JSONB, nullable=False),
    _moment("created", required=True),
    _moment("opened", required=True),
    # How many times ended trials were reopened, which makes a worker's cache of them stale.
    Column("reopenings", Integer, nullable=False, server_default="0"),
    # Labels by people: tags, the time it was archived, and a note.
    Column("tags", JSONB, nullable=False, server_default=text("'[]'")),
    _moment("archived"),
    Column("note", Text, nullable=False, server_default=""),
    # The order in which workers on any study take open studies: highest first.
    Column("priority", Integer, nullable=False, server_default="0"),
    UniqueConstraint("name", "version"),
)

trial = Table(
    "trial",
    metadata,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("configuration", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("chosen", JSONB, nullable=False),
    _moment("created", required=True),
    UniqueConstraint("study_id", "number"),
    UniqueConstraint("study_id", "configuration", "seed"),
    # Claims ask for the last cell in the order in which cells are assigned.
    Index("trial_by_seed", "study_id", "seed", "configuration"),
)

worker = Table(
    "worker",
    metadata,
    Column("worker_id", BigInteger, Identity(), primary_key=True),
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text, nullable=False),
    _moment("started", required=True),
    _moment("seen", required=True),
    _moment("ended"),
    Column("active_seconds", Double, nullable=False, server_default="0"),
    # These seconds times its share of the device: half, beside another worker on a GPU. NULL for
    # workers of an older program, whose share is 1.
    Column("device_seconds", Double),
    # The price of its device, if its machine has its own price.
    Column("price_per_hour", Double),
    # Epochs that it has stored, minus those that it removed; without reused ones.
    Column("trained", BigInteger, nullable=False, server_default="0"),
    # The load of its device and memory at its last renewal.
    Column("load", JSONB),
    # Its counts since it joined (`tallies`).
    Column("tally", JSONB),
    Index("worker_by_study", "study_id"),
    postgresql_with={"fillfactor": 60},
)

lease = Table(
    "lease",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("study_id", Integer, nullable=False),
    Column("state", Text, nullable=False),  # held | released | paused | ended
    Column("worker_id", BigInteger, nullable=False),
    Column("token", Integer, nullable=False),
    # In a row, without a new epoch in between: failed attempts, and attempts that ended
    # because a process or machine died, with the machines on which that happened.
    Column("strikes", Integer, nullable=False, server_default="0"),
    _moment("claimed", required=True),
    _moment("renewed", required=True),
    _moment("expires", required=True),
    Column("interruptions", Integer, nullable=False, server_default="0"),
    Column("hosts", JSONB, nullable=False, server_default=text("'[]'")),
    # The last epoch of a training that another one replaced.
    Column("removed_epochs", Integer, nullable=False, server_default="0"),
    # How many stretches of training it was assigned; one unless it was ever paused.
    Column("stretches", Integer, nullable=False, server_default="1"),
    # The key of the checkpoint from which a paused trial resumes, until a worker holds it again.
    Column("checkpoint", Text),
    # The last epoch that the study's budget in epochs allows it for now. Of a paused trial: the
    # budget paused it there; one paused at a rung has NULL.
    Column("granted", Integer),
    # Claims search only leases that have not ended, which are few in a study of any length.
    # `expires` is in no index, so that a renewal updates no index.
    Index("lease_open", "study_id", "worker_id", postgresql_where=text("state <> 'ended'")),
    postgresql_with={"fillfactor": 60},
)

epoch = Table(
    "epoch",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("token", Integer, nullable=False),
    _moment("recorded", required=True),
    *(
        Column(field.name, _kind(field), nullable=False, server_default=_unmeasured(field))
        for field in fields(Epoch)
        if field.name != "epoch"
    ),
)


def figure(of: FromClause, metric: str) -> ColumnElement[Any]:
    """Return the column of a validation figure in the table `epoch` or an alias of it.

    Figures of further metrics are in JSON; one that is undefined, or missing, is NULL.
    """
    return of.c[metric] if metric in of.c else own_figure(of.c[OWN], metric)


def own_figure(own: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    """Return one of the figures in a column of further metrics, as a number."""
    return cast(type_coerce(own, JSONB)[name].astext, Double)


decision = Table(
    "decision",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("prune", Boolean, nullable=False),
    Column("pruner", Text, nullable=False),
    Column("saw", JSONB, nullable=False),
    _moment("made", required=True),
)
rung = Table(
    "rung",
    metadata,
    # The study's metric as it would be if the trial had ended at this epoch.
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("value", Double, nullable=False),
)

stretch = Table(
    "stretch",
    metadata,
    # One row per stretch, so that none is assigned twice; ids are in the order of decisions.
    Column("stretch_id", BigInteger, Identity(), primary_key=True),
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), nullable=False),
    Column("start", Integer, nullable=False),
    Column("until", Integer),  # the epoch at which it pauses; NULL: the trial's end
    Column("why", Text, nullable=False),  # promotion.Why
    Column("saw", JSONB, nullable=False),
    _moment("made", required=True),
    UniqueConstraint("trial_id", "start"),
)

outcome = Table(
    "outcome",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=False),  # COMPLETE | PRUNED | FAILED
    Column("reason", Text, nullable=False, server_default=""),
    Column("token", Integer, nullable=False),
    *(Column(f"best_{field.name}", _kind(field)) for field in fields(Figures)),
    *(Column(f"last_{field.name}", _kind(field)) for field in fields(Figures)),
    Column("setup", JSONB),
    _moment("ended", required=True),
    # Sums over the trial's epochs, which no longer change, so that a study of many trials is read
    # without its epochs. NULL if a worker of an older program ended the trial.
    Column("epochs_run", Integer),
    Column("epochs_reused", Integer),
    Column("seconds", Double),  # without reused epochs
    Column("seconds_alone", Double),
)
ended_as = case(
    ((outcome.c.state == "PRUNED") & outcome.c.reason.startswith(DIVERGED), "DIVERGED"),
    else_=outcome.c.state,
)
"""How a trial ended, for people.

Optuna has no state for a diverged trial and calls it PRUNED, though no pruner stopped it.
"""
attempts = lease.c.token - lease.c.stretches + 1
"""How often a trial was claimed, without resumptions after a pause."""
trial_state = case(
    (ended_as.is_not(None), ended_as),
    (lease.c.state == "paused", "PAUSED"),
    ((lease.c.state == "held") & (lease.c.expires > NOW), "RUNNING"),
    else_="WAITING",
)
"""How a trial ended, or whether it is paused, running, or waiting for a worker."""

dataset = Table(
    "dataset",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("classes", JSONB, nullable=False),
    Column("sizes", JSONB, nullable=False),
)

label = Table(
    "label",
    metadata,
    Column("fingerprint", ForeignKey(dataset.c.fingerprint, ondelete="CASCADE"), primary_key=True),
    Column("split", Text, primary_key=True),
    Column("ids", JSONB, nullable=False),
    Column("labels", LargeBinary, nullable=False),  # little-endian int64
    # By image; an empty list if the data name no patients, NULL before the fourth migration.
    Column("patients", JSONB),
)

prediction = Table(
    "prediction",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("split", Text, primary_key=True),
    Column("moment", Text, primary_key=True),  # best | last
    Column("classes", Integer, nullable=False),
    Column("log_probabilities", LargeBinary),  # little-endian float32, by image
    # The upload with their pieces, if they are too large for one value.
    Column("token", Integer),
)

resampled = Table(
    "resampled",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("split", Text, primary_key=True),
    Column("moment", Text, primary_key=True),  # best | last
    Column("metric", Text, primary_key=True),
    # Little-endian float32, by resample of the images or patients (`Predictions.resampled`).
    Column("content", LargeBinary, nullable=False),
)

upload = Table(
    "upload",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("token", Integer, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    _moment("begun", required=True),
)

piece = Table(
    "piece",
    metadata,
    Column("trial_id", Integer, primary_key=True),
    Column("token", Integer, primary_key=True),
    Column("split", Text, primary_key=True),
    Column("moment", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["trial_id", "token"], [upload.c.trial_id, upload.c.token], ondelete="CASCADE"
    ),
)

output = Table(
    "output",
    metadata,
    Column("trial_id", ForeignKey(trial.c.trial_id, ondelete="CASCADE"), primary_key=True),
    Column("token", Integer, primary_key=True),
    Column("worker_id", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    _moment("stored", required=True),
)

check = Table(
    "check",
    metadata,
    Column("check_id", BigInteger, Identity(), primary_key=True),
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), nullable=False),
    Column("body", JSONB, nullable=False),
    _moment("made", required=True),
    Index("check_by_study", "study_id", "check_id"),
)

look = Table(
    "look",
    metadata,
    # One row per look, so that it is decided as a whole and only once.
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("rounds", Integer, nullable=False),
    Column("racing", JSONB, nullable=False),  # configurations, the best under seed 0 first
    Column("field", Integer, nullable=False),
    Column("looks", Integer, nullable=False),
    Column("room", Integer, nullable=False),
    Column("error", Double, nullable=False),
    Column("dropped", JSONB, nullable=False),
    Column("ends", Text, nullable=False, server_default=""),  # images, or nothing
    Column("seen", JSONB, nullable=False),
    _moment("made", required=True),
)

queued = Table(
    "queued",
    metadata,
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("chosen", JSONB, nullable=False),
    # The cell of a grid; in other studies NULL until a worker starts the setting.
    Column("configuration", Integer),
    _moment("made", required=True),
    # A setting starts at most once.
    UniqueConstraint("study_id", "configuration"),
)

identity = Table(
    "identity",
    metadata,
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),  # code | data | images | tuner
    Column("key", Text, primary_key=True),  # hash of the keys of [data] for data and images
    Column("number", Integer, primary_key=True),  # above 1: a change that was accepted
    Column("fingerprint", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    _moment("made", required=True),
)

event = Table(
    "event",
    metadata,
    Column("event_id", BigInteger, Identity(), primary_key=True),
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), nullable=False),
    Column("trial_id", Integer),
    Column("worker_id", BigInteger),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False, server_default=""),
    # The person who caused it; empty if it was a worker.
    Column("who", Text, nullable=False, server_default=""),
    _moment("happened", required=True),
    Index("event_by_study", "study_id", "event_id"),
    Index("event_by_trial", "trial_id"),
    # The kinds that monitors count and hooks are sent, which are few among all events.
    Index(
        "event_rare",
        "kind",
        "study_id",
        postgresql_where=text(
            "kind IN ('lost', 'interrupted', 'attempt failed', 'failed') "
            "OR (trial_id IS NULL AND kind IN ('complete', 'spent', 'stopped', 'paused'))"
        ),
    ),
)

# Webhooks and commands, by a hash; none is sent events from before its first use.
hook = Table(
    "hook",
    metadata,
    Column("hook", Text, primary_key=True),
    _moment("since", required=True),
)

notice = Table(
    "notice",
    metadata,
    Column("event_id", ForeignKey(event.c.event_id, ondelete="CASCADE"), primary_key=True),
    Column("hook", Text, primary_key=True),
    # Until then its sender holds it, or it waits after a failed attempt.
    Column("due", DateTime(timezone=True), nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    _moment("ended"),
    Column("result", Text, nullable=False, server_default=""),
)

fleet = Table(
    "fleet",
    metadata,
    Column("fleet_id", BigInteger, Identity(), primary_key=True),
    Column("study_id", ForeignKey(study.c.study_id, ondelete="CASCADE"), nullable=False),
    Column("engine", Text, nullable=False),
    # The request, and the handle that finds it on its engine; neither contains a secret.
    Column("crew", JSONB, nullable=False),
    Column("handle", JSONB, nullable=False, server_default=text("'{}'")),
    # The current request: how many workers, and whether they are to leave.
    Column("workers", Integer, nullable=False),
    Column("asked", Text, nullable=False, server_default=""),  # "" | stop | now
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("who", Text, nullable=False),
    _moment("started", required=True),
    # When its launcher or a person's command last asked its engine, and how many ran then.
    _moment("seen", required=True),
    Column("running", Integer, nullable=False, server_default="0"),
    _moment("ended"),
    Column("reason", Text, nullable=False, server_default=""),
    Index("fleet_by_study", "study_id"),
)

account = Table(
    "account",
    metadata,
    Column("account_id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),  # reader | operator
    # The argon2 hash; NULL until the person has chosen a password by a link.
    Column("password", Text),
    _moment("created", required=True),
)

# Only hashes of credentials are stored: `key` is the SHA-256 of the secret.
session = Table(
    "session",
    metadata,
    Column("key", Text, primary_key=True),
    Column("account_id", ForeignKey(account.c.account_id, ondelete="CASCADE"), nullable=False),
    _moment("began", required=True),
    _moment("seen", required=True),
    _moment("expires", required=True),
)

link = Table(
    "link",
    metadata,
    Column("key", Text, primary_key=True),
    Column("account_id", ForeignKey(account.c.account_id, ondelete="CASCADE"), nullable=False),
    _moment("expires", required=True),
)

token = Table(
    "token",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),  # reader | operator
    _moment("created", required=True),
    _moment("seen"),
    _moment("expires"),
)
