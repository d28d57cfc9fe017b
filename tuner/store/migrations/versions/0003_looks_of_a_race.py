"""The decisions of each look of a race between contenders."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table; older studies have no looks, so no contender was dropped."""
    op.create_table(
        "look",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("racing", postgresql.JSONB(), nullable=False),
        sa.Column("field", sa.Integer(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("room", sa.Integer(), nullable=False),
        sa.Column("error", sa.Double(), nullable=False),
        sa.Column("dropped", postgresql.JSONB(), nullable=False),
        sa.Column("ends", sa.Text(), server_default="", nullable=False),
        sa.Column("seen", postgresql.JSONB(), nullable=False),
        sa.Column(
            "made",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["study_id"], ["tuner.study.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "number"),
        schema="tuner",
    )
