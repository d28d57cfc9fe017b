"""The tests' own proxy does what other tests rely on."""

import threading

import psycopg2
import pytest

from tests.faults.proxy import Cut, Proxy
from tests.harness.postgres import Server
from tests.harness.processes import until

TABLE = "CREATE TABLE IF NOT EXISTS mark (id int)"


def connect(server: Server, proxy: Proxy | None = None) -> "psycopg2.extensions.connection":
    """Open a connection, through the proxy if one is given."""
    port = server.port if proxy is None else proxy.port
    return psycopg2.connect(server.url(port=port), connect_timeout=5)


def marks(server: Server) -> int:
    """Count what was committed."""
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM mark")
        (count,) = cursor.fetchone() or (0,)
    return int(count)


@pytest.fixture(autouse=True)
def _table(own_server: Server) -> None:
    with connect(own_server) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.execute("TRUNCATE mark")


@pytest.mark.parametrize(("side", "stored"), [("before", 0), ("after", 1)])
def test_a_cut_at_a_commit_falls_on_the_side_it_should(
    own_server: Server, proxy: Proxy, side: Cut, stored: int
) -> None:
    """The client loses its connection either way; only with `after` the commit went through."""
    proxy.cut_at[1] = side
    connection = connect(own_server, proxy)
    connection.cursor().execute("INSERT INTO mark VALUES (1)")
    with pytest.raises(psycopg2.OperationalError):
        connection.commit()
    assert marks(own_server) == stored
    assert proxy.cuts == 1


def test_what_is_stalled_arrives_in_the_end(own_server: Server, proxy: Proxy) -> None:
    """A stalled statement neither fails nor runs, until the proxy lets it pass."""
    connection = connect(own_server, proxy)
    connection.autocommit = True
    proxy.stall()
    insert = "INSERT INTO mark VALUES (1)"
    thread = threading.Thread(target=lambda: connection.cursor().execute(insert), daemon=True)
    thread.start()
    assert marks(own_server) == 0
    assert thread.is_alive()
    proxy.flow()
    thread.join(30)
    assert marks(own_server) == 1


def test_a_closed_proxy_refuses_and_opens_again(own_server: Server, proxy: Proxy) -> None:
    """Open connections are cut and new ones refused; after reopening all is as before."""
    connection = connect(own_server, proxy)
    proxy.refuse()
    with pytest.raises(psycopg2.OperationalError):
        connection.cursor().execute("SELECT 1")
    with pytest.raises(psycopg2.OperationalError):
        connect(own_server, proxy)
    proxy.open()
    connect(own_server, proxy).close()


def test_a_stopped_server_comes_back_with_what_was_committed(own_server: Server) -> None:
    """An immediate stop cuts all connections and loses nothing that was committed."""
    connection = connect(own_server)
    connection.cursor().execute("INSERT INTO mark VALUES (1)")
    connection.commit()
    own_server.stop_at_once()
    with pytest.raises(psycopg2.OperationalError):
        connect(own_server)
    own_server.start()
    until(lambda: marks(own_server) == 1, "the row is there")
