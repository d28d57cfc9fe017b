"""Accounts of the dashboard; tags, an archive and a note for studies; who did what."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Add the tables and the columns; nobody has an account, and no study is archived."""
    op.create_table(
        "account",
        sa.Column("account_id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password", sa.Text()),
        _moment("created"),
        schema="tuner",
    )
    op.create_table(
        "session",
        sa.Column("key", sa.Text(), primary_key=True),
        _account(),
        _moment("began"),
        _moment("seen"),
        _moment("expires"),
        schema="tuner",
    )
    op.create_table(
        "link",
        sa.Column("key", sa.Text(), primary_key=True),
        _account(),
        _moment("expires"),
        schema="tuner",
    )
    op.create_table(
        "token",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), nullable=False, unique=True),
        sa.Column("role", sa.Text(), nullable=False),
        _moment("created"),
        sa.Column("seen", sa.DateTime(timezone=True)),
        sa.Column("expires", sa.DateTime(timezone=True)),
        schema="tuner",
    )
    tags = sa.Column("tags", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False)
    op.add_column("study", tags, schema="tuner")
    op.add_column("study", sa.Column("archived", sa.DateTime(timezone=True)), schema="tuner")
    for table, name in (("study", "note"), ("event", "who")):
        text = sa.Column(name, sa.Text(), server_default="", nullable=False)
        op.add_column(table, text, schema="tuner")


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=NOW)


def _account() -> sa.Column[object]:
    key = sa.ForeignKey("tuner.account.account_id", ondelete="CASCADE")
    return sa.Column("account_id", sa.BigInteger(), key, nullable=False)
