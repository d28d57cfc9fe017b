"""How much of its device's time a worker has used, and what an hour of the device costs."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0019"


def upgrade() -> None:
    """Add the columns; workers of an older tuner count as whole devices at the study's price."""
    for name in ("device_seconds", "price_per_hour"):
        column: sa.Column[object] = sa.Column(name, sa.Double(), nullable=True)
        op.add_column("worker", column, schema="tuner")
