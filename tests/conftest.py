"""Fixtures for every test: real PostgreSQL, a separate database for each test."""

import os

# Several test processes and the trainers that they start share the cores. Threads of OpenMP (torch)
# and of OpenBLAS (numpy) wait for each other by spinning: beside other processes a step of a small
# network took twenty times the CPU. The first variable lets them sleep, the second leaves one
# thread; both libraries read them once, when they are loaded. No result depends on the first.
# Programs that tests start do not inherit the second, which their fork server sets.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy  # noqa: F401

del os.environ["OPENBLAS_NUM_THREADS"]

import compileall
import contextlib
import functools
import gc
import importlib
import shutil
import signal
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

from tests.harness import compiled, warm
from tests.harness.durations import long_tests
from tuner import forkserver
from tuner.settings import Settings, Timing
from tuner.store import schema
from tuner.store.address import Address
from tuner.store.database import Database
from tuner.store.embedded import server as embedded

# Test modules make a million objects and hardly any garbage; looking for it took a quarter of the
# time. `pytest_collection_finish` switches it on.
gc.disable()

QUICK = Timing(lease=3.0, renew=0.3, grace=0.8, poll=0.15, give_back=5.0)
"""Leases short enough for tests to wait for."""

TEMPLATE = "tuner_template"

PROCESSES = {
    "cluster",
    "composition",
    "days",
    "home",
    "make_fleet",
    "membership",
    "mortal",
    "odd",
    "own_server",
    "planted",
    "private",
    "private_home",
    "project",
    "raced",
    "ray_cluster",
    "reader",
    "saved",
    "scene",
    "station",
    "tcp_server",
    "trained_once",
    "troubled",
    "workplace",
    "wrong",
}
"""Fixtures of tests that start programs: whole commands, workers, trainers, servers. A test that
starts one by itself has the mark."""

hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
"""On a busy machine an example may take any time."""

PROGRAMS_END = 0.8
"""The last file that starts programs is begun after this share of the others."""

MEMORY = Path("/dev/shm")
"""A file system in memory, on Linux. Each test makes a database and drops it, hundreds of files: on
ext4, which spares inodes that were freed a moment ago, that takes ten times as long."""
ROOM = 4 << 30

if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # so that it is read again

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that; tests send
# Ctrl-C and need it handled.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Compile the code before the tests start hundreds of processes that would each compile it."""
    if config.getoption("numprocesses", None):
        gc.enable()  # this process only distributes tests, and collects none
    if not hasattr(config, "workerinput"):
        for folder in ("tuner", "objectives"):
            compileall.compile_dir(config.rootpath / folder, quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep rewritten test modules for the next run, even with PYTHONDONTWRITEBYTECODE.

    Only those: an objective that a test changes twice in a second would be taken from the cache.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        _import_a_share(session.config)
        return (yield)
    finally:
        sys.dont_write_bytecode = before


def _import_a_share(config: pytest.Config) -> None:
    """Rewrite a share of the modules in each process first, and then read the rest.

    pytest rewrites the asserts of all test modules, which takes longer than to load them. In a
    fresh checkout every process would do that with every module, all in one order.
    """
    if (worker := getattr(config, "workerinput", None)) is None:
        return
    share = slice(int(worker["workerid"].removeprefix("gw")), None, worker["workercount"])
    for path in sorted(Path(__file__).parent.rglob("test_*.py"))[share]:
        name = ".".join(path.relative_to(config.rootpath).with_suffix("").parts)
        with contextlib.suppress(Exception):  # pytest will meet the error again and report it
            importlib.import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start programs, and long ones, and put files in order.

    `make test-fast` leaves them out. In `make test` files go to whichever process is free, in this
    order. Files that start programs wait for them a third of their time, and the others compute:
    taken in turns, they share the cores well. Of each kind the longest come first, so that none
    runs alone in the end.
    """
    measured = long_tests()
    for item in items:
        if PROCESSES & set(getattr(item, "fixturenames", ())):
            item.add_marker("processes")
        if item.nodeid.split("[")[0] in measured:
            item.add_marker("long")
    programs = Counter(item.path for item in items if item.get_closest_marker("processes"))
    long = Counter(item.path for item in items if item.get_closest_marker("long"))
    # Not a set: every process must come to the same order.
    files = list(dict.fromkeys(item.path for item in items))
    files.sort(key=lambda path: (-programs[path], -long[path]))
    waiting = [path for path in files if programs[path]]
    computing = [path for path in files if not programs[path]]
    place = {path: at / len(waiting) * PROGRAMS_END for at, path in enumerate(waiting)}
    place |= {path: at / len(computing) for at, path in enumerate(computing)}
    items.sort(key=lambda item: place[item.path])


def pytest_collection_finish() -> None:
    """Collect only garbage that tests create, not a million objects of their modules."""
    gc.collect()
    gc.freeze()
    # Reference counting frees most of what tests create; looking for cycles took a twentieth.
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> None:
    """Remove the developer's TUNER_ and PG variables, which would decide where tests write."""
    for name in list(os.environ):
        if name.startswith(("TUNER_", "PG")):
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _questions_are_forked() -> None:
    """Fork children that load torch to answer one question from a process that has it loaded."""
    if forkserver.AVAILABLE:
        warm.fork_questions()


@pytest.fixture(scope="session", autouse=True)
def _statements_are_compiled_once() -> None:
    """Let all engines of this process share the statements that they compile."""
    compiled.share()


@pytest.fixture(autouse=True)
def _no_program_outlives_its_test() -> Iterator[None]:
    """End processes that a failing test leaves running: a launch would go on training."""
    before = len(warm.running)
    yield
    warm.end_all(before)


@pytest.fixture(scope="session")
def server() -> Iterator[Address]:
    """Run one embedded server for all tests of this process."""
    # Not below pytest's own folder: as root PostgreSQL runs as another user, who cannot reach it
    # there, so that the data would be in /var/lib and stay.
    with tempfile.TemporaryDirectory(prefix="tuner-tests-") as folder:
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        with embedded.join(home) as membership:
            yield membership.address
        embedded.erase(home)


@pytest.fixture(scope="session")
def template(server: Address) -> str:
    """Create a migrated, empty database that every test's own is cloned from."""
    _command(server, f"CREATE DATABASE {TEMPLATE}")
    with Database(_named(server, TEMPLATE)) as database:
        schema.ensure(database)
        with database.autocommit() as connection:
            # Fewer and smaller files, which every test copies: a sixth less time.
            connection.execute(sa.text("VACUUM FULL"))
    return TEMPLATE


@pytest.fixture
def address(server: Address, template: str) -> Iterator[Address]:
    """Return the address of the test's own database, ready to use."""
    with own_database(server, template) as own:
        yield own


@contextmanager
def own_database(server: Address, template: str) -> Iterator[Address]:
    """Clone the template, and drop the clone at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _command(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield _named(server, name)
    _command(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(address: Address, tmp_path: Path) -> Settings:
    """Settings that point at the test's own database and home, with quick leases."""
    url = address.url(show_password=True)
    return Settings(home=tmp_path / "home", database_url=url, timing=QUICK)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """Open the test's own database."""
    with Database.open(settings) as database:
        yield database


def _named(address: Address, name: str) -> Address:
    return Address({**address.parameters, "dbname": name})


def _command(address: Address, statement: str) -> None:
    _administrator(address).execute(sa.text(statement))


@functools.cache
def _administrator(address: Address) -> sa.Connection:
    """Connect once for all statements that create and drop databases; it ends with the process.

    A new connection for each would cost more than the statement itself.
    """
    engine = Database(address).engine
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()
