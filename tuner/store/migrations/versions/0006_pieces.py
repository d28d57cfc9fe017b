"""Predictions too large for one value, in pieces."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the tables; older predictions stay in one value."""
    op.create_table(
        "upload",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "begun",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["tuner.trial.trial_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "token"),
        schema="tuner",
    )
    op.create_table(
        "piece",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("moment", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id", "token"],
            ["tuner.upload.trial_id", "tuner.upload.token"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", "token", "split", "moment", "number"),
        schema="tuner",
    )
    # Log-probabilities do not compress, and trying costs more than storing them.
    op.execute("ALTER TABLE tuner.piece ALTER COLUMN content SET STORAGE EXTERNAL")
    token: sa.Column[object] = sa.Column("token", sa.Integer(), nullable=True)
    op.add_column("prediction", token, schema="tuner")
    op.alter_column("prediction", "log_probabilities", nullable=True, schema="tuner")
