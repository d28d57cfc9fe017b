"""A snapshot: one state throughout, read-only, and allowed to be idle."""

import pytest
import sqlalchemy as sa

from tests.store.specs import Bench, make_spec
from tuner.results import Results
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database


def test_what_is_written_meanwhile_is_not_seen(database: Database) -> None:
    """A study stored after the first statement is not visible in later ones."""
    first = Bench.launch(database, make_spec("first"))
    count = sa.select(sa.func.count()).select_from(t.study)
    with database.snapshot() as connection:
        before = connection.execute(count).scalar_one()
        Bench.launch(database, make_spec("second"))
        assert connection.execute(count).scalar_one() == before == 1
        assert Results(connection, first.study).rows == []
    with database.snapshot() as connection:
        assert studies.find(connection, StudyRef("second")).name == "second"


def test_nothing_can_be_written(database: Database) -> None:
    """A write is refused, and the pool's next connection may write again."""
    bench = Bench.launch(database, make_spec())
    with pytest.raises(sa.exc.DBAPIError, match="read-only"), database.snapshot() as connection:
        connection.execute(sa.update(t.study).values(reason="changed"))
    with database.transaction() as connection:
        connection.execute(sa.update(t.study).values(reason="changed"))
        assert studies.find(connection, bench.study.ref).reason == "changed"


def test_it_may_be_idle_while_figures_are_computed(database: Database) -> None:
    """The server has no idle timeout for it, unlike for a worker's transaction."""
    setting = sa.text("SHOW idle_in_transaction_session_timeout")
    with database.snapshot() as connection:
        assert connection.execute(setting).scalar_one() == "0"
    with database.transaction() as connection:
        assert connection.execute(setting).scalar_one() == "10s"
