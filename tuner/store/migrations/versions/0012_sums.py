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
        # Without a default: a worker that runs on with the program of before leaves NULL, which
        # says that the sums are to be taken from the epochs.
        op.add_column("outcome", sa.Column(name, kind), schema="tuner")
    op.execute(
        """
        UPDATE tuner.outcome SET
            epochs_run = summed.run,
            epochs_reused = summed.reused,
            seconds = summed.seconds,
            seconds_alone = summed.alone
        FROM (
            SELECT ended.trial_id,
                count(epoch.trial_id) AS run,
                count(*) FILTER (WHERE epoch.reused) AS reused,
                coalesce(sum(epoch.seconds) FILTER (WHERE NOT epoch.reused), 0) AS seconds,
                coalesce(sum(epoch.seconds), 0) AS alone
            FROM tuner.outcome AS ended LEFT JOIN tuner.epoch USING (trial_id)
            GROUP BY ended.trial_id
        ) AS summed
        WHERE summed.trial_id = outcome.trial_id
        """
    )
