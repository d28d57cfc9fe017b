"""Figures of metrics that a study has beside the built-in ones."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns; studies stored before have no such metrics."""
    figures = sa.Column("own", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False)
    op.add_column("epoch", figures, schema="tuner")
    for name in ("best_own", "last_own"):
        op.add_column("outcome", sa.Column(name, postgresql.JSONB()), schema="tuner")
