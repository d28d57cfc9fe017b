"""Sums over the epochs of ended trials, kept with their outcomes."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the sums, and take them for the trials that have ended."""
    for name, kind in (
        ("epochs_run", sa.Integer()),
        ("epochs_reused", sa.Integer()),
        ("seconds", sa.Double()),
        ("seconds_alone", sa.Double()),
    ):
        column = sa.Column(name, kind, server_default="0", nullable=False)
        op.add_column("outcome", column, schema="tuner")
    op.execute(
        """
        UPDATE tuner.outcome SET
            epochs_run = summed.run,
            epochs_reused = summed.reused,
            seconds = summed.seconds,
            seconds_alone = summed.alone
        FROM (
            SELECT trial_id,
                count(*) AS run,
                count(*) FILTER (WHERE reused) AS reused,
                coalesce(sum(seconds) FILTER (WHERE NOT reused), 0) AS seconds,
                sum(seconds) AS alone
            FROM tuner.epoch GROUP BY trial_id
        ) AS summed
        WHERE summed.trial_id = outcome.trial_id
        """
    )
