"""The advisory lock of a study, needed to count or create trials, and to extend or delete it."""

import sqlalchemy as sa

STUDY_LOCKS = 0x7475  # the first key of a study's advisory lock; the second is its id


def lock_study(connection: sa.Connection, study_id: int) -> None:
    """Take the study's advisory lock until the connection's transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(STUDY_LOCKS, study_id)))
