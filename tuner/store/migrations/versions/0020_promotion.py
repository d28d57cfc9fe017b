"""Trials that pause at a rung, and the decisions by which they go on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0017"


def upgrade() -> None:
    """Create the tables; no trial of an older study was ever paused."""
    stretches: sa.Column[int] = sa.Column(
        "stretches", sa.Integer(), nullable=False, server_default="1"
    )
    op.add_column("lease", stretches, schema="tuner")
    op.add_column("lease", sa.Column("checkpoint", sa.Text(), nullable=True), schema="tuner")
    op.create_table(
        "rung",
        sa.Column(
            "trial_id",
            sa.Integer(),
            sa.ForeignKey("tuner.trial.trial_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("value", sa.Double(), nullable=False),
        schema="tuner",
    )
    op.create_table(
        "stretch",
        sa.Column("stretch_id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column(
            "trial_id",
            sa.Integer(),
            sa.ForeignKey("tuner.trial.trial_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("until", sa.Integer(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("saw", postgresql.JSONB(), nullable=False),
        sa.Column(
            "made",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.UniqueConstraint("trial_id", "start"),
        schema="tuner",
    )
