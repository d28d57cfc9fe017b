"""A PostgreSQL of one test's own that can be stopped at once and started again."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.servers import _free_port
from tuner.store.embedded import binaries
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded.binaries import Binaries

START_SECONDS = 60.0


@dataclass
class Server:
    """A server on 127.0.0.1 that lets everybody in; its data outlive a stop."""

    folder: Path
    programs: Binaries
    options: dict[str, Any]
    """Under whose account its programs run."""
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address of its database."""
        return self.url_through(self.port)

    def url_through(self, port: int) -> str:
        """Return the address of its database as seen through a proxy."""
        return f"postgresql://tuner@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers; after a hard stop it recovers first."""
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", "max_connections=60"]
        settings.append(f"unix_socket_directories={self.folder / 'data'}")
        flags = [word for setting in settings for word in ("-c", setting)]
        self.process = subprocess.Popen(
            [self.programs.program("postgres"), "-D", "data", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **self.options,
        )
        self._await()

    def stop_at_once(self) -> None:
        """Stop it as a power cut would, but for the machine: nothing is rolled back or flushed."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        command = [self.programs.program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(command, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, "the test's PostgreSQL did not start"
            time.sleep(0.05)


@contextmanager
def run_server() -> Iterator[Server]:
    """Make and start a server, and remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="tuner-faults-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the server runs as another user
        account = embedded_places.account_for(folder)
        programs = binaries.locate_for(account)
        options = {} if account is None else account.options()
        (folder / "data").mkdir(mode=0o700)
        if account is not None:
            os.chown(folder / "data", account.uid, account.gid)
        initdb = [programs.program("initdb"), "-D", "data", "-U", "tuner", "-E", "UTF8"]
        initdb += ["--no-locale", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **options)
        server = Server(folder, programs, dict(options), _free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop_at_once()
