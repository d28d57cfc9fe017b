"""A PostgreSQL that can be stopped at once and started again, as when its machine loses power."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from tuner.store.embedded import binaries
from tuner.store.embedded import places as embedded_places

ANSWER_SECONDS = 60.0


@dataclass
class Server:
    """A server on 127.0.0.1 that lets `tuner` in, with its data below a folder."""

    folder: Path
    port: int
    program: str
    options: dict[str, Any]
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def url(self, database: str) -> str:
        """Return the address of one of its databases."""
        return f"postgresql://tuner@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", "fsync=off"]
        settings.append(f"unix_socket_directories={self.folder / 'data'}")
        flags = [word for setting in settings for word in ("-c", setting)]
        self.process = subprocess.Popen(
            [self.program, "-D", "data", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,
            **self.options,
        )
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, "the test's PostgreSQL did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once: every connection is cut, and the next start recovers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def restart(self) -> None:
        """Stop at once and start again."""
        self.stop()
        self.start()

    def create(self, database: str) -> str:
        """Make an empty database and return its address."""
        connection = psycopg2.connect(self.url("postgres"))
        try:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {database}")
        finally:
            connection.close()
        return self.url(database)

    def _answers(self) -> bool:
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(self.url("postgres"), connect_timeout=2).close()
            return True
        return False


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """Run a server whose data lie in a folder of their own; nothing is asked but to be local."""
    folder.chmod(0o711)  # as root the server runs as another user
    account = embedded_places.account_for(folder)
    programs = binaries.locate_for(account)
    options: dict[str, Any] = {} if account is None else dict(account.options())
    (folder / "data").mkdir(mode=0o700)
    if account is not None:
        os.chown(folder / "data", account.uid, account.gid)
    initdb = [programs.program("initdb"), "-D", "data", "-U", "tuner", "-E", "UTF8"]
    initdb += ["--no-locale", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **options)
    server = Server(folder, _free_port(), str(programs.program("postgres")), options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
