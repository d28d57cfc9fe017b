"""The first schema: studies, trials, leases, workers, epochs, decisions, outcomes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the schema's tables."""
    op.create_table(
        "dataset",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("classes", postgresql.JSONB(), nullable=False),
        sa.Column("sizes", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
        schema="tuner",
    )
    op.create_table(
        "study",
        sa.Column("study_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("spec", postgresql.JSON(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("provenance", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "opened",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("study_id"),
        sa.UniqueConstraint("name", "version"),
        schema="tuner",
    )
    op.create_table(
        "event",
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=True),
        sa.Column("worker_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "happened",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["study_id"], ["tuner.study.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("event_id"),
        schema="tuner",
    )
    op.create_index(
        "event_by_study", "event", ["study_id", "event_id"], unique=False, schema="tuner"
    )
    op.create_table(
        "label",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("ids", postgresql.JSONB(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["fingerprint"], ["tuner.dataset.fingerprint"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("fingerprint", "split"),
        schema="tuner",
    )
    op.create_table(
        "trial",
        sa.Column("trial_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("configuration", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("chosen", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["study_id"], ["tuner.study.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id"),
        sa.UniqueConstraint("study_id", "configuration", "seed"),
        sa.UniqueConstraint("study_id", "number"),
        schema="tuner",
    )
    op.create_table(
        "worker",
        sa.Column("worker_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column(
            "started",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "seen",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=True),
        sa.Column("active_seconds", sa.Double(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["tuner.study.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("worker_id"),
        schema="tuner",
    )
    op.create_index("worker_by_study", "worker", ["study_id"], unique=False, schema="tuner")
    op.create_table(
        "decision",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("prune", sa.Boolean(), nullable=False),
        sa.Column("pruner", sa.Text(), nullable=False),
        sa.Column("saw", postgresql.JSONB(), nullable=False),
        sa.Column(
            "made",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "epoch"),
        schema="tuner",
    )
    op.create_table(
        "epoch",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("train_loss", sa.Double(), nullable=False),
        sa.Column("train_nll", sa.Double(), nullable=False),
        sa.Column("train_acc", sa.Double(), nullable=False),
        sa.Column("val_loss", sa.Double(), nullable=False),
        sa.Column("val_acc", sa.Double(), nullable=False),
        sa.Column("val_auc", sa.Double(), nullable=False),
        sa.Column("val_balanced_acc", sa.Double(), nullable=False),
        sa.Column("lr", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column(
            "recorded",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "epoch"),
        schema="tuner",
    )
    op.create_table(
        "lease",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("strikes", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "claimed",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "renewed",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "expires",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id"),
        schema="tuner",
    )
    op.create_index(
        "lease_open",
        "lease",
        ["study_id", "expires"],
        unique=False,
        schema="tuner",
        postgresql_where=sa.text("state <> 'ended'"),
    )
    op.create_table(
        "outcome",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("best_epoch", sa.Integer(), nullable=True),
        sa.Column("best_train_loss", sa.Double(), nullable=True),
        sa.Column("best_train_nll", sa.Double(), nullable=True),
        sa.Column("best_train_acc", sa.Double(), nullable=True),
        sa.Column("best_val_loss", sa.Double(), nullable=True),
        sa.Column("best_val_acc", sa.Double(), nullable=True),
        sa.Column("best_test_loss", sa.Double(), nullable=True),
        sa.Column("best_test_acc", sa.Double(), nullable=True),
        sa.Column("last_epoch", sa.Integer(), nullable=True),
        sa.Column("last_train_loss", sa.Double(), nullable=True),
        sa.Column("last_train_nll", sa.Double(), nullable=True),
        sa.Column("last_train_acc", sa.Double(), nullable=True),
        sa.Column("last_val_loss", sa.Double(), nullable=True),
        sa.Column("last_val_acc", sa.Double(), nullable=True),
        sa.Column("last_test_loss", sa.Double(), nullable=True),
        sa.Column("last_test_acc", sa.Double(), nullable=True),
        sa.Column("setup", postgresql.JSONB(), nullable=True),
        sa.Column(
            "ended",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id"),
        schema="tuner",
    )
    op.create_table(
        "output",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "stored",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "token"),
        schema="tuner",
    )
    op.create_table(
        "prediction",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("moment", sa.Text(), nullable=False),
        sa.Column("classes", sa.Integer(), nullable=False),
        sa.Column("log_probabilities", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "split", "moment"),
        schema="tuner",
    )
