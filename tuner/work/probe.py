"""The probe: checks where workers will run, before they are started, whether they can work there.

It reports all faults at once. A hundred workers that start without their data would fail a hundred
times, and their time in the queue would be lost.
"""

import json
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner import home as home_folder
from tuner.check.identity import identify
from tuner.check.quick import configurations
from tuner.errors import MachineError, TunerError
from tuner.forkserver import ForkServer
from tuner.questions import Checker
from tuner.records import Identity
from tuner.settings import Settings, person
from tuner.spec.study_ref import StudyRef
from tuner.store import checks, identities, schema, studies
from tuner.store.checkpoints import checkpoint_place
from tuner.store.database import Database
from tuner.store.studies import Study
from tuner.train.checkpoints.timely import TimelyPlace
from tuner.version import version_of

logger = logging.getLogger(__name__)

DATA_MOST = 4
"""At most this many configurations of [data] are loaded; others mostly divide or resize the same
images."""


@dataclass(frozen=True)
class ProbeFinding:
    """One thing that a worker needs, and whether it is there."""

    what: str
    ok: bool
    said: str


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found, and where."""

    host: str
    person: str
    findings: tuple[ProbeFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether a worker can work there."""
        return all(finding.ok for finding in self.findings)

    @property
    def faults(self) -> list[str]:
        """The faults, one line each."""
        return [f"{finding.what}: {finding.said}" for finding in self.findings if not finding.ok]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {**asdict(self), "ok": self.ok}

    @classmethod
    def read(cls, printed: str) -> "ProbeReport":
        """Find the report in a probe's output, which may contain other modules' lines."""
        for place, line in enumerate(lines := printed.splitlines()):
            if not line.startswith("{"):
                continue
            try:
                body, _ = json.JSONDecoder().raw_decode("\n".join(lines[place:]))
                findings = tuple(ProbeFinding(**finding) for finding in body["findings"])
                return cls(body["host"], body["person"], findings)
            except (ValueError, KeyError, TypeError):
                continue
        said = printed.strip()[-2000:]
        raise MachineError(f"The probe left no report. It printed:\n{said or '(nothing)'}")


def probe(
    settings: Settings,
    ref: StudyRef,
    folders: Sequence[Path],
    device: Callable[[], str],
    forks: ForkServer | None = None,
) -> ProbeReport:
    """Find out whether a worker with these settings could train a study here.

    `device` returns the device that it would train on, or raises.
    """
    return ProbeReport(
        socket.gethostname(), person(), tuple(_findings(settings, ref, folders, device, forks))
    )


def _findings(
    settings: Settings,
    ref: StudyRef,
    folders: Sequence[Path],
    device: Callable[[], str],
    forks: ForkServer | None,
) -> Iterator[ProbeFinding]:
    yield _tried("device", device)
    yield _tried("home", lambda: _home(settings))
    try:
        with Database.open(settings) as database:
            database.check()
            schema.ensure(database)
            with database.transaction() as connection:
                study = studies.find(connection, ref)
            yield ProbeFinding("database", ok=True, said=database.address.masked)
            yield _versions(study.provenance)
            checker = Checker(settings.home, folders, lambda *_: None, forks)
            yield from _objective_and_data(database, study, checker)
            yield _tried("checkpoints", lambda: _checkpoints(settings, study))
    # Without the study or the database, the rest cannot be checked.
    except TunerError as error:
        yield ProbeFinding("database", ok=False, said=str(error))


def _tried(what: str, look: Callable[[], str]) -> ProbeFinding:
    try:
        return ProbeFinding(what, ok=True, said=look())
    except TunerError as error:
        return ProbeFinding(what, ok=False, said=str(error))
    # Any error is a finding, including faults of libraries and of ours.
    except Exception as error:
        logger.exception("the probe of %s", what)
        return ProbeFinding(what, ok=False, said=f"{type(error).__name__}: {error}")


def _home(settings: Settings) -> str:
    home_folder.make_cache(settings.home)
    trial = settings.home / "cache" / f".probe-{secrets.token_hex(8)}"
    try:
        os.close(home_folder.open_private(trial, home_folder.NEW))
        trial.unlink()
    except OSError as error:
        raise MachineError(f"{settings.home} cannot be written to: {error.strerror}.") from None
    return str(settings.home)


def _versions(provenance: Mapping[str, Any]) -> ProbeFinding:
    """Compare the packages here with those of the launch; the build of torch does not matter."""
    launched = {"tuner": provenance.get("tuner"), **provenance.get("packages", {})}
    here = {name: version_of(name) for name in launched}
    differing = [
        f"{name} {here[name] or 'is missing'} here, {version} at the launch"
        for name, version in launched.items()
        if version is not None and _release(version) != _release(here[name])
    ]
    told = ", ".join(f"{name} {version}" for name, version in here.items() if version)
    return ProbeFinding("versions", ok=not differing, said="; ".join(differing) or told)


def _release(version: str | None) -> str | None:
    return None if version is None else version.partition("+")[0]


def _objective_and_data(
    database: Database, study: Study, checker: Checker
) -> Iterator[ProbeFinding]:
    """Import the objective and load the data in a child without the database's password."""
    with database.transaction() as connection:
        parts = identities.current(connection, study.study_id)
        seen = checks.latest(connection, study.study_id)
    keys = [json.loads(part.body["keys"]) for part in parts if part.kind == identities.DATA]
    keys = (keys or configurations(study.spec))[:DATA_MOST]
    name = study.spec.objective
    found: list[Identity] = []

    def import_objective() -> str:
        identify(name, [], checker, whole=True)
        return name

    def load_data() -> str:
        found.extend(identify(name, keys, checker, whole=False))
        return ", ".join(identity.data.fingerprint[:12] for identity in found)

    code = _tried("objective", import_objective)
    yield code
    if not code.ok:
        return
    data = _tried("code and data", load_data)
    if data.ok:
        differing = identities.changes(parts, found, objective=name, whole=False)
        if not parts and seen is not None:
            differing += _unlike_the_launch(found, seen.body["data"])
        if differing:
            data = ProbeFinding(
                "code and data", ok=False, said="not those of the study: " + "; ".join(differing)
            )
    yield data


def _unlike_the_launch(
    found: Sequence[Identity], seen: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield how the data differ from those that the launch examined; nothing was trained yet."""
    for identity in found:
        # Only fingerprints of shared sources are hashes of the content, on both sides.
        if not identity.data.images:
            continue
        keys = json.loads(identity.data.keys)
        for entry in seen:
            if entry["data"] == keys and entry["fingerprint"] != identity.data.fingerprint:
                yield "other images or labels than the launch has looked at"


def _checkpoints(settings: Settings, study: Study) -> str:
    location = checkpoint_place(settings, study.spec)
    if location is None:
        return "off"
    place = TimelyPlace(location, settings.timing.lookup)
    name = f".probe-{secrets.token_hex(8)}"
    content = secrets.token_bytes(64)
    place.write(name, content)
    try:
        if place.read(name) != content:
            raise MachineError(f"{place.name} does not give back what was written to it.")
    finally:
        place.remove([name])
    return place.name
