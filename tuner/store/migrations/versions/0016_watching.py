"""What workers count, which events were told to whom, and an index of the events that are rare."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0020"

NOW = sa.text("clock_timestamp()")
RARE = (
    "kind IN ('lost', 'interrupted', 'attempt failed', 'failed') "
    "OR (trial_id IS NULL AND kind IN ('complete', 'spent', 'stopped', 'paused'))"
)


def upgrade() -> None:
    """Add the column, the tables and the index; workers that ran before have counted nothing."""
    tally: sa.Column[object] = sa.Column("tally", postgresql.JSONB(), nullable=True)
    op.add_column("worker", tally, schema="tuner")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "hook",
        sa.Column("hook", sa.Text(), primary_key=True),
        sa.Column("since", moment, nullable=False, server_default=NOW),
        schema="tuner",
    )
    op.create_table(
        "notice",
        sa.Column(
            "event_id",
            sa.BigInteger(),
            sa.ForeignKey("tuner.event.event_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("hook", sa.Text(), primary_key=True),
        sa.Column("due", moment, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ended", moment, nullable=True),
        sa.Column("result", sa.Text(), nullable=False, server_default=""),
        schema="tuner",
    )
    op.create_index(
        "event_rare",
        "event",
        ["kind", "study_id"],
        schema="tuner",
        postgresql_where=sa.text(RARE),
    )
