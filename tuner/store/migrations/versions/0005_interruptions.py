"""Interruptions separate from failed attempts; removed epochs; counts of reopened trials."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the counts; a lost lease counted as a failed attempt before stays one."""
    for table, name in (
        ("lease", "interruptions"),
        ("lease", "removed_epochs"),
        ("study", "reopenings"),
    ):
        column = sa.Column(name, sa.Integer(), server_default="0", nullable=False)
        op.add_column(table, column, schema="tuner")
    hosts = sa.Column("hosts", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False)
    op.add_column("lease", hosts, schema="tuner")
