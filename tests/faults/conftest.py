"""Fixtures of fault tests: a scene on the shared server, and one on a server of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.faults.scenery import Scene
from tests.harness.postgres import Server, run_server
from tuner.settings import Settings, Timing
from tuner.store import schema
from tuner.store.database import Database

OUTAGE = Timing(lease=3.0, renew=0.3, grace=2.0, poll=0.15, give_back=5.0)
"""Leases shorter than the outages in these tests."""


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Scene]:
    """Return a folder with the blobs objective, and a way to start workers."""
    scene = Scene(settings, database, tmp_path / "scene")
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Run a server that a module's tests may stop and start."""
    with run_server() as server:
        yield server


@pytest.fixture
def mortal(own_server: Server, tmp_path: Path) -> Iterator[Scene]:
    """Return an empty scene on that server."""
    settings = Settings(home=tmp_path / "home", database_url=own_server.url(), timing=OUTAGE)
    with Database.open(settings) as database:
        empty(database)
        schema.ensure(database)
        scene = Scene(settings, database, tmp_path / "scene")
        yield scene
        scene.close()


@pytest.fixture
def proxy(own_server: Server) -> Iterator[Proxy]:
    """Run a proxy in front of that server."""
    proxy = Proxy(own_server.port).open()
    yield proxy
    proxy.close()


def empty(database: Database) -> None:
    """Drop everything that an earlier test has left."""
    import sqlalchemy as sa

    with database.transaction() as connection:
        connection.execute(sa.text("DROP SCHEMA IF EXISTS tuner CASCADE"))
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
