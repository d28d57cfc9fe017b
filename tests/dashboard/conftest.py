"""The dashboard without a socket: over a study of one trial, and over the stored studies."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.conftest import own_database
from tests.golden.stored import load
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.dashboard.app import build
from tuner.dashboard.desk import Desk
from tuner.store.address import Address
from tuner.store.database import Database

LOCAL = "http://127.0.0.1:8080"


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study with one finished trial."""
    bench = Bench.launch(database, make_spec())
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    return bench


@pytest.fixture
def app(bench: Bench) -> Iterator[TestClient]:
    """Serve the study without a socket."""
    with TestClient(build(Desk(bench.database)), LOCAL) as client:
        yield client


@pytest.fixture(scope="module")
def stored(server: Address) -> Iterator[Database]:
    """Open the stored studies, which tests/golden reads as well; nothing can be written to them."""
    with own_database(server, "template0") as address:
        load(address)
        with Database(address) as database:
            yield database


@pytest.fixture(scope="module")
def pages(stored: Database) -> Iterator[TestClient]:
    """Serve the stored studies without a socket."""
    with TestClient(build(Desk(stored)), LOCAL) as client:
        yield client
