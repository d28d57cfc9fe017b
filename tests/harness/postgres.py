"""A throw-away PostgreSQL on 127.0.0.1, with or without a password, that can be cut off."""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from tests.harness.processes import until
from tuner.store.embedded import binaries
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded.binaries import Binaries

PASSWORD = "p{w}%40:/@#? ü'\"\\é"
"""Every character that is special in a URL, a shell, str.format or libpq."""


@dataclass
class Server:
    """A server for the user `tuner`; its data survive a stop."""

    folder: Path
    port: int
    programs: Binaries
    account: dict[str, Any]
    """Options of subprocess for the account its programs run under."""
    password: str | None = None
    """The password required; without one it trusts all users of this machine."""
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the address of a database, without password; through a proxy's port if given."""
        return f"postgresql://tuner@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers; after a hard stop it recovers first."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder / "data"),
            **self.settings(),
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [self.programs.program("postgres"), "-D", "data", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,
            **self.account,
        )
        until(self._answers, "PostgreSQL answers")

    def settings(self) -> dict[str, str]:
        """Return what differs from PostgreSQL's defaults.

        Tests stop the server, never the machine, so nothing needs to reach the disk.
        """
        return {"max_connections": "60", "fsync": "off"}

    def stop_at_once(self) -> None:
        """Stop it like a power cut: connections are cut, and the next start recovers."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def restart(self) -> None:
        """Stop at once and start again."""
        self.stop_at_once()
        self.start()

    def create(self, database: str) -> str:
        """Create an empty database and return its address."""
        connection = self._connect()
        try:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {database}")
        finally:
            connection.close()
        return self.url(database)

    def _connect(self) -> Any:
        return psycopg2.connect(self.url(), password=self.password, connect_timeout=2)

    def _answers(self) -> bool:
        with suppress(psycopg2.OperationalError):
            self._connect().close()
            return True
        return False


@contextmanager
def run_server(password: str | None = None) -> Iterator[Server]:
    """Create and start a server, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="tuner-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the server runs as another user, who needs access
        account = embedded_places.account_for(folder)
        programs = binaries.locate_for(account)
        options: dict[str, Any] = {} if account is None else dict(account.options())
        data, secret = folder / "data", folder / "password"
        data.mkdir(mode=0o700)
        secret.write_text(f"{password}\n", encoding="utf-8")
        if account is not None:
            os.chown(data, account.uid, account.gid)
            os.chown(secret, account.uid, account.gid)
        access = ["trust"] if password is None else ["scram-sha-256", f"--pwfile={secret}"]
        initdb = [programs.program("initdb"), "-D", "data", "-U", "tuner", "-E", "UTF8"]
        initdb += ["--no-locale", "--no-sync", "-A", *access]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **options)
        server = Server(folder, _free_port(), programs, options, password)
        server.start()
        try:
            yield server
        finally:
            server.stop_at_once()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
