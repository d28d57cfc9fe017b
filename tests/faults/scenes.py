"""An objective that misbehaves on request, and a view of what is stored."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.harness import warm
from tests.harness.processes import Workers
from tests.harness.warm import Started
from tests.store.specs import Bench
from tests.train.blobs import DATA, DECLARATIONS, MODELS, write_objective
from tuner.settings import Settings
from tuner.spec.load import check
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Ended
from tuner.train.objective import find
from tuner.work.stopping import StopRequest
from tuner.work.worker import Orders, work

FAULTS = (
    "none",
    "segfault",
    "raises",
    "raises:2",
    "cuda_memory",
    "greedy:1",
    "prints",
    "garbage:1",
    "hangs:1",
    "nan",
    "inf",
    "no_folder:1",
    "waits",
)
"""Faults of the objective; `raises:2` has it in two attempts, `raises` in all."""

PARAMETERS = f"""
        Parameter("fault", "choice", "none", "how to misbehave", choices={FAULTS!r}),
        Parameter("variant", "int", 0, "tells trials apart that are alike", low=0),
"""

NEEDED = """
        Parameter("path", "text", "", "a file that must be there"),
        Parameter("scratch", "int", 0, "bytes to write into the cache", low=0),
"""

READING = """
    if data["path"]:
        open(data["path"]).close()
    if data["scratch"]:
        (cache / "scratch").write_bytes(bytes(data["scratch"]))
"""

TROUBLE = '''

import ctypes
import os
import shutil
import sys
import time
from pathlib import Path

import torch

NOTES = Path({notes!r})
"""The folder where attempts are counted, epochs are noted, and files to damage are named."""


class Trouble(nn.Module):
    """Let images pass, and misbehave in the second epoch; each epoch is one batch."""

    def __init__(self, parameters):
        super().__init__()
        self.parameters_seen = dict(parameters)
        # Part of the weights: a training that goes on from a checkpoint counts on.
        self.register_buffer("trained", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        """Return the images, spoilt if that is the fault."""
        if not self.training:
            return images
        self.trained += 1
        with (NOTES / "epochs").open("a") as notes:
            notes.write(str(int(self.trained)) + "\\n")
        fault, _, times = self.parameters_seen["fault"].partition(":")
        if int(self.trained) != 2 or fault == "none" or not self._again(times):
            return images
        return getattr(self, fault)(images)

    def _again(self, times):
        mark = NOTES / "{{fault}}-{{variant}}".format(**self.parameters_seen)
        attempts = len(mark.read_text()) if mark.exists() else 0
        with mark.open("a") as notes:
            notes.write(".")
        return not times or attempts < int(times)

    def segfault(self, images):
        ctypes.string_at(0)

    def raises(self, images):
        raise ValueError("a shape does not fit")

    def cuda_memory(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def greedy(self, images):
        hoard = []
        while True:
            # Beyond the limit there is no need for more: what is held is enough to be seen.
            if len(hoard) < 24:
                hoard.append(bytearray(os.urandom(1 << 10)) * (64 << 10))
            time.sleep(0.01)

    def prints(self, images):
        os.write(1, bytes(range(256)) * 64 + b"\\nnothing but noise\\n")
        return images

    def garbage(self, images):
        os.write(int(sys.argv[-1]), b"\\xff" * 64)
        time.sleep(3600)

    def hangs(self, images):
        time.sleep(3600)

    def waits(self, images):
        while not (NOTES / "go").exists():
            time.sleep(0.01)
        return images

    def nan(self, images):
        return images * float("nan")

    def inf(self, images):
        return images * float("inf")

    def no_folder(self, images):
        place = Path((NOTES / "place").read_text())
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True, parents=True)
        place.write_text("in the way")
        return images
'''


def write_trouble(place: Path) -> Path:
    """Write the objective `trouble` into a folder; return the folder of objectives."""
    notes = place / "notes"
    notes.mkdir(parents=True)
    declarations = DECLARATIONS.replace("parameters=[", f"parameters=[{PARAMETERS}")
    declarations = declarations.replace("data=[", f"data=[{NEEDED}")
    data = DATA.replace("    classes = data", f"{READING}    classes = data", 1)
    models = MODELS + TROUBLE.format(notes=str(notes))
    models = models.replace(
        "nn.Sequential(Counting()", "nn.Sequential(Trouble(parameters), Counting()", 1
    )
    write_objective(place / "objectives" / "trouble", declarations, data, models)
    return place / "objectives"


@dataclass
class Scene:
    """One test's database, home and objective, on which studies are trained for real."""

    settings: Settings
    database: Database
    folder: Path

    def __post_init__(self) -> None:
        self.objectives = write_trouble(self.folder / "project")
        self.notes = self.folder / "project" / "notes"
        self.workers = Workers(self.folder, self.objectives)

    def spec(self, name: str, **sections: Mapping[str, Any]) -> Spec:
        """Read a study of the objective `trouble`, as if from a user's file."""
        budget = {"trials": "grid", **sections.pop("budget", {})}
        usual = {"epochs": 4, "hidden": 4, "batch_size": 97}
        varied = sections.get("space", {})
        fixed = {key: value for key, value in usual.items() if key not in varied}
        fixed |= sections.pop("fixed", {})
        document = {
            "study": {"name": name, "question": "What is left?", "objective": "trouble"},
            "budget": budget,
            "fixed": fixed,
            **sections,
        }
        path = self.folder / "project" / "studies" / f"{name}.toml"
        return check(document, (), self._declarations, path)

    def launch(self, name: str, **sections: Mapping[str, Any]) -> Bench:
        """Store a study and open it."""
        return Bench.launch(self.database, self.spec(name, **sections))

    def work(self, name: str, device: str = "cpu", settings: Settings | None = None) -> Ended:
        """Train a study to its end with a supervisor in this process and a real trainer."""
        orders = Orders(
            study=StudyRef.parse(name),
            device=device,
            folders=(self.objectives,),
            forks=warm.fork_server(),
        )
        return work(settings or self.settings, orders, StopRequest())

    def start_worker(self, study: str, **environ: str) -> Started:
        """Start a real `tuner worker`."""
        return self.workers.start(self.settings, study, **environ)

    def trained(self) -> int:
        """Return how many epochs were started so far, finished or not."""
        notes = self.notes / "epochs"
        return len(notes.read_text().splitlines()) if notes.exists() else 0

    def _declarations(self, objective: str, _folder: Path) -> Any:
        return find(objective, [self.objectives]).objective.declarations()


@dataclass(frozen=True)
class Told:
    """The stored state of one trial."""

    number: int
    state: str | None
    reason: str
    curve: tuple[int, ...]
    """The epochs that are stored."""
    failures: tuple[str, ...]
    """The reasons of its failed attempts."""
    printed: str


def told(bench: Bench) -> dict[int, Told]:
    """Return the stored state of each trial, by its number."""
    outcomes = {row.trial_id: row for row in bench.rows(t.outcome)}
    events = [row for row in bench.rows(t.event) if row.kind == "attempt failed"]
    epochs, outputs = bench.rows(t.epoch), bench.rows(t.output)
    found = {}
    mine = (row for row in bench.rows(t.trial) if row.study_id == bench.study.study_id)
    for row in mine:
        ended = outcomes.get(row.trial_id)
        found[row.number] = Told(
            number=row.number,
            state=ended.state if ended else None,
            reason=ended.reason if ended else "",
            curve=tuple(sorted(one.epoch for one in epochs if one.trial_id == row.trial_id)),
            failures=tuple(one.text for one in events if one.trial_id == row.trial_id),
            printed="".join(one.text for one in outputs if one.trial_id == row.trial_id),
        )
    return found


def states(bench: Bench) -> list[str]:
    """Return how the trials ended, in the order of their numbers."""
    return [str(one.state) for _, one in sorted(told(bench).items())]


UNLIKE = {
    "trial_id",
    "study_id",
    "token",
    "seconds",
    "seconds_alone",
    "val_seconds",
    "reused",
    "epochs_reused",
    "recorded",
    "created",
    "made",
    "ended",
}
"""Columns that may differ between two trainings of one study: worker, time, duration, attempt."""


def results(connection: sa.Connection, study_id: int) -> dict[str, list[tuple[str, ...]]]:
    """Return all stored results of a study, as text that distinguishes any two bit patterns."""
    mine = sa.select(t.trial.c.trial_id, t.trial.c.number).where(t.trial.c.study_id == study_id)
    numbers = {row.trial_id: row.number for row in connection.execute(mine)}
    found: dict[str, list[tuple[str, ...]]] = {}
    for table in (t.trial, t.epoch, t.decision, t.outcome, t.prediction):
        rows = connection.execute(sa.select(table).where(table.c.trial_id.in_(numbers)))
        found[table.name] = sorted(
            (f"{numbers[row['trial_id']]:05d}", *_plain(dict(row))) for row in rows.mappings()
        )
    return found


def _plain(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if name not in UNLIKE:
            plain: Any = bytes(value) if isinstance(value, memoryview) else value
            if name == "setup" and plain is not None:
                # The objective's code contains the path of its test.
                notes = {key: note for key, note in plain["notes"].items() if key != "code"}
                plain = {**plain, "notes": notes}
            yield f"{name}={plain!r}"


def results_of(bench: Bench) -> dict[str, list[tuple[str, ...]]]:
    """Return all stored results of a bench's study."""
    with bench.database.transaction() as connection:
        return results(connection, bench.study.study_id)


def held(bench: Bench) -> list[Any]:
    """Return the leases of trials that have not ended."""
    return [row for row in bench.rows(t.lease) if row.state != "ended"]


@contextmanager
def small_disk(folder: Path, size: str, *, read_only: bool = False) -> Iterator[Path]:
    """Mount a very small file system, or skip the test if that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size}" + (",ro" if read_only else "")
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
