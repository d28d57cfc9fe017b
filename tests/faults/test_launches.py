"""Two simultaneous launches of one study: one study, exactly N trials, one table."""

from pathlib import Path

import sqlalchemy as sa

from tests.cli.conftest import Project, make_project
from tests.harness.processes import until
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database


def table_of(project: Project) -> str:
    """Return all rows of a launch's table."""
    return (project.folder / ".tuner" / "results" / "small.csv").read_text()


def printed_table(out: str) -> str:
    """Return a launch's output from its first table on, without names of folders."""
    start = out.index("small: 2 settings by val_loss")
    return "\n".join(line for line in out[start:].splitlines() if "small.csv" not in line)


def test_two_launches_are_one_study(settings: Settings, database: Database, tmp_path: Path) -> None:
    """From two folders at once: both train, exit with 0 and show the same table."""
    address = {"TUNER_DATABASE_URL": str(settings.database_url)}
    projects = [make_project(tmp_path / name, address) for name in ("here", "there")]
    with database.transaction() as connection:
        # Both are blocked by a lock, so that neither can be first. On a busy machine they take
        # longer to reach it than a transaction may be idle.
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        key = sa.func.hashtext("tuner study small")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        launches = [one.start("launch", "--study", "small", "--workers", "1") for one in projects]
        until(lambda: waiting(database) == 2, "both launches stand at the door")
    outs = []
    for launch in launches:
        out, err = launch.communicate(timeout=120)
        assert launch.returncode == 0, out + err
        outs.append(out)
    with database.transaction() as connection:
        assert len(connection.execute(sa.select(t.study)).all()) == 1
        trials = connection.execute(sa.select(t.trial)).all()
        history = connection.execute(sa.select(t.event)).all()
    assert sorted(row.number for row in trials) == [0, 1, 2, 3]
    assert len({(row.configuration, row.seed) for row in trials}) == 4
    assert [row.text for row in history if row.kind == "launched"] == ["4 trials"]
    assert table_of(projects[0]) == table_of(projects[1])
    assert printed_table(outs[0]) == printed_table(outs[1])


def waiting(database: Database) -> int:
    """Return how many sessions of this database wait for an advisory lock."""
    query = sa.text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with database.transaction() as connection:
        return int(connection.execute(query).scalar_one())
