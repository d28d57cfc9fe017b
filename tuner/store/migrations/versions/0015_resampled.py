"""Metrics on resamples of a split's images, for those that have no value for each image."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the table; of trials stored before, such metrics have intervals over seeds alone."""
    op.create_table(
        "resampled",
        sa.Column(
            "trial_id",
            sa.Integer(),
            sa.ForeignKey("tuner.trial.trial_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("split", sa.Text(), primary_key=True),
        sa.Column("moment", sa.Text(), primary_key=True),
        sa.Column("metric", sa.Text(), primary_key=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        schema="tuner",
    )
