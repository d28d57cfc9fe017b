"""What a process imports: each row says what was done, and what must not be imported for it.

Imports take most of the time of a reading command, in every process. Loaded modules are checked
afterwards, so that imports inside functions count as well.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
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

DONE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "every answer is imported": (
        "ROOMS = ['tuner.answers', 'tuner.results', 'tuner.pictures', 'tuner.report']"
        + EVERYTHING_IN,
        (*SCIPY, "sklearn", "torch"),
    ),
    "every check is imported": ("ROOMS = ['tuner.check']" + EVERYTHING_IN, SCIPY),
    "data are examined": ("import tuner.check.quick", (*SCIPY, "sqlalchemy", "torch")),
    "two splits are probed": (A_PROBE, (*SCIPY, "sqlalchemy", "torch")),
    "a race is decided": (A_RACE, (*SCIPY, "torch")),
    "a study is bound to Optuna": (A_STUDY, ("alembic", "torch")),
    "a notebook imports": ("import tuner.notebook", (*SCIPY, "sklearn", "torch")),
    "a winner is described": ("import tuner.winner.card", (*SCIPY, "torch")),
    "a launch begins": ("import tuner.cli.launch", ("numpy", "scipy", "torch")),
    "a status begins": ("import tuner.cli.status", ("numpy", "scipy", "torch")),
}

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "compare sched --resolve 1": (*SCIPY, "torch"),
    "compare sched --trials 0 1": (*SCIPY, "torch"),
    "gap sched": (*SCIPY, "torch"),
    "influence sched": (*SCIPY, "sklearn", "torch"),
    "show sched 0": (*SCIPY, "optuna", "torch"),
    "table sched": ("scipy", "optuna", "torch"),
    "status sched": ("numpy", "scipy", "optuna", "torch"),
    "studies": ("numpy", "scipy", "optuna", "torch"),
    "export --study sched --comparisons": (*SCIPY, "torch"),
}
"""Commands on a study that has ended, each with an answer that takes statistics."""


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


def loaded(code: str, **variables: str) -> set[str]:
    """Run code in a fresh interpreter, and return all modules that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('loaded', *sys.modules)"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded ")[2].split())


@pytest.mark.parametrize("what", DONE)
def test_nothing_needless_is_loaded_when(what: str) -> None:
    """The action works, without the modules that its row excludes."""
    code, absent = DONE[what]
    needless = loaded(code) & set(absent)
    assert needless == set()


@pytest.mark.parametrize("words", COMMANDS)
def test_nothing_needless_is_loaded_by(words: str, ended: str, tmp_path: Path) -> None:
    """The command answers, without the modules that its row excludes."""
    code = f"import os; os.chdir({str(tmp_path)!r}); from tuner.cli.main import run\n"
    code += f"assert run({words.split()!r}) == 0"
    needless = loaded(code, TUNER_DATABASE_URL=ended) & set(COMMANDS[words])
    assert needless == set()
