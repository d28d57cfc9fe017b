"""Programs of tuner for tests, forked from one process that has loaded their libraries.

A command spends seconds on imports, and a launch starts several processes that import the same
again: most of the cost of a test of the command line. Such a program differs from an executed one
only in how its modules were loaded: it has its own session, streams, folder and environment, and
the fork server that it starts is its own child, as always.

Tests of how Python starts (its path, its flags, its encoding, its imports) execute it.
"""

import contextlib
import functools
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

from tests.harness.question import Here, enter, searched
from tuner import forkserver, questions
from tuner.cli.main import COMMANDS
from tuner.forkserver import ForkedProcess, ForkServer, Program
from tuner.processes import Process, Streams
from tuner.settings import child_environment

TUNER = "tuner.cli.main:run"
"""The function called with the command line's arguments."""
PYTHONPATH = "PYTHONPATH"
PATH = os.pathsep.join(path for path in sys.path if path)
"""This process's module path, in the form of PYTHONPATH."""
_start = ForkServer.start
HERE = Path.cwd()
"""The server's folder, and that of programs forked without one."""
LATER = (
    "alembic.command",
    "encodings.utf_8_sig",
    "psycopg2.extras",
    "pydantic.dataclasses",
    "pydantic.type_adapter",
    "scipy.stats",
    "torch.fx.experimental._constant_symnode",
    "torch.nested._internal.nested_tensor",
    "tuner.answers.compare",
    "tuner.answers.leaderboard",
    "tuner.answers.race",
    "tuner.answers.remarks",
    "tuner.answers.setting_comparison",
    "tuner.answers.sheets.export",
    "tuner.check.cost",
    "tuner.check.identity",
    "tuner.check.quick",
    "tuner.cli.live",
    "tuner.cli.provenance",
    "tuner.cli.race",
    "tuner.cli.tables",
    "tuner.fleet.detached",
    "tuner.fleet.local",
    "tuner.fleet.tending",
    "tuner.results.contenders",
    "tuner.results.provenance",
    "tuner.results.rows",
    "tuner.spec.load",
    "tuner.store.control",
    "tuner.store.database",
    "tuner.store.embedded.server",
    "tuner.store.identities",
    "tuner.store.optuna_storage",
    "tuner.store.overview",
    "tuner.store.schema",
    "tuner.store.studies",
    "tuner.train.abreast",
    "tuner.train.checkpoints.parts",
    "tuner.train.networks.declared",
    "tuner.winner.prediction",
    "tuner.winner.saving",
    "tuner.winner.training",
    "tuner.work.removal",
)
"""Modules that commands import late, and that libraries import at their first call."""
AHEAD = "tests.harness.ahead"
HUGE_PAGES = "tests.harness.huge_pages"
"""Makes forks cheap; the last module, so that it finds the memory of all others."""


def possible(environ: Mapping[str, str]) -> bool:
    """Return whether a program may be forked: not if a variable affects how Python starts."""
    decides = [name for name in environ if name.startswith(("PYTHON", "LANG", "LC_"))]
    as_here = all(environ[one] == os.environ.get(one) for one in decides if one != PYTHONPATH)
    customised = any(Path(one, "sitecustomize.py").exists() for one in searched(environ))
    return forkserver.AVAILABLE and as_here and not customised


def fork_questions() -> None:
    """From now on, fork also the children that answer questions of this process."""

    def server(environment: Mapping[str, str]) -> ForkServer | None:
        return Here(_server()) if possible(environment) else None

    _fork_questions(server)


def _fork_questions(server: Callable[[Mapping[str, str]], ForkServer | None]) -> None:
    def starter(
        forks: ForkServer | None, program: Program, environment: Mapping[str, str]
    ) -> Callable[[Streams], Process]:
        return forkserver.starter(forks or server(environment), program, environment)

    questions.starter = starter  # type: ignore[attr-defined, assignment]


class Forked:
    """A program that was forked; it is used like a `subprocess.Popen` with text streams."""

    def __init__(
        self, process: ForkedProcess, stdin: Any = None, stdout: Any = None, stderr: Any = None
    ) -> None:
        self._process = process
        self.pid = process.pid
        self.poll = process.poll
        self.wait = process.wait
        self.send_signal = process.send_signal
        self.kill = process.kill
        self.stdin: IO[Any] | None = stdin
        self.stdout: IO[Any] | None = stdout
        self.stderr: IO[Any] | None = stderr

    @property
    def returncode(self) -> int | None:
        """Its exit code, once `wait` or `poll` has returned it."""
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their ends, and wait for its exit."""
        read = {"stdout": "", "stderr": ""}

        def drain(name: str, stream: IO[str]) -> None:
            read[name] = stream.read()

        readers = [
            threading.Thread(target=drain, args=(name, stream), daemon=True)
            for name in read
            if (stream := getattr(self, name)) is not None
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        self.wait(timeout)
        return read["stdout"], read["stderr"]

    def __enter__(self) -> Self:
        """Return the program itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its streams, and wait for its end."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


Started: TypeAlias = "subprocess.Popen[Any] | Forked"
"""A program started by a test, forked or executed."""


def serve(
    environment: Mapping[str, str],
    modules: Sequence[str],
    beside: Sequence[str] = (),
) -> ForkServer:
    """Replace `ForkServer.start` by a server forked from the tests' own, with modules loaded.

    For launches in the tests' own process: each would start one, and wait for torch.
    """
    ours, theirs = socket.socketpair()
    with theirs, Path(os.devnull).open("r+b") as nothing:
        number = nothing.fileno()
        program = Program(forkserver.__name__, "tuner fork server", needs=_modules())
        streams = Streams(number, number, number, theirs.fileno())
        process = _server().fork(program, environment, streams)
    return ForkServer(ours, process)  # type: ignore[arg-type]


running: list[Started] = []
"""Programs that `end_all` ends if their test fails before they end by themselves."""


def fork_server() -> ForkServer | None:
    """Return the server from which supervisors in the tests' own process fork their trainers."""
    return _server() if forkserver.AVAILABLE else None


def start(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], called: str = TUNER
) -> Forked:
    """Start a program in a folder; its outputs are pipes, and it has no input."""
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        process = fork(
            arguments, folder, environment, Streams(nothing, out_end, err_end), called=called
        )
    finally:
        for descriptor in (nothing, out_end, err_end):
            os.close(descriptor)
    # The encoding is the one that `subprocess` would use.
    forked = Forked(process, None, os.fdopen(out), os.fdopen(err))
    running.append(forked)
    return forked


def end_all(since: int) -> None:
    """kill -9 the programs started since then; their children follow."""
    for process in running[since:]:
        if process.poll() is None:
            process.kill()
            process.wait()
    del running[since:]


def fork(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: Streams,
    called: str = TUNER,
) -> ForkedProcess:
    """Fork a program with these streams."""
    words = (str(folder), called, *arguments)
    program = Program(__name__, "tuner", words, needs=_modules())
    return _server().fork(program, environment, streams)


@functools.cache
def _modules() -> tuple[str, ...]:
    commands = [f"tuner.cli.{place.split(':')[0]}" for place in COMMANDS.values()]
    programs = (*forkserver.CHECKS, *forkserver.WORKERS, *forkserver.TRAINERS)
    return tuple(dict.fromkeys([*programs, *commands, *LATER, __name__, AHEAD, HUGE_PAGES]))


@functools.cache
def _server() -> ForkServer:
    """Start the server that all programs of this test process are forked from, and end with."""
    with contextlib.chdir(HERE):
        return _start(child_environment() | {PYTHONPATH: PATH}, _modules())


def main(arguments: Sequence[str]) -> int:
    """Run a program, in a fork."""
    folder, called, *words = arguments
    enter(folder)
    ours, theirs = socket.socketpair()
    own = os.fork()
    if own == 0:
        # The program's fork server; the modules that it would load are loaded.
        ours.close()
        os.setsid()
        with Path(os.devnull).open("r+b") as nothing:
            for descriptor in range(3):
                os.dup2(nothing.fileno(), descriptor)
        return forkserver.main([str(theirs.detach())])
    theirs.close()
    server = ForkServer(ours, _Child(own))  # type: ignore[arg-type]
    ForkServer.start = lambda *_: server  # type: ignore[method-assign]
    _fork_questions(lambda _: server)
    sys.argv = ["tuner", *words]
    module, name = called.split(":")
    try:
        code: int = getattr(importlib.import_module(module), name)(words)
        return code
    finally:
        server.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.waitpid(own, os.WNOHANG)


class _Child:
    """A program's fork server, in the form of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
