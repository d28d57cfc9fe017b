"""PostgreSQL and PgBouncer for a large fleet, with the settings of docs/scale.md."""

import contextlib
import os
import pwd
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from tests.harness import postgres
from tests.harness.processes import until
from tuner.store.database import SERVER_SIDE

SETTINGS = {
    "max_connections": "2300",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "jit": "off",
    "huge_pages": "off",
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_scale_factor": "0.05",
}
BOUNCER = """\
[databases]
{database} = host=127.0.0.1 port={server} dbname={database} user=tuner

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
max_client_conn = 5000
default_pool_size = 48
ignore_startup_parameters = options
logfile = {log}
"""


@dataclass
class FleetServer(postgres.Server):
    """A server whose commits reach the disk, for thousands of connections."""

    log: Path | None = None

    def settings(self) -> dict[str, str]:
        """Return the settings that differ from the defaults; every commit reaches the disk."""
        return SETTINGS

    @contextmanager
    def database(self) -> Iterator[str]:
        """Create a database, and drop it at the end."""
        name = f"fleet_{uuid.uuid4().hex[:8]}"
        url = self.create(name)
        try:
            yield url
        finally:
            self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def ask(self, statement: str) -> list[Any]:
        """Run a statement outside of any transaction."""
        connection = self._connect()
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def cpu(self) -> float:
        """Return the CPU seconds of all its processes, also of those that have ended."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return sum(_cpu(one) for one in (root, *root.children())) + _of_children(root)

    def backends(self) -> list[psutil.Process]:
        """Return the processes that serve connections."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [one for one in children if "127.0.0.1" in " ".join(one.cmdline())]

    def log_bytes(self) -> float:
        """Return the position in the write-ahead log."""
        return float(self.ask("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])

    def commits(self) -> float:
        """Return how many transactions have been committed, read-only ones included."""
        return float(self.ask("SELECT sum(xact_commit) FROM pg_stat_database")[0][0])

    def about(self) -> dict[str, Any]:
        """Describe the server, on which the figures depend."""
        version = self.ask("SHOW server_version")[0][0]
        return {
            "postgresql": version,
            "settings": SETTINGS,
            "pgbouncer": bouncer_version(),
            "sync_ms": 1000 * _sync_seconds(self.folder),
        }


@contextmanager
def run_fleet_server() -> Iterator[FleetServer]:
    """Create and start a server, and remove it at the end."""
    # Tests keep their servers in memory; here every commit must reach the disk.
    os.environ.pop("TMPDIR", None)
    tempfile.tempdir = None
    with postgres.run_server() as plain:
        plain.stop_at_once()
        server = FleetServer(plain.folder, plain.port, plain.programs, plain.account)
        server.start()
        try:
            yield server
        finally:
            server.stop_at_once()


@dataclass
class Bouncer:
    """A PgBouncer in transaction mode before one database."""

    port: int
    database: str
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def url(self) -> str:
        """The address that workers get."""
        return f"postgresql://tuner@127.0.0.1:{self.port}/{self.database}"

    def cpu(self) -> float:
        """Return its CPU seconds."""
        return _cpu(psutil.Process(self.process.pid))

    def memory(self) -> float:
        """Return its resident bytes."""
        return float(psutil.Process(self.process.pid).memory_info().rss)


def bouncer_version() -> str | None:
    """Return PgBouncer's version; None if it is not installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


@contextmanager
def run_bouncer(server: FleetServer, url: str) -> Iterator[Bouncer]:
    """Run a PgBouncer before a database of a server, configured as BOUNCER says."""
    database = url.rpartition("/")[2]
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("pgbouncer is not installed (apt-get install pgbouncer)")
    for setting, value in SERVER_SIDE.items():
        server.ask(f"ALTER ROLE tuner IN DATABASE {database} SET {setting} = '{value}'")
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, port = Path(name), postgres._free_port()
        folder.chmod(0o777)
        users, log = folder / "users.txt", folder / "pgbouncer.log"
        users.write_text('"tuner" ""\n')
        path = folder / "pgbouncer.ini"
        path.write_text(
            BOUNCER.format(database=database, server=server.port, port=port, users=users, log=log)
        )
        # It refuses to run as root.
        account = {"user": pwd.getpwnam("nobody").pw_uid} if os.geteuid() == 0 else {}
        process = subprocess.Popen(
            [program, "-q", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **account,  # type: ignore[call-overload]
        )
        bouncer = Bouncer(port, database, process)
        try:
            until(lambda: _answers(bouncer), "PgBouncer answers")
            yield bouncer
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _answers(bouncer: Bouncer) -> bool:
    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(bouncer.url, connect_timeout=2).close()
        return True
    return False


def memory_of(processes: Sequence[psutil.Process]) -> float:
    """Return the private memory of these processes, in bytes."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            total += process.memory_full_info().uss
    return total


def _sync_seconds(folder: Path) -> float:
    """Return the median time that the disk takes to sync a page of the log."""
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(51):
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fdatasync(file)
            took.append(time.perf_counter() - begun)
    (folder / "sync").unlink()
    return statistics.median(took)


def _cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _of_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)
