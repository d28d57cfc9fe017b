"""Fixtures of the acceptance tests."""

from collections.abc import Iterator

import pytest

from tests.harness.postgres import PASSWORD, Server, run_server


@pytest.fixture
def tcp_server() -> Iterator[Server]:
    """Run a PostgreSQL server on TCP that requires a password."""
    with run_server(PASSWORD) as server:
        server.create("tuner")
        yield server
