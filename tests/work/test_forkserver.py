"""A fork server: each fork is like a separately started process, and its end is reported."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness.processes import is_alive, until
from tuner.forkserver import (
    AVAILABLE,
    TRAINERS,
    ForkedProcess,
    ForkServer,
    ForkServerLostError,
    Program,
    starter,
)
from tuner.processes import Executed, Streams, kill_family

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not AVAILABLE, reason="processes are not forked on this system"),
]

MODULE = "tests.work.fork_programs"


class Forks:
    """A server, and the streams of its forks."""

    def __init__(self, folder: Path) -> None:
        # The programs are the tests': the server finds them in the same place as this process.
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, "PYTHONPATH": path, "MINE": "server"}
        self.server = ForkServer.start(self.environment, ["numpy", MODULE])
        self.folder = folder
        self.started: list[ForkedProcess] = []

    @property
    def pid(self) -> int:
        """Fork a program that writes to the files `out` and `err`."""
        assert self.server.process is not None
        return self.server.process.pid

    def run(
        self, *arguments: str, channel: int | None = None, forks: bool = False
    ) -> ForkedProcess:
        """Have a program forked that writes to files `out` and `err`."""
        program = Program(MODULE, "tuner test", arguments, forks=forks)
        with (
            Path(os.devnull).open("rb") as nothing,
            (self.folder / "out").open("wb") as out,
            (self.folder / "err").open("wb") as err,
        ):
            streams = Streams(nothing.fileno(), out.fileno(), err.fileno(), channel)
            environment = {**os.environ, "MINE": "fork", "SECRET": "s3cret"}
            process = self.server.fork(program, environment, streams)
        self.started.append(process)
        return process

    def out(self) -> str:
        """Return the output."""
        return (self.folder / "out").read_text()


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    """Run a server, and end its forks."""
    forks = Forks(tmp_path)
    yield forks
    for process in forks.started:
        process.kill()
    forks.server.close()


def test_a_fork_is_like_a_process_started_by_itself(forks: Forks) -> None:
    """It has its own environment, session, streams, title and random state, and no other file."""
    assert forks.run("tell").wait(30) == 0
    told = json.loads(forks.out())
    assert told["environment"]["MINE"] == "fork"
    assert "OPENBLAS_NUM_THREADS" not in told["environment"]
    assert told["session"]
    assert told["argv"] == ["tuner test", "tell"]
    assert told["cmdline"] == "tuner test tell"
    assert told["descriptors"] == [0, 1, 2]
    assert told["threads"] == 1
    assert told["blocked"] == 0
    assert (forks.folder / "err").read_text() == "to standard error\n"
    again = forks.run("tell")
    assert again.wait(30) == 0
    other = json.loads(forks.out())
    assert other["numpy"] != told["numpy"]
    assert other["random"] != told["random"]


def test_what_a_fork_is_given_is_in_no_list_of_processes(forks: Forks) -> None:
    """A password is sent over the channel; /proc shows the server's initial environment."""
    process = forks.run("sleep")
    proc = Path(f"/proc/{process.pid}")
    until(lambda: b"tuner test" in (proc / "cmdline").read_bytes(), "it runs")
    assert b"s3cret" not in (proc / "environ").read_bytes() + (proc / "cmdline").read_bytes()


def test_the_server_never_has_what_a_fork_is_given(forks: Forks) -> None:
    """Later forks inherit the server's memory, so it must never contain a worker's password."""
    assert forks.run("leave", "0").wait(30) == 0
    assert not _holds(forks.pid, b"s3cret")
    process = forks.run("sleep")
    until(lambda: _holds(process.pid, b"s3cret"), "the fork itself has it")


def _holds(pid: int, word: bytes) -> bool:
    """Return whether a word is anywhere in a process's writable memory."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            where, mode, *_ = line.split()
            if "w" not in mode:
                continue
            start, end = (int(one, 16) for one in where.split("-"))
            memory.seek(start)
            try:
                if word in memory.read(end - start):
                    return True
            except OSError:
                continue
    return False


@pytest.mark.parametrize("code", [0, 1, 70, 143])
def test_an_exit_status_arrives(forks: Forks, code: int) -> None:
    """Like that of our own child."""
    assert forks.run("leave", str(code)).wait(30) == code


def test_a_fork_finishes_its_work_before_it_ends(forks: Forks) -> None:
    """Threads are joined, exit handlers run, and output is flushed, as at every exit of Python."""
    assert forks.run("linger").wait(30) == 5
    assert forks.out() == "thread, thread, handler"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_that_ended_it_arrives(forks: Forks, number: signal.Signals) -> None:
    """Like that of our own child: negative."""
    assert forks.run("die", str(int(number))).wait(30) == -number


def test_poll_wait_and_signals(forks: Forks) -> None:
    """A running fork has no status; waiting can time out; a signal reaches it, and ends it."""
    process = forks.run("sleep")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    assert process.poll() == process.returncode == -signal.SIGTERM
    process.send_signal(signal.SIGKILL)  # no error, and no other process gets it


def test_the_process_id_is_kept_until_the_end_was_read(forks: Forks) -> None:
    """A zombie keeps it, so that a late signal never reaches another process."""
    process = forks.run("leave", "0")
    process.wait_unreaped()
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert process.wait() == 0
    until(lambda: not psutil.pid_exists(process.pid), "the server reaps it")


def test_a_family_is_killed(forks: Forks) -> None:
    """A fork's remaining children are killed with it, even after its own end."""
    process = forks.run("family")
    process.wait_unreaped()
    left = [p.pid for p in psutil.process_iter() if _session(p.pid) == process.pid]
    left.remove(process.pid)
    assert len(left) == 1
    kill_family(process)
    until(lambda: not is_alive(left[0]), "its child is gone")


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def test_a_channel_is_passed(forks: Forks) -> None:
    """Its number is the last argument; when the fork ends, the other side sees the end."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = forks.run("talk", channel=theirs.fileno())
        ours.sendall(b"hello")
        assert ours.recv(100) == b"HELLO"
        assert process.wait(30) == 0
        assert ours.recv(100) == b""


def test_no_fork_holds_what_is_another_s(forks: Forks) -> None:
    """The end of a fork is noticed while a later one is alive."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            first = forks.run("talk", channel=theirs.fileno())
        forks.run("sleep")
        ours.sendall(b"hello")
        assert first.wait(30) == 0
        assert ours.recv(100) == b"HELLO"
        assert ours.recv(100) == b""


def test_the_server_ends_with_its_last_client(forks: Forks) -> None:
    """It ends by itself; while it has a running fork, it can still report its end."""
    process = forks.run("sleep")
    forks.server.close()
    time.sleep(0.3)
    assert is_alive(forks.pid), "a process is held"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    until(lambda: not is_alive(forks.pid), "the server ends")


def test_a_server_that_was_not_used_ends_at_once(tmp_path: Path) -> None:
    """A server without forks does not continue loading torch."""
    with ForkServer.start(dict(os.environ), TRAINERS) as server:
        assert server.process is not None
        assert server.process.poll() is None
    assert server.process.returncode == -signal.SIGKILL


def test_a_fork_can_have_forks_itself(forks: Forks) -> None:
    """With `forks` a fork gets a channel to the server, which serves until both have left."""
    process = forks.run("sleep", forks=True)
    forks.server.close()
    time.sleep(0.3)
    assert is_alive(forks.pid), "one client is left"
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    until(lambda: not is_alive(forks.pid), "the server ends")


def test_what_a_lost_server_forked_is_ended(forks: Forks) -> None:
    """Their end could not be reported any more: two workers in one place are worse than none."""
    process = forks.run("sleep")
    psutil.Process(forks.pid).kill()
    assert process.wait(30) == -signal.SIGKILL
    until(lambda: not is_alive(process.pid), "it is gone")
    with pytest.raises(ForkServerLostError):
        forks.run("sleep")


def test_without_a_server_a_program_is_executed(forks: Forks) -> None:
    """A lost server only costs time."""
    psutil.Process(forks.pid).kill()
    program = Program("tuner.work.trainer", "tuner trainer")
    ours, theirs = socket.socketpair()
    with ours, Path(os.devnull).open("r+b") as nothing:
        number = nothing.fileno()
        with theirs:
            start = starter(forks.server, program, forks.environment)
            process = start(Streams(number, number, number, theirs.fileno()))
        assert isinstance(process, Executed)
    assert process.wait(60) == 0, "it leaves when its supervisor has gone"


def test_a_server_with_threads_refuses_to_fork(tmp_path: Path) -> None:
    """A fork would inherit locks held by threads that it lacks; programs are executed instead."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    server = ForkServer.start(environment, ["threaded"])
    with pytest.raises(ForkServerLostError):
        server.fork(
            Program(MODULE, "tuner test", ("leave", "0"), needs=("threaded",)),
            environment,
            Streams(0, 1, 2),
        )
    server.close()


def test_what_a_program_needs_is_imported_before_its_fork(tmp_path: Path) -> None:
    """The server imports it once, before its other pending imports."""
    note = tmp_path / "imported"
    (tmp_path / "needed.py").write_text(
        f"import os\nwith open({str(note)!r}, 'a') as file:\n"
        "    file.write(f'{os.getpid()}\\n')\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path}
    with ForkServer.start(environment, ["json", "needed", "decimal"]) as server:
        program = Program(MODULE, "tuner test", ("leave", "3"), needs=("needed",))
        for _ in range(2):
            assert server.fork(program, environment, Streams(0, 1, 2)).wait(30) == 3
        assert server.process is not None
        assert note.read_text().split() == [str(server.process.pid)]


class Second:
    """A server whose second process imports a module that waits for a file."""

    def __init__(self, folder: Path) -> None:
        self.go, note = folder / "go", folder / "imported"
        self._note = note
        (folder / "waits.py").write_text(
            "import os, pathlib, time\n"
            f"pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
            f"while not os.path.exists({str(self.go)!r}): time.sleep(0.01)\n"
        )
        path = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
        self.environment = {**os.environ, "PYTHONPATH": path}
        self.server = ForkServer.start(self.environment, ["json"], beside=["waits"])

    @property
    def pid(self) -> int:
        """The second process."""
        until(lambda: self._note.exists() and self._note.read_text() != "", "it imports")
        return int(self._note.read_text())

    def fork(self, *arguments: str, needs: tuple[str, ...] = ()) -> ForkedProcess:
        """Fork a program from either process."""
        program = Program(MODULE, "tuner test", arguments, needs=needs)
        return self.server.fork(program, self.environment, Streams(0, 1, 2))


def test_what_needs_its_modules_is_forked_by_the_second_process(tmp_path: Path) -> None:
    """Other programs need not wait for it; its forks are reported like the server's own."""
    second = Second(tmp_path)
    with second.server:
        assert second.pid != second.server.process.pid  # type: ignore[union-attr]
        assert second.fork("leave", "3").wait(30) == 3, "forked while the second one imports"
        second.go.touch()
        process = second.fork("sleep", needs=("waits",))
        assert psutil.Process(process.pid).ppid() == second.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
        held = second.fork("sleep", needs=("waits",))
    time.sleep(0.3)
    assert is_alive(second.pid), "a process is held"
    held.kill()
    assert held.wait(30) == -signal.SIGKILL
    until(lambda: not is_alive(second.pid), "it ends with the last of its own")


def test_a_lost_second_process_costs_time_alone(tmp_path: Path) -> None:
    """What it would have forked is executed; the server continues with the rest."""
    second = Second(tmp_path)
    second.go.touch()
    with second.server:
        held = second.fork("sleep", needs=("waits",))
        psutil.Process(second.pid).kill()
        assert held.wait(30) == -signal.SIGKILL
        with pytest.raises(ForkServerLostError):
            second.fork("sleep", needs=("waits",))
        assert second.fork("leave", "3").wait(30) == 3


def test_the_second_process_ends_with_a_server_that_was_not_used(tmp_path: Path) -> None:
    """At once, during an import; otherwise when it sees the closed channel."""
    second = Second(tmp_path)
    with second.server:
        pid = second.pid
    until(lambda: not is_alive(pid), "the second process ends")
    (tmp_path / "imported").unlink()
    second = Second(tmp_path)
    with second.server:
        pid = second.pid
        assert second.server.process is not None
        second.server.process.send_signal(signal.SIGKILL)
        second.server.process.wait()
    second.go.touch()
    until(lambda: not is_alive(pid), "the second process ends")
