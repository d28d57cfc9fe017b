"""Finds the local user at the other end of a loopback connection.

Every local user can connect to a loopback port, so the address alone says nothing. The kernel
lists each socket with the user id that opened it. A connection has two of them, and the client's
is the one whose local address is the client's and whose remote address is ours:

      sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
       5: 0100007F:A3C2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 48213

An SSH tunnel ends in a process of the user who logged in by SSH; a web server's proxy in a process
of the web server's user.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ESTABLISHED = "01"
ROOT = 0
PROC = Path("/proc")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class End:
    """One end of a connection."""

    address: IPAddress
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> "End":
        """Return the end of a socket's name; a zone (fe80::1%eth0) is dropped."""
        return cls(plain(ipaddress.ip_address(host.partition("%")[0])), port)

    def in_table(self, version: int) -> str:
        """Return this end in the format of the kernel's table for an IP version."""
        address = self.address
        if version == 6 and isinstance(address, ipaddress.IPv4Address):
            # A client with an IPv6 socket that connected to ::ffff:127.0.0.1.
            address = ipaddress.IPv6Address(f"::ffff:{address}")
        packed = address.packed
        # 32-bit words, each printed as a number in this machine's byte order.
        words = (int.from_bytes(packed[k : k + 4], sys.byteorder) for k in range(0, len(packed), 4))
        return "".join(f"{word:08X}" for word in words) + f":{self.port:04X}"


def plain(address: IPAddress) -> IPAddress:
    """Return an IPv4-mapped IPv6 address as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@dataclass(frozen=True)
class Peer:
    """A connection to this server."""

    client: End
    server: End

    @property
    def known(self) -> bool:
        """Whether `is_owner` has been looked up."""
        return "is_owner" in vars(self)

    @cached_property
    def is_owner(self) -> bool:
        """Whether it comes from this machine, from the user of this process or from root.

        Looked up once per connection: a socket keeps its user, and while ours is open, no other
        connection can have the same two ends.
        """
        if not (self.client.address.is_loopback and self.server.address.is_loopback):
            return False
        return uid_of(self.client, self.server) in {ROOT, os.geteuid()}


def uid_of(client: End, server: End) -> int | None:
    """Return the user id at the client's end of a local connection; None if unknown."""
    versions = (4, 6) if client.address.version == 4 else (6,)
    for version in versions:
        wanted = (client.in_table(version), server.in_table(version))
        for local, remote, state, uid, inode in _sockets(version):
            if (local, remote) == wanted:
                # For a socket that its program has closed (its inode is 0), or that waits for the
                # end of the connection, the kernel names no user: it prints 0, which is root's.
                # Anyone could send a request, close, and be taken for root.
                if state != ESTABLISHED or inode == 0:
                    return None
                # In a container's user namespace, all users from outside have this number.
                return None if uid == _overflow() else uid
    return None


def _sockets(version: int) -> Iterator[tuple[str, str, str, int, int]]:
    try:
        table = (PROC / "net" / ("tcp" if version == 4 else "tcp6")).read_text().splitlines()
    except OSError:
        return
    for line in table[1:]:
        fields = line.split()
        yield fields[1], fields[2], fields[3], int(fields[7]), int(fields[9])


def _overflow() -> int:
    try:
        return int((PROC / "sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534


def can_tell() -> bool:
    """Return whether users can be identified here, by trying it; not on macOS, for instance."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            ends = End.of(*client.getsockname()), End.of(*server.getsockname())
            return uid_of(*ends) == os.geteuid()
    except OSError:
        return False
