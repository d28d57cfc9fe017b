"""Fixtures of the acceptance tests."""

from collections.abc import Iterator

import pytest

from tests.acceptance.servers import TcpServer, run_tcp_server


@pytest.fixture
def tcp_server() -> Iterator[TcpServer]:
    """Run a PostgreSQL on TCP that wants a password."""
    with run_tcp_server() as server:
        yield server
