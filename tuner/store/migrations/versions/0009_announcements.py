"""Announcements: whoever listens on the channel `tuner` hears which study has changed.

What workers renew every few seconds (leases, when they were last seen) is not announced: it would
wake every page for the sake of one column. Equal announcements of a transaction are one, and are
heard when it commits.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

INSERTED = ("trial", "worker", "lease", "check", "look", "queued", "event")
"""Tables whose rows name their study."""
OF_TRIALS = ("epoch", "outcome", "output")
UPDATED = {
    "study": "TRUE",
    "worker": "OLD.ended IS DISTINCT FROM NEW.ended",
    "lease": "(OLD.state, OLD.token) IS DISTINCT FROM (NEW.state, NEW.token)",
    "queued": "TRUE",
}
"""Tables whose rows are changed, and which changes are announced."""


def upgrade() -> None:
    """Add the functions, and the triggers that call them."""
    for name, rows in (
        ("inserted", "added"),
        ("of_trials", "added JOIN tuner.trial USING (trial_id)"),
    ):
        op.execute(f"""
            CREATE FUNCTION tuner.announce_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_notify('tuner', study_id::text)
                FROM (SELECT DISTINCT study_id FROM {rows}) AS studies;
                RETURN NULL;
            END $$""")  # of the names above
    op.execute("""
        CREATE FUNCTION tuner.announce_row() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify(
                'tuner', (CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END).study_id::text
            );
            RETURN NULL;
        END $$""")
    # Tables in the order in which workers that are running write to them: epochs before leases.
    for function, tables in (("of_trials", OF_TRIALS), ("inserted", INSERTED)):
        for table in tables:
            # Output is stored by an upsert, which is an update where there was some already.
            for event in ("INSERT", "UPDATE") if table == "output" else ("INSERT",):
                op.execute(
                    f'CREATE TRIGGER announce_{event.lower()} AFTER {event} ON tuner."{table}" '
                    "REFERENCING NEW TABLE AS added "
                    f"FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_{function}()"
                )
    for table, when in UPDATED.items():
        op.execute(
            f'CREATE TRIGGER announce_change AFTER UPDATE ON tuner."{table}" '
            f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION tuner.announce_row()"
        )
    op.execute(
        "CREATE TRIGGER announce AFTER INSERT OR DELETE ON tuner.study "
        "FOR EACH ROW EXECUTE FUNCTION tuner.announce_row()"
    )
