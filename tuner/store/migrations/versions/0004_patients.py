"""The patient of each image, so that answers can be judged by patient."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; older labels have NULL and are judged by image."""
    patients: sa.Column[object] = sa.Column("patients", postgresql.JSONB(), nullable=True)
    op.add_column("label", patients, schema="tuner")
