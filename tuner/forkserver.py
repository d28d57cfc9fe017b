"""A process that loads torch once and forks the workers and trainers of one machine.

Every Python process needs seconds to load torch, sqlalchemy and their dependencies. A
fork of a process that has loaded them starts within milliseconds and shares their
memory.

    launch ── channel ──► fork server ──fork──► worker ── channel ──► the same fork server
                               └─ passes on ──► the second process ──fork──► trainer

Torch takes a second to load, in which nothing can be forked. So a launch has it loaded
by a second process, forked from the server before it imports anything: meanwhile the
first one forks the check of the data and the workers, which need no torch. What needs
torch is passed on, with its descriptors, and the second process answers by itself.

Why a fork is safe here. The server is started as a separate program, with -P and
without secrets in its environment. It only imports modules: it never has a tensor, a
database connection, CUDA, or an objective, which is other people's code. It has one
thread, and OpenBLAS is told to create none; if a library creates one anyway, forking
stops. Only Linux forks: on macOS the system's frameworks must not be used after a fork
without exec. Without a server, every process is started by exec.

A forked process is a child of the server, not of the process that requested it. The
requester holds a control socket: the server reports the end of the process over it,
and keeps the process id from being reused until the holder has closed the socket.

The server ends when its last client has closed its channel and no process is held
any more.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import psutil
from setproctitle import setproctitle

from tuner.ending import leave
from tuner.processes import Executed, Process, Streams, python
from tuner.settings import child_environment

AVAILABLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
"""Whether this system can fork processes from one that has loaded libraries."""
CHECKS = ("tuner.check.examination", "tuner.check.findings", "tuner.check.quick")
"""Modules to import before forking a check of data."""
WORKERS = ("tuner.cli.worker", "tuner.work.worker")
"""Modules to import before forking a worker."""
TRAINERS = (
    "tuner.train.checkpoints.saver",
    "tuner.train.networks.models",
    "tuner.train.sources.load",
    "tuner.train.workbench",
    "tuner.work.trainer",
)
"""Modules to import before forking a trainer: torch."""
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1"}
"""A variable for the server only; OpenBLAS reads it when numpy loads it."""

_LENGTH = struct.Struct(">I")
_STATUS = struct.Struct(">i")
MOST_DESCRIPTORS = 8
BESIDE = "--beside"
"""Comes before the modules of the second process, among a server's arguments."""


class ForkServerLostError(Exception):
    """The fork server has ended, or never started."""


@dataclass(frozen=True)
class Program:
    """A module of this package that runs as a process: by exec, or its `main` in a fork.

    With `forks`, a forked process gets a channel to the server to request forks itself:
    `--forks` and the number of the descriptor are its last arguments.
    """

    module: str
    title: str
    arguments: tuple[str, ...] = ()
    forks: bool = False
    needs: tuple[str, ...] = ()
    """Modules that the server must import before it forks."""


class _Leader(subprocess.Popen[bytes]):
    """A server's process, the leader of its own session."""

    def kill(self) -> None:
        """Kill the server and its second process, which would first finish loading torch.

        What they forked has sessions of its own.
        """
        # Popen returned after setsid, so the group has the server's id, and it stays this group's
        # until poll() or wait() reaps the server. The second process cannot escape by being
        # forked just now: the kernel lets no fork through while a signal is pending.
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)


class ForkServer:
    """A client's end of the channel to a fork server."""

    def __init__(
        self, channel: socket.socket, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self._channel = channel
        self.process = process
        """The server, if this process started it."""
        self._used = False
        self._asking = threading.Lock()

    @classmethod
    def start(
        cls,
        environment: Mapping[str, str],
        modules: Sequence[str],
        beside: Sequence[str] = (),
    ) -> "ForkServer":
        """Start a server, which at once begins to import the modules in order.

        Those of `beside` are imported at the same time by a second process, which forks the
        programs that need them.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = _Leader(
                [*python("tuner.forkserver"), str(theirs.fileno()), *modules, BESIDE, *beside],
                pass_fds=[theirs.fileno()],
                env={**environment, **SINGLE_THREADED},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Each fork gets its own streams; a failure of the server only costs time.
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(ours, process)

    @classmethod
    def inherited(cls, descriptor: int) -> "ForkServer":
        """Use the channel that a forked process inherited."""
        channel = socket.socket(fileno=descriptor)
        channel.set_inheritable(False)
        return cls(channel)

    def fork(
        self, program: Program, environment: Mapping[str, str], streams: Streams
    ) -> "ForkedProcess":
        """Fork a program with these streams and this environment; raise if the server is gone."""
        ours, theirs = socket.socketpair()
        asked = {
            "module": program.module,
            "title": program.title,
            "arguments": list(program.arguments),
            "forks": program.forks,
            "needs": list(program.needs),
        }
        body = json.dumps(asked).encode()
        try:
            with theirs, _written(environment) as environment_fd, self._asking:
                descriptors = [
                    theirs.fileno(),
                    environment_fd,
                    streams.stdin,
                    streams.stdout,
                    streams.stderr,
                ]
                if streams.channel is not None:
                    descriptors.append(streams.channel)
                socket.send_fds(self._channel, [_LENGTH.pack(len(body))], descriptors)
                self._channel.sendall(body)
            pid = _STATUS.unpack(_exactly(ours, _STATUS.size))[0]
            self._used = True
            return ForkedProcess(pid, ours)
        except (OSError, EOFError):
            ours.close()
            raise ForkServerLostError from None

    def close(self) -> None:
        """Stop using the server; our own server ends at once if it has forked nothing."""
        self._channel.close()
        if self.process is not None and not self._used:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop using the server."""
        self.close()


def started(
    modules: Sequence[str], beside: Sequence[str] = ()
) -> contextlib.AbstractContextManager[ForkServer | None]:
    """Start a server that imports these modules, if the system supports it."""
    if not AVAILABLE:
        return contextlib.nullcontext()
    return ForkServer.start(child_environment(), modules, beside)


def starter(
    server: ForkServer | None, program: Program, environment: Mapping[str, str]
) -> Callable[[Streams], Process]:
    """Return a function that starts a program: by a fork if there is a server, else by exec."""

    def start(streams: Streams) -> Process:
        if server is not None:
            with contextlib.suppress(ForkServerLostError):
                return server.fork(program, environment, streams)
        return Executed((*python(program.module), *program.arguments), environment, streams)

    return start


class ForkedProcess:
    """A process that the server forked for us, with the interface of `subprocess.Popen`."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._control = control
        self._end_seen = threading.Event()
        self._status = -signal.SIGKILL
        with contextlib.suppress(psutil.NoSuchProcess):  # ended already; its status is on its way
            self._process = psutil.Process(pid)
        threading.Thread(target=self._listen, daemon=True).start()

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self.returncode is None and self._end_seen.is_set():
            self._release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status."""
        if not self._end_seen.wait(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        self._release()
        assert self.returncode is not None
        return self.returncode

    def wait_unreaped(self) -> None:
        """Wait for the end without releasing the process id."""
        self._end_seen.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        # Until it is released, the id belongs to this process, even as a zombie.
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, without its children."""
        self.send_signal(signal.SIGKILL)

    def _listen(self) -> None:
        try:
            (self._status,) = _STATUS.unpack(_exactly(self._control, _STATUS.size))
        except (OSError, EOFError):
            # The server is gone, so we cannot learn how this process ends. It must not train on
            # unobserved beside its successor, so kill it. psutil compares the start time, so
            # another process that reuses the id is left alone.
            with contextlib.suppress(psutil.Error, AttributeError):
                self._process.kill()
                self._process.wait()
        self._end_seen.set()

    def _release(self) -> None:
        if self.returncode is None:
            self.returncode = self._status
            self._control.close()


@dataclass
class _Fork:
    """A process forked by the server, until its holder knows how it ended."""

    pid: int
    descriptor: int
    """Becomes readable when the process ends."""
    control: socket.socket
    status: int | None = None
    released: bool = False


@dataclass(frozen=True)
class _Request:
    body: Mapping[str, Any]
    descriptors: Sequence[int]


@dataclass
class _ServerLoop:
    """The loop that imports modules, reads requests, and reports ended processes."""

    modules: list[str]
    """To be imported while the server is idle."""
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    clients: set[socket.socket] = field(default_factory=set)
    forks: dict[int, _Fork] = field(default_factory=dict)
    beside: "socket.socket | None" = None
    """The channel to the second process, which lives as long as it is open."""
    passed_on: frozenset[str] = frozenset()
    """Modules that only the second process imports."""

    def add(self, client: socket.socket) -> None:
        self.clients.add(client)
        self.selector.register(client, selectors.EVENT_READ, ("request", client))

    def serve(self) -> "_Request | None":
        """Serve until no client is left; in a fork, return the request to run at once."""
        while self.clients or any(not fork.released for fork in self.forks.values()):
            ready = self.selector.select(0 if self.modules else None)
            if not ready:
                importlib.import_module(self.modules.pop(0))
            for key, _events in ready:
                what, subject = key.data
                if what == "request" and subject in self.clients:
                    if (request := self._request(subject)) is not None:
                        return request
                elif what == "ended" and subject.status is None:
                    self._ended(subject)
                elif what == "released":
                    self._released(subject)
        return None

    def _request(self, client: socket.socket) -> "_Request | None":
        descriptors: list[int] = []
        try:
            start, descriptors, _flags, _from = socket.recv_fds(
                client, _LENGTH.size, MOST_DESCRIPTORS
            )
            if not start:
                raise EOFError
            if len(start) < _LENGTH.size:
                start += _exactly(client, _LENGTH.size - len(start))
            request = _Request(json.loads(_exactly(client, *_LENGTH.unpack(start))), descriptors)
        except (OSError, EOFError):
            _close(descriptors)
            self.selector.unregister(client)
            self.clients.discard(client)
            client.close()
            return None
        if self.beside is not None and not self.passed_on.isdisjoint(request.body["needs"]):
            _pass_on(self.beside, request)
            return None
        return self._fork(request)

    def _fork(self, request: _Request) -> "_Request | None":
        # All later forks have them too.
        for name in request.body["needs"]:
            importlib.import_module(name)
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
            # A fork might inherit locks held by a thread that it does not have. The client sees
            # the control socket close, and executes the program.
            _close(request.descriptors)
            return None
        # Loaded modules stay for good: keep the garbage collector from touching, and so copying,
        # their pages in a fork.
        gc.freeze()
        control_number, *streams = request.descriptors
        control = socket.socket(fileno=control_number)
        ours: socket.socket | None = None
        if request.body["forks"]:
            ours, theirs = socket.socketpair()
            streams.append(theirs.detach())
        try:
            pid = os.fork()
        except OSError:  # no memory, or too many processes: the client sees the socket close
            for each in (control, ours):
                if each is not None:
                    each.close()
            _close(streams)
            return None
        if pid == 0:
            gc.enable()
            self._forget()
            control.close()
            if ours is not None:
                ours.close()
            return _Request(request.body, streams)
        _close(streams)
        if ours is not None:
            self.add(ours)
        fork = _Fork(pid, os.pidfd_open(pid), control)
        self.forks[pid] = fork
        self.selector.register(fork.descriptor, selectors.EVENT_READ, ("ended", fork))
        self.selector.register(control, selectors.EVENT_READ, ("released", fork))
        with contextlib.suppress(OSError):  # the client is gone; its end is read next
            control.sendall(_STATUS.pack(pid))
        return None

    def _forget(self) -> None:
        """In a fork: close the server's descriptors, so that clients notice when it ends."""
        self.selector.close()
        if self.beside is not None:
            self.beside.close()
        for client in self.clients:
            client.close()
        for fork in self.forks.values():
            fork.control.close()
            if fork.status is None:
                os.close(fork.descriptor)

    def _ended(self, fork: _Fork) -> None:
        # Do not reap it yet: the holder may be about to send a signal to this process id.
        ended = os.waitid(os.P_PID, fork.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        exited = ended.si_code == os.CLD_EXITED
        fork.status = ended.si_status if exited else -ended.si_status
        self.selector.unregister(fork.descriptor)
        os.close(fork.descriptor)
        if fork.released:
            self._reap(fork)
        else:
            with contextlib.suppress(OSError):
                fork.control.sendall(_STATUS.pack(fork.status))

    def _released(self, fork: _Fork) -> None:
        """Handle a closed control socket: the holder knows the end, or is gone itself."""
        self.selector.unregister(fork.control)
        fork.released = True
        if fork.status is not None:
            self._reap(fork)

    def _reap(self, fork: _Fork) -> None:
        os.waitpid(fork.pid, 0)
        fork.control.close()
        del self.forks[fork.pid]


def _pass_on(beside: socket.socket, request: _Request) -> None:
    """Have the second process fork what is requested; it answers the client itself.

    If it is gone, the client sees its control socket close, and executes the program.
    """
    body = json.dumps(request.body).encode()
    with contextlib.suppress(OSError):
        socket.send_fds(beside, [_LENGTH.pack(len(body))], request.descriptors)
        beside.sendall(body)
    _close(request.descriptors)


def _run(request: _Request) -> int:
    """Run the requested program in a fork."""
    body, (environment_fd, stdin, stdout, stderr, *more) = request.body, request.descriptors
    os.setsid()
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Python's stream objects describe the server's streams (seekable or not), so reopen them.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    with os.fdopen(environment_fd, "rb") as environment:
        os.environ.clear()
        os.environ.update(json.loads(environment.read()))
    # A program started by exec has its own random numbers, so reseed each fork.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    for descriptor in more:
        os.set_inheritable(descriptor, False)
    channels = [str(descriptor) for descriptor in more]
    if body["forks"]:
        channels.insert(-1, "--forks")
    arguments = [*body["arguments"], *channels]
    sys.argv = [body["title"], *arguments]
    setproctitle(" ".join([body["title"], *body["arguments"]]))
    code: int = importlib.import_module(body["module"]).main(arguments)
    return code


@contextlib.contextmanager
def _written(environment: Mapping[str, str]) -> Iterator[int]:
    """Yield an in-memory file with an environment, which only the new fork reads.

    The server just passes it on: a worker's environment opens the database, and anything
    that the server reads would be in the memory of every trainer that it forks later.
    """
    descriptor = os.memfd_create("environment")
    try:
        os.write(descriptor, json.dumps(dict(environment)).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _split_modules(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the modules of the server, and those of the second process."""
    if BESIDE not in arguments:
        return arguments, []
    at = arguments.index(BESIDE)
    return arguments[:at], arguments[at + 1 :]


def main(arguments: list[str]) -> int:
    """Serve on a descriptor, and import modules meanwhile."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    # Set it here too: setproctitle locates the title by the initial environment.
    setproctitle("tuner fork server")
    # Imports produce little garbage, but many objects to scan.
    gc.disable()
    modules, beside = _split_modules(arguments[1:])
    server = _ServerLoop(modules)
    server.add(channel)
    if beside:
        ours, theirs = socket.socketpair()
        # Before anything is imported or served: it knows no client of ours, and shares no fork.
        if os.fork() == 0:
            server._forget()
            ours.close()
            server = _ServerLoop(beside)
            server.add(theirs)
        else:
            theirs.close()
            server.beside, server.passed_on = ours, frozenset(beside)
    # In a fork the loop returns before the program runs, so that none of it is on the stack.
    request = server.serve()
    if request is not None:
        leave(_run(request))
    return 0


if __name__ == "__main__":
    # Programs of forks import this module by its name, not as __main__.
    from tuner.forkserver import main as serve

    leave(serve(sys.argv[1:]))
