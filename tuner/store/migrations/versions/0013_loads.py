"""How busy each worker's device is, measured with its renewals."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column; workers of an older tuner measure nothing."""
    load: sa.Column[object] = sa.Column("load", postgresql.JSONB(), nullable=True)
    op.add_column("worker", load, schema="tuner")
