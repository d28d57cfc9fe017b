"""The owner of the socket at the other end, by the kernel's table, for every address family."""

import os
import socket
import subprocess
import sys

import pytest

from tests.dashboard.test_guard import reachable
from tuner.dashboard import peers
from tuner.dashboard.peers import End, Peer, can_tell, uid_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the table is Linux's")


def connected(
    family: socket.AddressFamily, server: str, client: str
) -> tuple[socket.socket, socket.socket]:
    """Connect to a server of our own; the two ends may use different address families."""
    kind = socket.AF_INET6 if ":" in server else socket.AF_INET
    listening = socket.create_server((server, 0), family=kind)
    calling = socket.socket(family)
    calling.connect((client, listening.getsockname()[1]))
    accepted = listening.accept()[0]
    listening.close()
    return calling, accepted


FAMILIES = [
    pytest.param(socket.AF_INET, "127.0.0.1", "127.0.0.1", id="IPv4"),
    pytest.param(socket.AF_INET6, "::1", "::1", id="IPv6"),
    pytest.param(socket.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1", id="IPv4 by an IPv6 socket"),
    pytest.param(socket.AF_INET, "127.0.0.1", "127.0.0.2", id="another loopback address"),
]


@pytest.mark.parametrize(("family", "server", "client"), FAMILIES)
def test_our_own_socket_is_ours(family: socket.AddressFamily, server: str, client: str) -> None:
    """A client of this user is found, as the accepting side sees its address."""
    if ":" in client and not reachable("::1"):
        pytest.skip("this machine has no IPv6")
    where = "0.0.0.0" if client == "127.0.0.2" else server
    calling, accepted = connected(family, where, client)
    with calling, accepted:
        ends = End.of(*accepted.getpeername()[:2]), End.of(*accepted.getsockname()[:2])
        assert uid_of(*ends) == os.geteuid()
        assert Peer(*ends).is_owner


def test_another_user_is_not_the_owner() -> None:
    """A process of another user is recognised as such; needs root to become one."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        port = listening.getsockname()[1]
        code = (
            "import os, socket; os.setuid(12345); s = socket.socket(); "
            f"s.connect(('127.0.0.1', {port})); s.recv(1)"
        )
        process = subprocess.Popen([sys.executable, "-c", code])
        accepted = listening.accept()[0]
        with accepted:
            ends = End.of(*accepted.getpeername()), End.of(*accepted.getsockname())
            assert uid_of(*ends) == 12345
            assert not Peer(*ends).is_owner
        process.wait(60)


def test_a_socket_that_its_program_closed_is_nobodys() -> None:
    """For a closed socket the kernel prints root's number, which must not pass for root."""
    calling, accepted = connected(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    with accepted:
        ends = End.of(*accepted.getpeername()), End.of(*accepted.getsockname())
        calling.close()
        assert uid_of(*ends) is None
        assert not Peer(*ends).is_owner


def test_users_from_outside_a_namespace_are_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user unknown to this namespace has the overflow number, which identifies nobody."""
    monkeypatch.setattr(peers, "_overflow", os.geteuid)
    calling, accepted = connected(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    with calling, accepted:
        ends = End.of(*accepted.getpeername()), End.of(*accepted.getsockname())
        assert uid_of(*ends) is None


def test_an_address_of_the_network_is_not_the_owners() -> None:
    """A connection from or to an address of the network is never the owner's."""
    here = End.of("127.0.0.1", 8080)
    assert not Peer(End.of("192.0.2.7", 40000), here).is_owner
    assert not Peer(End.of("127.0.0.1", 40000), End.of("192.0.2.1", 8080)).is_owner


def test_where_the_table_is_missing_nobody_is_the_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: "os.PathLike[str]"
) -> None:
    """Without the table, as on macOS, nobody is the owner and the server prints its link."""
    assert can_tell()
    monkeypatch.setattr(peers, "PROC", tmp_path)
    assert not can_tell()
    calling, accepted = connected(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    with calling, accepted:
        ends = End.of(*accepted.getpeername()), End.of(*accepted.getsockname())
        assert not Peer(*ends).is_owner
