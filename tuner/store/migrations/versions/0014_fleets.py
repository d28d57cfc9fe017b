"""Fleets of workers, which any machine can find, scale and stop; priorities of studies."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Create the table; fleets of an older tuner end with their launchers."""
    priority: sa.Column[int] = sa.Column(
        "priority", sa.Integer(), nullable=False, server_default="0"
    )
    op.add_column("study", priority, schema="tuner")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "fleet",
        sa.Column("fleet_id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column(
            "study_id",
            sa.Integer(),
            sa.ForeignKey("tuner.study.study_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("crew", postgresql.JSONB(), nullable=False),
        sa.Column("handle", postgresql.JSONB(), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False, server_default=""),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("started", moment, nullable=False, server_default=NOW),
        sa.Column("seen", moment, nullable=False, server_default=NOW),
        sa.Column("running", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ended", moment, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        schema="tuner",
    )
    op.create_index("fleet_by_study", "fleet", ["study_id"], schema="tuner")
