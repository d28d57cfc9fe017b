"""A PostgreSQL server of the tests' own: on TCP, with passwords, as a lab would run one."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.store.embedded import binaries
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded.binaries import Binaries

PASSWORD = "p{w}%40:/@#? ü'\"\\é"
"""Every character that a URL, a shell, str.format or libpq could stumble over."""


@dataclass(frozen=True)
class TcpServer:
    """Where the server listens, and its programs."""

    port: int
    programs: Binaries


@contextmanager
def run_tcp_server() -> Iterator[TcpServer]:
    """Run a server that lets `tuner` in with PASSWORD, over 127.0.0.1 only."""
    with tempfile.TemporaryDirectory(prefix="tuner-tcp-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the server runs as another user
        account = embedded_places.account_for(folder)
        programs = binaries.locate_for(account)
        options = {} if account is None else account.options()
        secret = folder / "password"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        (folder / "data").mkdir(mode=0o700)
        if account is not None:
            os.chown(folder / "data", account.uid, account.gid)
            os.chown(secret, account.uid, account.gid)
        initdb = [programs.program("initdb"), "-D", "data", "-U", "tuner", "-E", "UTF8"]
        initdb += ["--no-locale", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **options)
        server = TcpServer(_free_port(), programs)
        settings = ["listen_addresses=127.0.0.1", f"port={server.port}", "fsync=off"]
        settings.append(f"unix_socket_directories={folder / 'data'}")
        flags = [word for setting in settings for word in ("-c", setting)]
        with subprocess.Popen(
            [programs.program("postgres"), "-D", "data", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            **options,
        ) as process:
            try:
                _await(server)
                _create_database(server)
                yield server
            finally:
                process.terminate()


def _create_database(server: TcpServer) -> None:
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "tuner", "-d", "postgres"]
    subprocess.run(
        [server.programs.program("psql"), *where, "-c", "CREATE DATABASE tuner"],
        check=True,
        capture_output=True,
        env={**os.environ, "PGPASSWORD": PASSWORD},
    )


def _await(server: TcpServer) -> None:
    deadline = time.monotonic() + 30
    command = [server.programs.program("pg_isready"), "-h", "127.0.0.1", "-p", str(server.port)]
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, "the test's PostgreSQL did not start"
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
