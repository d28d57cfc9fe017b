"""Which patient each image is of, so that answers can be judged by patient."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; labels stored before have NULL, and are judged by image."""
    patients: sa.Column[object] = sa.Column("patients", postgresql.JSONB(), nullable=True)
    op.add_column("label", patients, schema="tuner")
