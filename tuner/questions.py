"""Child processes that answer one question: about data, about cost, or with a trained network.

    caller ── work, as JSON ──> standard input of the child, a module's `main`
           <── lines of JSON ── progress, perhaps a part of the result that is known early,
                                and at the end a result or an error

Nothing is unpickled, and the child's environment has no database password. What a supervisor
and its trainer say to each other for hours is in `work/messages`: arrays go there, both ways.
"""

import contextlib
import json
import os
import select
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tuner import errors
from tuner.errors import MachineError, TunerError
from tuner.forkserver import CHECKS, ForkServer, Program, starter
from tuner.processes import Process, Streams, kill_family
from tuner.settings import child_environment
from tuner.text import storable_json

Progress = Callable[[str, int, int], None]
Body = Mapping[str, Any]
STDERR = 2


@dataclass(frozen=True)
class Checker:
    """Runs the steps of a check in child processes, and reports their progress."""

    home: Path
    folders: Sequence[Path]
    """Folders searched for objectives."""
    progress: Progress
    forks: ForkServer | None = None

    def ask(self, module: str, work: Body) -> dict[str, Any]:
        """Have a piece of work done and return its result, or raise its error."""
        with self.begin(module, work) as question:
            return question.answer(self.progress)

    def begin(self, module: str, work: Body) -> "Question":
        """Start a piece of work."""
        here = {"cache": str(self.home / "cache"), "folders": paths(self.folders)}
        return Question(module, {**work, **here}, forks=self.forks)


class LateError(MachineError):
    """A child took longer than it was given, and was ended."""


class Question:
    """A piece of work for a module's `main`, started at once; leaving the context ends it.

    `doing` says what the process does, for the error message if it dies without an answer.
    """

    def __init__(
        self,
        module: str,
        work: Body,
        doing: str = "looked at the data",
        forks: ForkServer | None = None,
    ) -> None:
        self._doing = doing
        program = Program(module, "tuner check", needs=CHECKS)
        start = starter(forks, program, child_environment())
        (their_input, ours), (answers, theirs) = os.pipe(), os.pipe()
        self._answers = os.fdopen(answers)
        self._started: Future[Process] = Future()

        def begin() -> None:
            try:
                self._started.set_result(start(Streams(their_input, theirs, STDERR)))
            except BaseException as error:  # noqa: BLE001  # raised where the answer is wanted
                self._started.set_exception(error)
            finally:
                os.close(their_input)
                os.close(theirs)
            with contextlib.suppress(BrokenPipeError), os.fdopen(ours, "w") as given:
                given.write(json.dumps(work))
            if self._started.exception() is None:
                # A process that the child forked may keep its standard output open after the
                # child was killed, and we would keep reading until that process ends.
                child = self._started.result()
                child.wait_unreaped()
                kill_family(child)

        # In a thread, so that we need not wait until a fork server has imported the modules.
        threading.Thread(target=begin, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process, whatever it is doing, without an answer."""
        if self._answers.closed:  # ended already
            return
        if self._started.exception() is None:
            child = self._started.result()
            kill_family(child)
            child.wait()
        self._answers.close()

    def kill(self) -> None:
        """Kill the process from another thread; `answer` then raises in its own, and reaps it."""
        if self._started.exception() is None:
            kill_family(self._started.result())

    def part(self, progress: Progress) -> dict[str, Any]:
        """Wait for the part that is known early and return it, or raise the child's error."""
        return self._hear("part", progress)

    def answer(self, progress: Progress, within: float | None = None) -> dict[str, Any]:
        """Wait for the result and return it, or raise the child's error.

        After `within` seconds the process is killed and a LateError raised.
        """
        return self._hear("result", progress, within)

    def _hear(self, kind: str, progress: Progress, within: float | None = None) -> dict[str, Any]:
        child = self._started.result()
        late = threading.Event()

        def stop() -> None:
            late.set()
            # It is not reaped before its answer was read to the end, so its pid is still its own.
            kill_family(child)

        timer = threading.Timer(within or 0.0, stop)
        timer.daemon = True
        if within is not None:
            timer.start()
        try:
            return _body(self._answers, kind, progress)
        except _NothingSaidError:
            timer.cancel()
            if late.is_set():
                raise LateError(
                    f"the process that {self._doing} was stopped after {within:g} seconds"
                ) from None
            raise _died(child.wait(), self._doing) from None
        finally:
            timer.cancel()


def ask(
    module: str, work: Body, progress: Progress, doing: str = "looked at the data"
) -> dict[str, Any]:
    """Have a piece of work done and return its result, or raise its error."""
    with Question(module, work, doing) as asked:
        return asked.answer(progress)


def serve(work: Callable[[Body, Progress], "Body | Generator[Body, None, Body]"]) -> int:
    """Do the work described on standard input; anything it prints goes to standard error.

    A generator yields what is known early and returns the result.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr

    def say(kind: str, body: Any) -> None:
        line = json.dumps({"kind": kind, "body": body}) + "\n"
        # A caller that is busy elsewhere reads later, and may wait for another process that waits
        # for a lock of ours. So progress never waits for room: what does not fit is not said.
        if kind != "progress" or _has_room(answers.fileno(), line):
            answers.write(line)
            answers.flush()

    try:
        work_body = json.loads(sys.stdin.read())
        result = work(work_body, lambda what, done, total: say("progress", [what, done, total]))
        if isinstance(result, Generator):
            result = _tell_parts(result, lambda part: say("part", part))
    except TunerError as error:
        say("error", [type(error).__name__, str(error)])
        return 1
    say("result", result)
    return 0


def _has_room(pipe: int, line: str) -> bool:
    """Tell whether a line can be written to a pipe without waiting for its reader."""
    if len(line) > select.PIPE_BUF:
        return False
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(0))


def _tell_parts(work: "Generator[Body, None, Body]", tell: Callable[[Body], None]) -> Body:
    while True:
        try:
            tell(next(work))
        except StopIteration as end:
            result: Body = end.value
            return result


def paths(folders: Iterable[Path]) -> list[str]:
    """Return folders as JSON."""
    return [str(folder) for folder in folders]


class _NothingSaidError(Exception):
    """The child ended without an answer."""


def _body(lines: Iterator[str], kind: str, progress: Progress) -> dict[str, Any]:
    """Return the body of the next message of a kind, and let others pass."""
    for line in lines:
        # The child runs other people's code and names their files: make its text printable and
        # storable.
        message = storable_json(json.loads(line))
        if message["kind"] == "progress":
            progress(*message["body"])
        elif message["kind"] == "error":
            name, text = message["body"]
            raise _error(name, text)
        elif message["kind"] == kind:
            body: dict[str, Any] = message["body"]
            return body
    raise _NothingSaidError


def _error(name: str, text: str) -> TunerError:
    """Return the child's error by class name; only classes of our tree are accepted."""
    kind = getattr(errors, name, None)
    in_our_tree = isinstance(kind, type) and issubclass(kind, TunerError)
    return kind(text) if in_our_tree else MachineError(text)  # type: ignore[misc]


def _died(code: int, doing: str) -> MachineError:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return MachineError(
        f"the process that {doing} {how} without an answer; if memory ran out, "
        "take a smaller data.image_size, or close other programs"
    )
