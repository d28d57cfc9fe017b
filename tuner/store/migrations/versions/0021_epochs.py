"""Budgets in epochs: how many each worker has trained, and how far each trial may be trained."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0016"


def upgrade() -> None:
    """Add the columns; the epochs of an older study all count for its first worker."""
    # Counted first: a large database takes minutes, and the columns lock everybody out.
    op.execute("""
        CREATE TEMPORARY TABLE counted ON COMMIT DROP AS
        SELECT trial.study_id, count(*) AS epochs
        FROM tuner.epoch JOIN tuner.trial USING (trial_id)
        WHERE NOT epoch.reused
        GROUP BY trial.study_id
    """)
    trained: sa.Column[int] = sa.Column(
        "trained", sa.BigInteger(), nullable=False, server_default="0"
    )
    op.add_column("worker", trained, schema="tuner")
    op.add_column("lease", sa.Column("granted", sa.Integer(), nullable=True), schema="tuner")
    # Only the sum over a study's workers is ever read.
    op.execute("""
        UPDATE tuner.worker SET trained = counted.epochs
        FROM counted
        WHERE worker.worker_id = (
            SELECT min(first.worker_id) FROM tuner.worker AS first
            WHERE first.study_id = counted.study_id
        )
    """)
