"""Workers as the elements of a Slurm job array: pilots that find their trials in the database.

An element runs one worker. When the study ends, the worker exits with 0 and the element is
complete. When its time is over or it is preempted, it gives its trial back and requeues itself, so
that Slurm keeps the fleet running without the launcher:

    sbatch --array=0-7 pilot.sh ──> RUNNING ── the study has ended ──> COMPLETED
                                     │   ▲
        lifetime, time limit, preempted, node down
                                     ▼   │
                                    PENDING

A fleet's files are in the home, which the nodes share with the launcher: the script, the logs, and
the database's password in a file that only its owner can read. `sbatch` never sees the password.
"""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner import home as home_folder
from tuner.errors import EXIT_MACHINE, EXIT_USER, MachineError, UserError
from tuner.fleet import options as option_reader
from tuner.fleet.access import access
from tuner.fleet.contract import Crew, Fleet
from tuner.fleet.replacements import Replacements, WorkerEnd
from tuner.fleet.slurm_script import SharedFiles, SlurmOptions, pilot_script, probe_script
from tuner.forkserver import ForkServer
from tuner.settings import Settings, child_environment

LOOK_SECONDS = 5.0
"""How long an answer of squeue is cached: administrators dislike frequent calls."""
PATIENCE_SECONDS = 600.0
"""How long a probe may wait for room on the cluster."""
LEAVING_SECONDS = 30.0
"""Added to the time allowed for giving a trial back: Slurm takes its time as well."""
ENDED = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    )
)
TAKEN = frozenset(["BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"])
"""Ends that Slurm caused. It requeues most of them itself."""
NEVER = frozenset(
    (
        "BadConstraints",
        "InvalidAccount",
        "InvalidQOS",
        "PartitionDown",
        "PartitionInactive",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
    )
)
"""Reasons for which an element waits until a person does something about it."""
FLEETS = "fleet"
"""The folder in the home that has a folder for each fleet."""
KILLED = -9
NO_ACCIDENTS = Replacements()
MOST_NAMES = 500
"""At most this many elements are named on one command line."""


@dataclass(frozen=True)
class _Element:
    """One element of an array as squeue shows it."""

    job: int
    index: int
    state: str
    seconds: float
    reason: str
    """Why it waits, if it waits."""

    @property
    def name(self) -> str:
        return f"{self.job}_{self.index}"


class SlurmFleet:
    """The arrays of one fleet."""

    def __init__(
        self,
        settings: Settings,
        crew: Crew,
        handle: Mapping[str, Any],
        limits: Replacements = NO_ACCIDENTS,
    ) -> None:
        self._settings = settings
        self._crew = crew
        self._options = option_reader.read("slurm", SlurmOptions, crew.options)
        self._folder = Path(handle["folder"])
        self._jobs: list[int] = list(handle["jobs"])
        self._leaving: set[str] = set(handle["leaving"])
        self._left: set[str] = set(handle["left"])
        """Elements that have ended for good."""
        self._replacements = replace(limits, accidents=handle["accidents"])
        self._messages: list[str] = list(handle["messages"])
        self._cluster: str = handle.get("cluster", "")
        """Slurm's name of the cluster; on another one, the job numbers mean other jobs."""
        self._user: int | None = handle.get("user")
        self._looked = float("-inf")
        self._elements: list[_Element] | None = None if self._jobs else []
        """None until Slurm has answered; unknown does not mean ended."""

    def start(self) -> None:
        """Write the fleet's files and submit its arrays."""
        self._cluster = _config("ClusterName") or ""
        _remove_passwords(self._settings.home / FLEETS, self._cluster)
        crew, options = self._crew, self._options
        place = replace(_place(self._settings, self._folder), cluster=self._cluster)
        found = access(self._settings)
        if found.password is not None:
            place = replace(place, password_file=str(_password_file(self._folder)))
        options = replace(options, cpus=options.cpus or crew.threads or 1)
        arguments = crew.arguments()
        script = pilot_script(crew.study, arguments, options, found.environment, place)
        home_folder.write_private(self._folder / "pilot.sh", script)
        self._submit(crew.size)

    def running(self) -> int:
        """Return how many elements run or wait; requeue those that died by accident."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        return len(self._alive())

    def scale(self, workers: int) -> None:
        """Submit more elements, or let some leave, first those that wait."""
        self._look()
        staying = [one for one in self._alive() if one.name not in self._leaving]
        if workers > len(staying):
            self._submit(workers - len(staying))
            return
        waiting_last = sorted(staying, key=lambda one: (one.state == "PENDING", one.job, one.index))
        self._let_go(one.name for one in waiting_last[workers:])

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch and give its trial back; cancel waiting elements."""
        self._look()
        self._let_go(one.name for one in self._alive())

    def stop_now(self) -> None:
        """Ask every worker to exit at once."""
        self.ask_to_stop()
        self._signal("USR1", [one.name for one in self._alive()])

    def close(self) -> None:
        """Ask the remaining workers to leave, then cancel them, and remove the password."""
        self.ask_to_stop()
        patience = max(self._settings.timing.give_back, self._options.give_back)
        deadline = time.monotonic() + patience + LEAVING_SECONDS
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.5)
            self._look()
        if left := [one.name for one in self._alive()]:
            _cancel(left)
        _password_file(self._folder).unlink(missing_ok=True)

    def failures(self) -> list[str]:
        """Return the last output of workers that gave up, and why elements wait forever."""
        stuck = [one.reason for one in self._alive() if one.reason in NEVER]
        waits = [
            f"Slurm does not start {stuck.count(reason)} of the workers: {reason}. See the options "
            "of [fleet.slurm], and `scontrol show partition`."
            for reason in dict.fromkeys(stuck)
        ]
        said = [*self._messages, self._replacements.reason, *waits]
        return list(dict.fromkeys(filter(None, said)))

    def remarks(self) -> list[str]:
        """Return nothing: `running` and `failures` say everything."""
        return []

    def handle(self) -> dict[str, Any]:
        """Return how to find the fleet's arrays and files again."""
        return {
            "folder": str(self._folder),
            "cluster": self._cluster,
            "user": self._user,
            "jobs": list(self._jobs),
            "leaving": sorted(self._leaving),
            "left": sorted(self._left),
            "accidents": self._replacements.accidents,
            "messages": list(self._messages),
        }

    def _submit(self, elements: int) -> None:
        """Submit arrays no longer than the site allows, all or none."""
        submitted: list[int] = []
        longest = self._options.array_limit or _max_array_size()
        throttle = f"%{self._options.at_most}" if self._options.at_most else ""
        self._provide_password()
        try:
            for first in range(0, elements, longest):
                last = min(longest, elements - first) - 1
                array = f"--array=0-{last}{throttle}"
                # A launcher killed right here leaves an array that is not stored. Its workers still
                # end with the study, and squeue shows them under the study's name.
                out = _slurm("sbatch", "--parsable", array, str(self._folder / "pilot.sh"))
                job = int(out.strip().split(";")[0])
                submitted.append(job)
                # At once, so that the handle names this array even if the next one fails.
                self._jobs.append(job)
                with self._jobs_file.open("a") as jobs:
                    jobs.write(f"{job}\n")
                new = (_Element(job, index, "PENDING", 0.0, "") for index in range(last + 1))
                self._elements = [*(self._elements or []), *new]
        except MachineError:
            _cancel([str(job) for job in submitted])
            raise
        finally:
            self._looked = float("-inf")
        # An element that believed to be the last may have removed it before these were visible.
        self._provide_password()

    @property
    def _jobs_file(self) -> Path:
        return Path(SharedFiles("", str(self._folder), None, self._cluster).jobs_file)

    def _provide_password(self) -> None:
        """Write the password file that pilots read, and that the last one to end removes."""
        password = access(self._settings).password
        if password is not None:
            home_folder.write_private(_password_file(self._folder), password + "\n")

    def _look(self) -> None:
        """Ask Slurm for the elements, and requeue or give up those that have ended since."""
        if self._elements is None:
            self._refuse_elsewhere()
        elements = _elements(self._jobs)
        if elements is None:
            if self._elements is None:
                # Reporting 0 would end the fleet and remove its workers' password.
                raise MachineError(
                    "Slurm's controller does not answer, so nobody knows how many workers run. Try "
                    "again when `squeue` works; workers that run go on meanwhile."
                )
            return  # keep the last answer
        self._elements, self._looked = elements, time.monotonic()
        again = []
        for one in elements:
            if one.state in ENDED and one.name not in self._left | self._leaving:
                if self._comes_back(one):
                    again.append(one.name)
                else:
                    self._left.add(one.name)
        if again:
            self._requeue(again)
        # An element may have been requeued after we listed it and before it was asked to leave.
        waiting = [
            one.name for one in elements if one.name in self._leaving and one.state == "PENDING"
        ]
        if waiting:
            _cancel(waiting)

    def _requeue(self, names: Sequence[str]) -> None:
        self._provide_password()
        for name in names:
            # An element that Slurm has requeued itself meanwhile cannot and need not be requeued.
            with contextlib.suppress(MachineError):
                _slurm("scontrol", "requeue", name)
        # Another launch that saw all of them ended may have removed the password meanwhile.
        self._provide_password()
        self._elements = _elements(self._jobs) or self._elements

    def _refuse_elsewhere(self) -> None:
        """Raise for another person, or on another cluster, which does not show our jobs."""
        if self._user not in (None, os.geteuid()):
            raise UserError(
                f"The jobs of this fleet are those of the user with number {self._user}, who alone "
                "can scale or stop them. `tuner stop` ends the study for everybody."
            )
        # A controller that is away reports no name, and does not answer below either.
        here = _config("ClusterName") if self._cluster else None
        if here is not None and here != self._cluster:
            raise UserError(
                f"This fleet runs on the Slurm cluster {self._cluster}; this machine belongs to "
                f"{here}. Give the command on a login node of {self._cluster}."
            )

    def _comes_back(self, one: _Element) -> bool:
        """Return whether to requeue an element that has ended."""
        if one.state in TAKEN:
            return self._replacements.replaces(WorkerEnd(None, one.seconds, taken=True))
        if one.state == "OUT_OF_MEMORY":
            return self._replacements.replaces(WorkerEnd(KILLED, one.seconds))
        if one.state != "FAILED":
            return False  # done, or cancelled by a person
        code = _exit_code(one.name)
        comes = self._replacements.replaces(WorkerEnd(code, one.seconds))
        if code in (EXIT_USER, EXIT_MACHINE) or not comes:
            self._messages.append(_last_lines(self._folder / f"{one.name}.log"))
        return comes

    def _alive(self) -> list[_Element]:
        return [one for one in self._elements or () if one.state not in ENDED]

    def _let_go(self, names: Iterable[str]) -> None:
        """Cancel elements that wait, and ask the workers of those that run to leave."""
        going = list(names)
        self._leaving.update(going)
        # In this order, so that an element that starts in between is asked by the second call.
        _cancel(going, "--state=PENDING")
        self._signal("INT", going)
        self._looked = float("-inf")

    def _signal(self, name: str, names: Sequence[str]) -> None:
        _cancel(names, "--batch", f"--signal={name}", "--state=RUNNING")


class SlurmEngine:
    """A cluster that Slurm manages; its commands must be on this machine."""

    name = "slurm"
    outlives = True

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the options of [fleet.slurm] and return those that were given."""
        return option_reader.given_only(self.name, SlurmOptions, given)

    def fleet(
        self,
        settings: Settings,
        crew: Crew,
        forks: ForkServer | None = None,  # noqa: ARG002  # the contract's; nodes cannot fork from it
    ) -> Fleet:
        """Return a fleet that has no arrays yet."""
        folder = settings.home / FLEETS / f"{crew.study}-{secrets.token_hex(4)}"
        return SlurmFleet(
            settings,
            crew,
            {
                "folder": str(folder),
                "cluster": "",
                "user": os.geteuid(),
                "jobs": [],
                "leaving": [],
                "left": [],
                "accidents": 0,
                "messages": [],
            },
        )

    def again(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> Fleet:
        """Return the fleet of existing arrays."""
        return SlurmFleet(settings, crew, handle)

    def probe(self, settings: Settings, crew: Crew) -> str:
        """Run the probe as a short job, by the same kind of script as the workers."""
        options = option_reader.read(self.name, SlurmOptions, crew.options)
        options = replace(options, time=600.0, signal=60.0, cpus=options.cpus or crew.threads or 1)
        folder = settings.home / FLEETS / f"probe-{secrets.token_hex(4)}"
        found = access(settings)
        place = _place(settings, folder)
        if found.password is not None:
            place = replace(place, password_file=str(_password_file(folder)))
            home_folder.write_private(_password_file(folder), found.password + "\n")
        script = probe_script(crew.study, crew.arguments(), options, found.environment, place)
        home_folder.write_private(folder / "probe.sh", script)
        try:
            return _answer(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


ENGINE = SlurmEngine()


def _answer(folder: Path) -> str:
    """Submit the probe, wait for its end, and return what it printed."""
    job = _slurm("sbatch", "--parsable", str(folder / "probe.sh")).strip().split(";")[0]
    result = folder / f"probe-{job}.json"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not result.exists():
        state = _slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T %r")
        if state.split()[:1] and state.split()[0] in ENDED and not result.exists():
            said = _last_lines(folder / f"probe-{job}.log")
            raise MachineError(f"The probe's job {job} ended as {state.strip()}.\n{said}")
        if time.monotonic() >= deadline:
            _slurm("scancel", job)
            raise MachineError(
                f"The probe has found no room on the cluster within {PATIENCE_SECONDS:.0f} s: "
                f"{state.strip()}. `squeue` shows who is before it; --no-probe leaves it out."
            )
        time.sleep(1.0)
    return result.read_text()


def _password_file(folder: Path) -> Path:
    return folder / "password"


def _remove_passwords(fleets: Path, cluster: str) -> None:
    """Remove the passwords of fleets whose elements have all ended unnoticed.

    Normally the last element removes it, unless it was killed. Fleets of other clusters are skipped
    because their jobs are unknown here.
    """
    jobs = {
        place: place.read_text().split()
        for place in fleets.glob(f"*/jobs-{cluster}")
        if _password_file(place.parent).exists()
    }
    for place, numbers in jobs.items():
        elements = _elements([int(number) for number in numbers])
        # If tuner requeues an element later, it writes the password again.
        if elements is not None and all(one.state in ENDED for one in elements):
            _password_file(place.parent).unlink(missing_ok=True)


def _place(settings: Settings, folder: Path) -> SharedFiles:
    home_folder.make(settings.home)
    home_folder.make_folder(folder)
    return SharedFiles(str(settings.home), str(folder), None)


def _slurm(*words: str) -> str:
    """Run a Slurm command and return its output; a failure becomes a MachineError."""
    try:
        done = subprocess.run(
            words,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            f"There is no {words[0]} on this machine. Launch with --on slurm from a login node of "
            "the cluster."
        ) from None
    if done.returncode:
        raise MachineError(f"{words[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _elements(jobs: Sequence[int]) -> list[_Element] | None:
    """Return all elements of arrays that Slurm still lists; None if it does not answer.

    Slurm forgets a job some minutes after its end (MinJobAge), so unlisted ones have ended.
    """
    if not jobs:
        return []
    listed = ",".join(map(str, jobs))
    try:
        out = _slurm(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={listed}",
            "--format=%F|%K|%T|%M|%r",
        )  # fmt: skip
    except MachineError as error:
        return [] if "Invalid job id" in str(error) else None
    rows = [line.split("|", 4) for line in out.splitlines() if line.strip()]
    # An array cancelled before it ran has one row without an index: no element is left.
    return [_element(*row) for row in rows if row[1].isdecimal()]


def _element(job: str, index: str, state: str, used: str, reason: str) -> _Element:
    return _Element(int(job), int(index), state, read_seconds(used), reason)


def read_seconds(text: str) -> float:
    """Read a time as squeue writes it: MM:SS, HH:MM:SS or D-HH:MM:SS."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (int(one or 0) for one in found.groups())
    return ((days * 24.0 + hours) * 60 + minutes) * 60 + seconds


def _exit_code(name: str) -> int | None:
    """Return how the script of an element ended, negative for a signal."""
    try:
        out = _slurm("scontrol", "--oneliner", "show", "job", name)
    except MachineError:
        return None  # forgotten meanwhile
    found = re.search(r" ExitCode=(\d+):(\d+)", out)
    if found is None:
        return None
    code, number = int(found[1]), int(found[2])
    return -number if number else code


def _max_array_size() -> int:
    return max(1, int(_config("MaxArraySize") or 1000))


def _config(name: str) -> str | None:
    """Return a value of the controller's configuration; None if it does not answer."""
    try:
        shown = _slurm("scontrol", "show", "config")
    except MachineError:
        return None
    found = re.search(rf"^{name}\s*=\s*(\S+)", shown, re.M)
    return found[1] if found else None


def _cancel(names: Sequence[str], *how: str) -> None:
    for some in _batches(names, MOST_NAMES):
        # scancel fails if some have ended meanwhile.
        with contextlib.suppress(MachineError):
            _slurm("scancel", *how, *some)


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]


def _last_lines(log: Path, count: int = 12) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return f"{log} cannot be read."
    return "\n".join(lines[-count:])
