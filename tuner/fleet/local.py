"""Workers as processes on this machine."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import psutil

from tuner import home as home_folder
from tuner.errors import EXIT_MACHINE, EXIT_USER, MachineError, UserError
from tuner.fleet.contract import Crew, Fleet
from tuner.fleet.cores import CAN_PIN, divide, neighbours
from tuner.fleet.filling import Advice, Filling
from tuner.fleet.gpus import NAMED, Claims, find_gpus, uuid_of
from tuner.fleet.replacements import Replacements, WorkerEnd
from tuner.forkserver import WORKERS, ForkServer, Program, starter
from tuner.processes import Process, Streams, python
from tuner.settings import Settings, worker_environment

logger = logging.getLogger(__name__)

LEAVING_SECONDS = 10.0
"""Added to the time allowed for giving a trial back."""
ROTATE_SECONDS = 10.0
LOG_BYTES = 10_000_000
"""A longer log is rotated to `.1`, replacing the previous one."""
LAUNCHER_STARTED = "launcher_started"
NO_ACCIDENTS = Replacements()
"""The initial state of each place."""


@dataclass
class _Post:
    """One place in the crew, and its current process."""

    device: str
    log: Path
    replacements: Replacements
    cores: tuple[int, ...] = ()
    """The cores to which its workers are pinned; empty for any."""
    process: Process | None = None
    started: float = 0.0
    leaving: bool = False
    """Whether its worker was asked to leave, so that it is not replaced."""
    pipe: IO[bytes] | None = field(default=None, repr=False)


class LocalFleet:
    """A crew on this machine; a worker that crashed or was killed is replaced."""

    def __init__(
        self,
        settings: Settings,
        crew: Crew,
        forks: ForkServer | None = None,
        limits: Replacements = NO_ACCIDENTS,
    ) -> None:
        self._settings = settings
        self._forks = forks
        self._limits = limits
        self._crew = crew
        self._logs = settings.home / "logs"
        home_folder.make(settings.home)
        home_folder.make_folder(self._logs)
        self._claims = Claims()
        self._rotated = time.monotonic()
        self._filling: list[Filling] = []
        self._remarks: list[str] = []
        self._posts: list[_Post] = []
        self._cores: list[tuple[int, ...]] = []
        if crew.pin and CAN_PIN:
            self._cores = divide(neighbours(), crew.size)
        elif crew.pin:
            self._remarks.append(
                "--pin has no effect: this operating system cannot pin processes to cores."
            )
        for device in crew.devices:
            self._add(device)

    def start(self) -> None:
        """Start a worker for every device; no other crew on this host has one of its GPUs."""
        if any(device.startswith(("cuda", *NAMED)) for device in self._crew.devices):
            present = find_gpus()
            uuids = (uuid_of(device, present) for device in self._crew.devices)
            self._claims = Claims.of(uuid for uuid in uuids if uuid is not None)
        if self._crew.fill:
            # Before the first worker uses any of their memory.
            gpus = dict.fromkeys(device for device in self._crew.devices if device != "cpu")
            self._filling = [Filling(device) for device in gpus]
        for post in self._posts:
            self._fill(post)
        self._divide()

    def running(self) -> int:
        """Return how many workers are running; replace those that crashed or were killed."""
        self._claims.answer()
        if time.monotonic() - self._rotated >= ROTATE_SECONDS:
            self._rotated = time.monotonic()
            for post in self._posts:
                rotate(post.log)
        for filling in self._filling:
            if (advice := filling.look(time.monotonic())) is not None:
                self._follow(filling.device, advice)
        return sum(self._attend(post) for post in self._posts)

    def scale(self, workers: int) -> None:
        """Start workers on the devices that have fewest, or ask the newest to leave."""
        # From now on a person decides how many workers there are.
        self._filling = []
        present = [post for post in self._posts if not post.leaving]
        for post in present[workers:]:
            _let_go(post)
        for _ in range(workers - len(present)):
            used = [post.device for post in self._posts if not post.leaving]
            self._fill(self._add(min(self._crew.devices, key=used.count)))
        self._divide()

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit."""
        for post in self._posts:
            _let_go(post)

    def stop_now(self) -> None:
        """Ask every worker to exit at once."""
        for post in self._posts:
            _let_go(post)
            # Two requests mean "at once". Two equal signals might be merged into one.
            _signal(post, signal.SIGTERM)
            _signal(post, signal.SIGINT)

    def close(self) -> None:
        """Ask the remaining workers to leave, because they may hold trials, then end them."""
        for post in self._posts:
            _let_go(post)
        deadline = time.monotonic() + self._settings.timing.give_back + LEAVING_SECONDS
        for post in self._posts:
            if post.process is None:
                continue
            try:
                post.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                post.process.kill()
                post.process.wait()
        # Last, because until they have left, their trainers use the GPUs. If this process is
        # killed, the claims end before its workers do, but NVML shows their processes.
        self._claims.close()

    def failures(self) -> list[str]:
        """Return the last output of workers that gave up with an error."""
        messages = []
        for post in self._posts:
            code = post.process.poll() if post.process else None
            if code in (EXIT_USER, EXIT_MACHINE) or post.replacements.given_up:
                messages.append(_last_lines(post.log))
        return list(dict.fromkeys(messages))

    def remarks(self) -> list[str]:
        """Return how many workers each GPU got and why, once it is known."""
        said, self._remarks = self._remarks, []
        return said

    def handle(self) -> dict[str, Any]:
        """Return when this process started, to distinguish it from a later one with its number.

        Nothing else is needed: these workers end with their launcher, which controls them.
        """
        return {LAUNCHER_STARTED: psutil.Process().create_time()}

    def _add(self, device: str) -> _Post:
        log = self._logs / f"worker-{os.getpid()}-{len(self._posts)}.log"
        # Workers added later share cores, unless they replace one that left.
        used = [post.cores for post in self._posts if not post.leaving]
        cores = min(self._cores, key=used.count, default=())
        self._posts.append(_Post(device, log, replace(self._limits), cores))
        return self._posts[-1]

    def _fill(self, post: _Post) -> None:
        environment, device = worker_environment(self._settings), post.device
        if device.startswith(NAMED):
            # The only visible GPU is CUDA's number 0.
            environment |= {"CUDA_VISIBLE_DEVICES": device}
            device = "cuda:0"
        cores = ("--cores", ",".join(map(str, post.cores))) if post.cores else ()
        arguments = (*self._crew.arguments(device), *cores, "--follow-stdin")
        worker = Program("tuner.cli.worker", "tuner worker", arguments, forks=True, needs=WORKERS)
        start = starter(self._forks, worker, environment)
        if post.pipe is not None:
            post.pipe.close()
        # If the launcher dies, even by kill -9, the pipe closes and the worker notices.
        theirs, ours = os.pipe()
        post.pipe = os.fdopen(ours, "wb")
        log = home_folder.open_private(post.log, os.O_WRONLY | os.O_APPEND)
        try:
            # The worker has its own session: Ctrl-C in the terminal reaches only the launcher,
            # which passes it on.
            post.process = start(Streams(theirs, log, log))
        finally:
            os.close(theirs)
            os.close(log)
        post.started = time.monotonic()

    def _follow(self, device: str, advice: Advice) -> None:
        """Start the additional workers that a GPU can take, or ask its newest to leave."""
        present = [post for post in self._posts if post.device == device and not post.leaving]
        if not present or any(post.replacements.given_up for post in present):
            return  # asked to stop, or failing already
        self._remarks.append(f"{device}: {advice.reason}.")
        if advice.workers < 0 and len(present) > 1:
            _let_go(present[-1])
        for _ in range(advice.workers - len(present)):
            self._fill(self._add(device))
        self._divide()

    def _divide(self) -> None:
        """Tell every worker on a GPU how many share it: each counts its share of the hours."""
        used = [post.device for post in self._posts if not post.leaving]
        for post in self._posts:
            if post.device == "cpu" or post.pipe is None or post.leaving:
                continue
            # A worker that has died is replaced, and its successor is told instead.
            with suppress(OSError):
                os.write(post.pipe.fileno(), bytes([min(used.count(post.device), 255)]))

    def _attend(self, post: _Post) -> bool:
        assert post.process is not None
        code = post.process.poll()
        if code is None:
            return True
        if post.leaving or post.replacements.given_up:
            return False
        if not post.replacements.replaces(WorkerEnd(code, time.monotonic() - post.started)):
            # So that its end is not counted as an accident again at each call.
            post.leaving = True
            return False
        self._fill(post)
        self._divide()
        return True


class LocalEngine:
    """This machine; its workers end with the launcher, which may be detached from its terminal."""

    name = "local"
    outlives = False

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Refuse every option: there are none."""
        if given:
            raise UserError(
                f"The engine local has no options, so {', '.join(given)} means nothing."
            )
        return {}

    def fleet(self, settings: Settings, crew: Crew, forks: ForkServer | None = None) -> Fleet:
        """Return a crew on this machine."""
        return LocalFleet(settings, crew, forks)

    def again(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> Fleet:
        """Refuse: only the launcher of local workers can reach them."""
        raise NotImplementedError("local workers follow their launcher, which reads its wishes")

    def probe(self, settings: Settings, crew: Crew) -> str:
        """Run the probe in a separate process on this machine."""
        command = python("tuner.cli.worker", *crew.arguments(), "--probe", "--json")
        done = subprocess.run(
            command,
            env=worker_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.stdout


ENGINE = LocalEngine()


def _let_go(post: _Post) -> None:
    """Ask a worker to finish its epoch, give its trial back and exit.

    Not by a signal, which is lost if it arrives while the worker is being forked. It notices the
    end of its input whenever it starts reading.
    """
    post.leaving = True
    if post.pipe is not None:
        post.pipe.close()


def _signal(post: _Post, number: signal.Signals) -> None:
    if post.process is not None and post.process.poll() is None:
        post.process.send_signal(number)


def rotate(log: Path, most: int = LOG_BYTES) -> None:
    """Copy a long log to `.1` and truncate it.

    Workers keep the file open and append to it. Lines written between the two steps are lost, which
    does not matter in a log of this length.
    """
    try:
        if log.stat().st_size <= most:
            return
        content = log.read_text(errors="replace")
        home_folder.write_private(log.with_name(f"{log.name}.1"), content)
        os.truncate(log, 0)
    # A full disk must not end the crew.
    except (OSError, MachineError):
        logger.warning("%s could not be put aside", log)


def _last_lines(log: Path, count: int = 12) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-count:])
