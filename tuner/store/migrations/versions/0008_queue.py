"""Settings that a person wants to be trained before the others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the queue; a study stored before has an empty one."""
    op.create_table(
        "queued",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("chosen", postgresql.JSONB(), nullable=False),
        sa.Column("configuration", sa.Integer(), nullable=True),
        sa.Column(
            "made",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["study_id"], ["tuner.study.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "number"),
        sa.UniqueConstraint("study_id", "configuration"),
        schema="tuner",
    )
