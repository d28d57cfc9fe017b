"""A child process with a channel: alive, exited or killed, and its messages."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.harness.processes import is_alive, until
from tuner.processes import Executed
from tuner.settings import child_environment
from tuner.work.child import GARBLED, Child
from tuner.work.messages import Message

Start = Callable[[str], Child]

PREAMBLE = """
import os, signal, socket, subprocess, sys, time
from tuner.work.messages import Message, receive, send
channel = socket.socket(fileno=int(sys.argv[1]))
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start children that run a few lines, and end them after the test."""
    children: list[Child] = []

    def run(lines: str) -> Child:
        command = (sys.executable, "-c", PREAMBLE + lines)
        children.append(Child(partial(Executed, command, child_environment()), tmp_path / "log"))
        return children[-1]

    yield run
    for child in children:
        child.kill()


def test_messages_go_both_ways(start: Start) -> None:
    """A message from the supervisor is answered."""
    child = start("send(channel, receive(channel)); receive(channel)")
    child.send(Message("ping", {"number": 7}))
    answer = child.next(30)
    assert answer is not None
    assert (answer.kind, answer.body) == ("ping", {"number": 7})
    assert not child.gone


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("sys.exit(0)", "the trainer exited with code 0"),
        ("sys.exit(7)", "the trainer exited with code 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the trainer crashed (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "the trainer was killed from outside (SIGTERM)"),
        ("channel.sendall(b'garbage' * 9); time.sleep(60)", GARBLED),
    ],
)
def test_every_end_has_its_words(start: Start, lines: str, words: str) -> None:
    """A child's end is described in words that are equal for equal causes."""
    child = start(lines)
    until(lambda: child.next(0.05) is None and child.gone, "the child is gone")
    assert child.death() == words


def test_messages_sent_before_the_end_are_not_lost(start: Start) -> None:
    """A child counts as ended only when all its output was read."""
    child = start("[send(channel, Message('n', {'n': n})) for n in range(50)]")
    heard = []
    while not child.gone:
        message = child.next(0.2)
        if message is not None:
            heard.append(message.body["n"])
    assert heard == list(range(50))


def test_a_killed_child_is_gone_at_once(start: Start) -> None:
    """A child that was just killed gets no more work, even with messages left."""
    child = start("[send(channel, Message('n')) for n in range(50)]; time.sleep(60)")
    assert child.next(30) is not None
    child.kill()
    assert child.gone
    child.send(Message("train"))


def test_kill_takes_the_whole_family(start: Start) -> None:
    """Processes that a trainer started (such as data loaders) end with it."""
    lines = (
        "own = subprocess.Popen(['sleep', '600'])\n"
        "send(channel, Message('pid', {'pid': own.pid}))\ntime.sleep(60)"
    )
    child = start(lines)
    told = child.next(30)
    assert told is not None
    child.kill()
    until(lambda: not is_alive(told.body["pid"]), "the grandchild ends")


@pytest.mark.parametrize("sends", ["", "send(channel, Message('last', {'n': 7}))\n"])
def test_a_killed_child_is_noticed_whoever_holds_its_channel(start: Start, sends: str) -> None:
    """A forked process keeps the channel open; the child's end is noticed at once anyway."""
    lines = (
        "forked = os.fork()\n"
        "if forked == 0:\n    time.sleep(600)\n"
        "send(channel, Message('pid', {'pid': forked}))\n"
        f"{sends}os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = start(lines)
    told = child.next(30)
    assert told is not None
    heard: list[Message | None] = []

    def gone() -> bool:
        heard.append(child.next(0.05))
        return child.gone

    until(gone, "the child is gone")
    assert is_alive(told.body["pid"]), "the forked process held the channel"
    assert [one.body for one in heard if one] == ([{"n": 7}] if sends else [])
    assert child.death().startswith("the trainer was killed from outside (SIGKILL)")
    until(lambda: not is_alive(told.body["pid"]), "what it left behind ends with it")


def test_a_child_killed_while_it_sends_was_killed(start: Start) -> None:
    """If the sender died in the middle of a message, the reason is its death, not garbage."""
    child = start(
        "channel.sendall(b'\\x00\\x00\\x10\\x00half a head'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    until(lambda: child.next(0.05) is None and child.gone, "the child is gone")
    assert child.death().startswith("the trainer was killed from outside (SIGKILL)")


def test_memory_counts_the_family(start: Start) -> None:
    """The memory of a trainer's children counts as the trainer's."""
    hoard = "x = bytearray(150_000_000); input()"
    lines = (
        f"own = subprocess.Popen([sys.executable, '-c', {hoard!r}], stdin=subprocess.PIPE)\n"
        "send(channel, Message('up')); time.sleep(60)"
    )
    child = start(lines)
    assert child.next(30) is not None
    until(lambda: child.memory() > 150_000_000, "the grandchild's memory is seen")
    child.kill()
    assert child.memory() == 0


def test_output_is_read_from_a_position(start: Start) -> None:
    """Each attempt's output is distinguished from earlier output."""
    child = start(
        "print('before', flush=True); send(channel, Message('up')); receive(channel)\n"
        "print('after', flush=True); sys.stderr.buffer.write(b'\\xff'); sys.exit(0)"
    )
    assert child.next(30) is not None
    position = child.position()
    child.send(Message("go"))
    until(lambda: child.next(0.05) is None and child.gone, "the child is gone")
    child.death()
    assert child.printed(position) == "after\n�"
    assert child.printed(0).startswith("before\n")


def test_only_the_end_of_a_flood_of_output_is_read(start: Start) -> None:
    """A trainer that prints endlessly does not fill the supervisor's memory."""
    child = start("sys.stdout.write('x' * 5_000_000 + 'end'); sys.exit(0)")
    until(lambda: child.next(0.05) is None and child.gone, "the child is gone")
    child.death()
    printed = child.printed(0)
    assert printed.endswith("end")
    assert len(printed) < 2_000_000
