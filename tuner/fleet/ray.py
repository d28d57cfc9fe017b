"""Workers under Ray: detached actors, each of which keeps one `tuner worker` process alive.

Ray spreads the actors over the nodes and restarts one when its node dies; actors without room wait
until a node joins. They belong to no driver, so the launcher may end. An actor ends itself when its
worker has ended on purpose, and frees its resources.

The folders of objectives are sent as Ray's working directory. The database's password is not part
of the runtime environment, which Ray's web page shows: it is an argument of the actor, stored in
Ray's control store, or a file on the nodes (`password_file`).
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
from pydantic import ConfigDict

from tuner.errors import EXIT_DONE, EXIT_FAILURES, MachineError, UserError
from tuner.fleet import options as option_reader
from tuner.fleet.access import access
from tuner.fleet.contract import Crew, Fleet
from tuner.fleet.options import STRICT
from tuner.fleet.replacements import Replacements, WorkerEnd
from tuner.forkserver import ForkServer
from tuner.processes import has_folder, python
from tuner.settings import Settings, child_environment

NAMESPACE = "tuner"
LOOK_SECONDS = 2.0
"""How long the actors' answers are cached."""
ANSWER_SECONDS = 5.0
"""How long an actor may take to answer; one that waits for room does not answer."""
KEPT_SECONDS = 600.0
"""How long an actor whose worker failed waits to be asked why, before it frees its resources."""
KNOCK_SECONDS = 10.0
PROBE_SECONDS = 600.0
LEAVING_SECONDS = 15.0
TAIL_BYTES = 4000
LEFT_OUT = shutil.ignore_patterns(".git", ".tuner", ".venv", "__pycache__", "*.pyc")


@dataclass(frozen=True)
class RayOptions:
    """The keys of [fleet.ray]."""

    __pydantic_config__ = ConfigDict(**STRICT)

    address: str = "auto"
    """The cluster: auto, HOST:PORT on one of its machines, or ray://HOST:10001 from elsewhere."""
    cpus: float = 1.0
    """CPUs that Ray reserves for a worker."""
    gpus: float = 0.0
    """GPUs that Ray reserves for a worker; 0.5 puts two of them on a GPU."""
    home: str = ""
    """The folder for workers' files on the nodes; by default the launcher's."""
    password_file: str = ""
    """A file with the database's password on every node; by default Ray transfers the password."""


@dataclass(frozen=True)
class RayCluster:
    """The identity of a cluster."""

    session: str = ""
    """Its unique name since it was started; older versions of Ray do not report it."""
    address: str = ""
    """The address of its head; the head may be restarted there, without its actors."""

    def refuse_elsewhere(self, here: "RayCluster") -> None:
        """Raise if this is another cluster: actors that it lacks need not have ended."""
        same = bool(self.session) and self.session == here.session
        if same or self.address in ("", here.address):
            return
        raise UserError(
            f"This fleet's actors are on the Ray cluster at {self.address}, and this machine is "
            f"connected to the one at {here.address}. Give the command on a machine of that "
            "cluster, or name it with RAY_ADDRESS. `tuner stop` ends the study for every worker."
        )


class Pilot:
    """An actor that keeps one worker alive. It never loads torch: the worker's trainer does."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        password: str | None,
        log: str,
    ) -> None:
        self._command = python("tuner.__main__", "worker", *words, "--follow-stdin")
        self._environment = _environment(environment, password)
        self._log = Path(log)
        self._replacements = Replacements()
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving = threading.Event()
        self._hurried = False
        self._code: int | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._attend, daemon=True).start()

    def state(self) -> dict[str, Any]:
        """Return whether the worker runs, and why it gave up if it did."""
        over = self._code is not None
        failed = (
            over and self._code not in (EXIT_DONE, EXIT_FAILURES) and not self._leaving.is_set()
        )
        said = [self._tail(), self._replacements.reason] if failed else []
        return {"running": not over, "failure": "\n".join(filter(None, said))}

    def leave(self, at_once: bool = False) -> None:
        """Ask the worker to give its trial back and exit, without replacement.

        Fleets repeat the request. A worker takes a second signal as "at once", so each signal is
        sent only once.
        """
        with self._lock:
            asked = self._leaving.is_set()
            self._leaving.set()
            if self._process is not None and self._process.poll() is None:
                if not asked:
                    self._process.send_signal(signal.SIGTERM)
                if at_once and not self._hurried:
                    self._hurried = True
                    # Another signal, because two equal ones might be merged into one.
                    self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """End this actor for good, so that Ray does not restart it."""
        ray.actor.exit_actor()

    def _attend(self) -> None:
        while True:
            started = time.monotonic()
            with self._lock:
                if self._leaving.is_set():
                    code = EXIT_DONE
                    break
                self._start()
            assert self._process is not None
            code = self._process.wait()
            if self._leaving.is_set():
                break
            if not has_folder():
                # The node is shutting down: Ray has removed the working directory, and will end
                # this actor and its worker next. Their end says nothing about the worker, so the
                # actor exits now, and Ray restarts it on another node.
                os._exit(1)
            if not self._replacements.replaces(WorkerEnd(code, time.monotonic() - started)):
                break
        self._code = code
        if self.state()["failure"]:
            self._leaving.wait(KEPT_SECONDS)
        ray.get_runtime_context().current_actor.end.remote()

    def _start(self) -> None:
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # If this actor ends, even by kill -9, the pipe closes, and the worker gives its trial back.
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _tail(self) -> str:
        with suppress(OSError):
            text = self._log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
            return "\n".join(text.strip().splitlines()[-12:])
        return ""


class RayFleet:
    """The actors of one fleet, found by their names."""

    def __init__(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> None:
        self._settings = settings
        self._crew = crew
        self._options = option_reader.read("ray", RayOptions, crew.options)
        self._prefix: str = handle["prefix"]
        self._made: int = handle["made"]
        """How many actors were created; their numbers are not reused."""
        self._gone: set[int] = set(handle["gone"])
        self._leaving: set[int] = set(handle["leaving"])
        self._code: str | None = handle["code"]
        """Ray's address of the folders of objectives, once they are sent."""
        self._messages: list[str] = list(handle["messages"])
        self._cluster = RayCluster(**handle.get("cluster", {}))
        self._at_work: set[int] = set()
        self._looked = float("-inf")

    def start(self) -> None:
        """Send the objectives' folders and create the actors."""
        with _staged(self._crew.folders) as folder:
            _connect(self._options, folder)
            # With the package's address, another machine can create actors without the folders.
            self._code = ray.get_runtime_context().runtime_env.get("working_dir")
        self._cluster = _cluster_here()
        self._make(self._crew.size)

    def running(self) -> int:
        """Return how many actors have a worker or wait for room."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        return len(self._present())

    def scale(self, workers: int) -> None:
        """Create more actors, or let some leave, first those that wait for room."""
        self._look()
        staying = [number for number in self._present() if number not in self._leaving]
        if workers > len(staying):
            self._make(workers - len(staying))
            return
        waiting_last = sorted(staying, key=lambda number: (number not in self._at_work, number))
        self._let_go(waiting_last[workers:])

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit."""
        self._look()
        self._let_go(self._present())

    def stop_now(self) -> None:
        """Ask every worker to exit at once."""
        self._look()
        self._let_go(self._present(), at_once=True)

    def close(self) -> None:
        """End the remaining actors, first by asking their workers to leave, then the connection."""
        self.ask_to_stop()
        deadline = time.monotonic() + self._settings.timing.give_back + LEAVING_SECONDS
        while self._present() and time.monotonic() < deadline:
            time.sleep(0.2)
            self._look()
        for number in self._present():
            _kill(self._name(number))
        _disconnect()

    def failures(self) -> list[str]:
        """Return the last output of workers that gave up."""
        return list(dict.fromkeys(self._messages))

    def remarks(self) -> list[str]:
        """Return nothing: `running` and `failures` say everything."""
        return []

    def handle(self) -> dict[str, Any]:
        """Return how to find the actors again."""
        return {
            "prefix": self._prefix,
            "made": self._made,
            "gone": sorted(self._gone),
            "leaving": sorted(self._leaving),
            "code": self._code,
            "messages": self._messages,
            "cluster": asdict(self._cluster),
        }

    def _name(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    def _present(self) -> list[int]:
        return [number for number in range(self._made) if number not in self._gone]

    def _make(self, count: int) -> None:
        """Create this many actors, all or none."""
        _connect(self._options)
        orders = _orders(self._settings, self._crew, self._options)
        pilot = ray.remote(Pilot)
        made: list[Any] = []
        try:
            for _ in range(count):
                name = self._name(self._made)
                actor = pilot.options(
                    name=name,
                    namespace=NAMESPACE,
                    lifetime="detached",
                    max_restarts=-1,
                    scheduling_strategy="SPREAD",
                    num_cpus=self._options.cpus,
                    num_gpus=self._options.gpus,
                    runtime_env=_runtime_env(self._code),
                ).remote(
                    (*orders.words, "--place", name),
                    orders.environment,
                    orders.password,
                    orders.log(name),
                )
                made.append(actor)
                self._made += 1
        # Also on Ctrl-C: nobody would know of those already created.
        except BaseException as error:
            for actor in made:
                # If Ray is gone, so are they.
                with suppress(ray.exceptions.RayError, OSError, RuntimeError):
                    ray.kill(actor, no_restart=True)
            self._gone.update(range(self._made - len(made), self._made))
            if isinstance(error, (ray.exceptions.RayError, OSError, RuntimeError, ValueError)):
                raise MachineError(f"Ray does not make the actors: {error}") from error
            raise
        finally:
            self._looked = float("-inf")

    def _look(self) -> None:
        """Ask every actor for its state, and record which have ended."""
        _connect(self._options)
        actors = {number: _find(self._name(number)) for number in self._present()}
        # The names are random, so a cluster that has one of them is the right one.
        if actors and not any(actors.values()):
            self._cluster.refuse_elsewhere(_cluster_here())
        self._gone.update(number for number, actor in actors.items() if actor is None)
        asked = {
            actor.state.remote(): number for number, actor in actors.items() if actor is not None
        }
        answered: list[Any] = []
        if asked:
            answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        self._at_work = set()
        for answer in answered:
            number = asked[answer]
            try:
                state = ray.get(answer)
            except ray.exceptions.ActorUnavailableError:
                continue  # its node died; it will be started on another
            except ray.exceptions.RayActorError as error:
                self._gone.add(number)
                if "creation task" in str(error):
                    self._messages.append(f"Ray could not start a worker: {error}")
                continue
            if state["failure"]:
                self._messages.append(state["failure"])
            if state["running"]:
                self._at_work.add(number)
            else:
                self._gone.add(number)
        # Repeated each time, because an actor that Ray has restarted knows no earlier request.
        self._ask(self._leaving - self._gone)
        self._looked = time.monotonic()

    def _let_go(self, numbers: Sequence[int], *, at_once: bool = False) -> None:
        self._leaving.update(numbers)
        self._ask(set(numbers), at_once=at_once)
        self._looked = float("-inf")

    def _ask(self, numbers: set[int], *, at_once: bool = False) -> None:
        for number in numbers:
            name = self._name(number)
            if number not in self._at_work:
                # It waits for room or did not answer, so it is killed. A worker notices the end of
                # its actor, and gives its trial back.
                _kill(name)
            elif (actor := _find(name)) is not None:
                actor.leave.remote(at_once)


class RayEngine:
    """A Ray cluster."""

    name = "ray"
    outlives = True

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the options of [fleet.ray] and return those that were given."""
        return option_reader.given_only(self.name, RayOptions, given)

    def fleet(
        self,
        settings: Settings,
        crew: Crew,
        forks: ForkServer | None = None,  # noqa: ARG002  # the contract's; nodes cannot fork from it
    ) -> Fleet:
        """Return a fleet that has no actors yet."""
        return RayFleet(
            settings,
            crew,
            {
                "prefix": f"{crew.study}-{secrets.token_hex(4)}",
                "made": 0,
                "gone": [],
                "leaving": [],
                "code": None,
                "messages": [],
                "cluster": {},
            },
        )

    def again(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> Fleet:
        """Return the fleet of existing actors."""
        return RayFleet(settings, crew, handle)

    def probe(self, settings: Settings, crew: Crew) -> str:
        """Run the probe as a task with a worker's resources."""
        options = option_reader.read(self.name, RayOptions, crew.options)
        orders = _orders(settings, crew, options)
        with _staged(crew.folders) as folder:
            _connect(options, folder)
            code = ray.get_runtime_context().runtime_env.get("working_dir")
        task = ray.remote(_probe).options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            max_retries=0,
            runtime_env=_runtime_env(code),
        )
        try:
            answer = task.remote(orders.words, orders.environment, orders.password)
            return str(ray.get(answer, timeout=PROBE_SECONDS))
        except ray.exceptions.GetTimeoutError:
            ray.cancel(answer, force=True)
            raise MachineError(
                f"The probe has found no room on the Ray cluster within {PROBE_SECONDS:.0f} s; "
                "`ray status` shows what is in use."
            ) from None
        except ray.exceptions.RayError as error:
            raise MachineError(f"The probe could not be run by Ray: {error}") from error
        finally:
            _disconnect()


ENGINE = RayEngine()


@dataclass(frozen=True)
class _Orders:
    """The arguments of an actor."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    password: str | None
    logs: Path

    def log(self, name: str) -> str:
        return str(self.logs / f"ray-{name}.log")


def _orders(settings: Settings, crew: Crew, options: RayOptions) -> _Orders:
    found = access(settings)
    home = Path(options.home) if options.home else settings.home
    environment = {**found.environment, "TUNER_HOME": str(home)}
    password = found.password
    if options.password_file:
        environment["TUNER_DATABASE_PASSWORD_FILE"] = options.password_file
        password = None
    # Relative to Ray's working directory, which is an actor's current folder on every node.
    there = tuple(Path(_staged_name(place)) for place in range(len(crew.folders)))
    # An actor on half a GPU spends half of the hours.
    share = ("--share", f"{options.gpus:g}") if 0 < options.gpus < 1 else ()
    words = (*replace(crew, folders=there).arguments(), *share)
    return _Orders(words, environment, password, home / "logs")


def _environment(given: Mapping[str, str], password: str | None) -> dict[str, str]:
    """Return a worker's environment on a node: the node's own with these variables."""
    secret = {} if password is None else {"PGPASSWORD": password}
    return {**child_environment(), **given, **secret}


def _probe(words: Sequence[str], environment: Mapping[str, str], password: str | None) -> str:
    done = subprocess.run(
        python("tuner.__main__", "worker", *words, "--probe", "--json"),
        env=_environment(environment, password),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.stdout


def _staged_name(place: int) -> str:
    return f"objectives-{place}"


@contextmanager
def _staged(folders: Sequence[Path]) -> Iterator[Path | None]:
    """Copy the folders of objectives below one folder that Ray can send."""
    if not folders:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tuner-ray-") as name:
        for place, folder in enumerate(folders):
            shutil.copytree(folder, Path(name) / _staged_name(place), ignore=LEFT_OUT)
        yield Path(name)


def _runtime_env(code: str | None) -> dict[str, str]:
    return {} if code is None else {"working_dir": code}


def _cluster_here() -> RayCluster:
    context = ray.get_runtime_context()
    address = str(context.gcs_address)
    host, _, port = address.rpartition(":")
    if host in ("127.0.0.1", "localhost", "::1"):
        address = f"{socket.gethostname()}:{port}"
    session = context.get_session_name() if hasattr(context, "get_session_name") else ""
    return RayCluster(session, address)


_ours = False
"""Whether this module opened this process's connection to Ray."""


def _connect(options: RayOptions, folder: Path | None = None) -> None:
    """Connect this process to the cluster; with a folder, open a new connection that sends it."""
    global _ours  # noqa: PLW0603  # a process has one connection to Ray, which is Ray's own choice
    if ray.is_initialized() and folder is not None:
        if not _ours:
            raise UserError(
                "This process is connected to Ray already, and an objective can only be sent with "
                "a new connection. Launch from a process that has not called ray.init."
            )
        _disconnect()
    if ray.is_initialized():
        return
    try:
        _knock(options.address)
        ray.init(
            options.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=None if folder is None else {"working_dir": str(folder)},
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise MachineError(
            f"The Ray cluster at {options.address} cannot be used: {error}\n"
            "Name it with address in [fleet.ray]. A cluster with token login wants RAY_AUTH_MODE="
            "token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH here."
        ) from error
    _ours = True


def _knock(address: str) -> None:
    """Raise an OSError if nothing listens there, because Ray would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def _disconnect() -> None:
    global _ours  # noqa: PLW0603  # as above
    if _ours and ray.is_initialized():
        ray.shutdown()
    _ours = False


def _find(name: str) -> Any:
    """Return the actor with this name, or None if it no longer exists."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _kill(name: str) -> None:
    """Kill an actor for good."""
    if (actor := _find(name)) is not None:
        ray.kill(actor, no_restart=True)
