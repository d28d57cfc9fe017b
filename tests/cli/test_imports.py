"""What a process imports: each row says what was done, and what must not be imported for it.

Imports take most of the time of a reading command, in every process. Loaded modules are checked
afterwards, so that imports inside functions count as well.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.answers.fabricate import Told, fabricate, hits, images
from tests.conftest import own_database
from tests.store.specs import make_spec
from tuner.records import Value
from tuner.spec.space import Choice
from tuner.store.address import Address
from tuner.store.database import Database

pytestmark = pytest.mark.processes

SCIPY = ("scipy.stats", "scipy.optimize")
"""They take a second to load; scipy.special, which answers need, takes a quarter of one."""

EVERYTHING_IN = """
import importlib, pkgutil
for room in ROOMS:
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, room + "."):
        importlib.import_module(module.name)
"""

A_RACE = """
import numpy as np
from tuner.statistics.anova import Panel
from tuner.results import decide
from tuner.store.ledger.looks import Look

hits = np.random.default_rng(0).random((3, 4, 300)) < np.array([0.9, 0.88, 0.5])[:, None, None]
look = Look(1, 4, (0, 1, 2), 3, looks=4, room=100, error=0.01)
panel = lambda levels, seeds: Panel((hits[list(levels)].astype(float),))
assert decide(look, dict.fromkeys(range(3), range(1, 5)), panel, larger=True).dropped == (2,)
"""

A_PROBE = """
import numpy as np
from tuner.check.probe import probe
from tuner.train.objective import Split

images = np.random.default_rng(0).integers(0, 200, (400, 16, 16)).astype(np.uint8)
labels, ids = np.arange(200) % 2, tuple(map(str, range(200)))
for patients in ((), tuple(str(at // 4) for at in range(200))):
    one, other = (Split(some, labels, ids, patients) for some in np.split(images, 2))
    assert probe(("one", one), ("other", other)) is not None
"""

A_STUDY = """
from tuner.store.address import Address
from tuner.store.database import Database
from tuner.store.optuna_storage import Binding

Binding(Database(Address({"host": "/nowhere"})))  # which asks no server
"""

Row = tuple[str, str, tuple[str, ...]]
"""What is done, its code, and what must not have been imported after it."""

DONE: Mapping[str, tuple[Row, ...]] = {
    "begin": (
        ("a launch begins", "import tuner.cli.launch", ("numpy", "scipy", "torch")),
        ("a status begins", "import tuner.cli.status", ("numpy", "scipy", "torch")),
    ),
    "check": (
        ("data are examined", "import tuner.check.quick", (*SCIPY, "sqlalchemy", "torch")),
        ("two splits are probed", A_PROBE, (*SCIPY, "sqlalchemy", "torch")),
        ("every check is imported", "ROOMS = ['tuner.check']" + EVERYTHING_IN, SCIPY),
    ),
    "answer": (
        ("a study is bound to Optuna", A_STUDY, ("alembic", *SCIPY, "sklearn", "torch")),
        ("a notebook imports", "import tuner.notebook", (*SCIPY, "sklearn", "torch")),
        (
            "every answer is imported",
            "ROOMS = ['tuner.answers', 'tuner.results', 'tuner.pictures', 'tuner.report']"
            + EVERYTHING_IN,
            (*SCIPY, "sklearn", "torch"),
        ),
        ("a winner is described", "import tuner.winner.card", (*SCIPY, "torch")),
        ("a race is decided", A_RACE, (*SCIPY, "torch")),
    ),
}
"""Rows that share an interpreter: each may import what those before it were allowed."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "studies": ("numpy", "scipy", "optuna", "torch"),
    "status sched": ("numpy", "scipy", "optuna", "torch"),
    "table sched": ("scipy", "optuna", "torch"),
    "show sched 0": (*SCIPY, "optuna", "torch"),
    "influence sched": (*SCIPY, "sklearn", "torch"),
    "compare sched --resolve 1": (*SCIPY, "torch"),
    "compare sched --trials 0 1": (*SCIPY, "torch"),
    "gap sched": (*SCIPY, "torch"),
    "export --study sched --comparisons": (*SCIPY, "torch"),
}
"""Commands on a study that has ended, each with an answer that takes statistics, in an order in
which none may import less than those before it."""


@pytest.fixture(scope="module")
def ended(server: Address, template: str) -> Iterator[str]:
    """Store a study in which one schedule is worse, and return the database's URL."""
    spec = make_spec(
        "sched",
        dimensions=(Choice("scheduler", ("cosine", "exponential", "step")), Choice("lr", (1, 2))),
        seeds=4,
    )
    chance, truth = np.random.default_rng(1), images(each=4)

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        accuracy = 0.7 if chosen["scheduler"] == "step" else 0.9
        logs = {
            split: hits(chance.random(len(labels)) < accuracy, labels)
            for split, labels in truth.labels.items()
        }
        return Told(logs=logs)

    with own_database(server, template) as address:
        with Database(address) as database:
            fabricate(database, spec, tell, data={"data-0": truth})
        yield address.url(show_password=True)


def needless(rows: Sequence[Row], **variables: str) -> dict[str, list[str]]:
    """Run rows in one fresh interpreter; return what each had loaded that it must not."""
    code = ["import json, sys", "found = {}"]
    for what, does, absent in rows:
        code.append(does)
        code.append(f"found[{what!r}] = sorted({set(absent)!r} & set(sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*code, "print('loaded', json.dumps(found))"])],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.rpartition("loaded ")[2])
    return {what: modules for what, modules in found.items() if modules}


@pytest.mark.parametrize("rows", DONE)
def test_nothing_needless_is_loaded_to(rows: str) -> None:
    """Each action works, without the modules that its row excludes."""
    assert needless(DONE[rows]) == {}


def test_nothing_needless_is_loaded_by_commands(ended: str, tmp_path: Path) -> None:
    """Each command answers, without the modules that its row excludes."""
    begin = f"import os; os.chdir({str(tmp_path)!r}); from tuner.cli.main import run"
    rows: list[Row] = [("begin", begin, ("numpy", "scipy", "optuna", "torch"))]
    rows += [(one, f"assert run({one.split()!r}) == 0", COMMANDS[one]) for one in COMMANDS]
    assert needless(rows, TUNER_DATABASE_URL=ended) == {}


def test_what_is_needless_would_be_found() -> None:
    """A module that a row excludes is reported with it, and not with the rows before."""
    rows = (("one", "import json", ("wave",)), ("other", "import wave", ("wave",)))
    assert needless(rows) == {"other": ["wave"]}
