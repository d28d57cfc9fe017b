"""What a fleet of a thousand workers waited for: announcements, two missing indexes, one too many.

PostgreSQL lets one announcing transaction of the whole server commit at a time, and that waits for
the disk: with a disk that takes 4 ms, 250 commits a second. Now at most one transaction of a study
announces at a time; those that commit beside it keep silent, and whoever listens looks again a
moment later.

A lease's end moves every few seconds. With an index on it, each renewal wrote to every index of
the table; without one, and with room left on each page, it writes to none.
"""

from alembic import op

revision = "0019"
down_revision = "0015"

ANNOUNCED = 0x746E
"""The first key of the advisory lock of the transaction that announces; the second is the study."""


def upgrade() -> None:
    """Replace the functions that announce; change indexes, and how full pages get."""
    free = f"pg_try_advisory_xact_lock({ANNOUNCED}, study_id)"
    for name, rows in (
        ("inserted", "added"),
        ("of_trials", "added JOIN tuner.trial USING (trial_id)"),
    ):
        op.execute(f"""
            CREATE OR REPLACE FUNCTION tuner.announce_{name}() RETURNS trigger
            LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_notify('tuner', study_id::text)
                FROM (SELECT DISTINCT study_id FROM {rows}) AS studies
                WHERE {free};
                RETURN NULL;
            END $$""")  # of the names above
    # Changes of a study itself are rare, and nothing may follow them: they are always announced.
    op.execute(f"""
        CREATE OR REPLACE FUNCTION tuner.announce_row() RETURNS trigger
        LANGUAGE plpgsql AS $$
        DECLARE
            study_id integer := (CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END).study_id;
        BEGIN
            IF TG_TABLE_NAME = 'study' OR {free} THEN
                PERFORM pg_notify('tuner', study_id::text);
            END IF;
            RETURN NULL;
        END $$""")
    op.drop_index("lease_open", table_name="lease", schema="tuner")
    op.create_index(
        "lease_open",
        "lease",
        ["study_id", "worker_id"],
        schema="tuner",
        postgresql_where="state <> 'ended'",
    )
    # Whether a trial's history has a line was looked up in the histories of all studies.
    op.create_index("event_by_trial", "event", ["trial_id"], schema="tuner")
    op.create_index("trial_by_seed", "trial", ["study_id", "seed", "configuration"], schema="tuner")
    for table in ("lease", "worker"):
        op.execute(f"ALTER TABLE tuner.{table} SET (fillfactor = 60)")
