"""Real learning curves, on which searches are replayed; trained by `tuner launch`.

    python -m benchmarks.curves phantom          # makes benchmarks/curves/phantom.npz

A table has random settings of a study's space, each trained to its end under every seed, and
keeps the validation loss of every epoch. A curve that ends early, in NaN, is of a trial that
diverged.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.records import Value
from tuner.settings import Settings
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).resolve().parent / "curves"
STUDY = """
[study]
name = "curves"
question = "How do random settings learn?"
objective = "{objective}"

[budget]
trials = {trials}

[search]
sampler = "random"
metric = "val_loss"
at = "best"

[replicates]
seeds = {seeds}

[checkpoints]
location = "off"
keep = "none"

[space]
scheduler = ["constant", "step", "cosine", "exponential", "onecycle"]
lr = {{ low = 1e-5, high = 1e-1, log = true }}
batch_size = [16, 32, 64, 128]
weight_decay = {{ low = 1e-6, high = 1e-2, log = true }}
step_size = {{ low = 5, high = 20, step = 5, when = {{ scheduler = "step" }} }}
{space}

[fixed]
{fixed}

{data}
"""
"""The space of studies/everything.toml, in which `epochs` varies too."""
DEPTH = "depth = { low = 1, high = 5 }\n"
DIGITS_LOSSES = 'loss = ["ce", "focal"]\n'
ANN = 'model = "ann"\nwidth = 64\ndropout = 0.3\n'
PHANTOM = '[data]\nsource = "phantom"\nimage_size = 32\nshift = 1.0\n'

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How a table is made."""

    title: str
    objective: str
    space: str
    fixed: str
    data: str = ""
    settings: int = 300
    seeds: int = 1

    @property
    def study(self) -> str:
        """The study file."""
        return STUDY.format(
            objective=self.objective,
            trials=self.settings * self.seeds,
            seeds=self.seeds,
            space=self.space,
            fixed=self.fixed,
            data=self.data,
        )


RECIPES: Mapping[str, Recipe] = {
    "phantom": Recipe(
        "synthetic radiographs of 32×32, fully connected networks",
        "chest_xray",
        DEPTH + 'loss = ["bce", "ce", "focal"]\n',
        ANN + "epochs = 40\n",
        PHANTOM,
    ),
    "digits": Recipe(
        "handwritten digits, fully connected networks",
        "digits",
        DEPTH + DIGITS_LOSSES,
        ANN + "epochs = 40\n",
    ),
    "cnn": Recipe(
        "handwritten digits, convolutional networks",
        "digits",
        DIGITS_LOSSES,
        'model = "small_cnn"\nepochs = 40\n',
        settings=60,
    ),
    "lengths": Recipe(
        "handwritten digits, fully connected networks, 10 to 60 epochs, up to 6 of warm-up",
        "digits",
        DEPTH
        + DIGITS_LOSSES
        + "epochs = { low = 10, high = 60, step = 10 }\n"
        + "warmup_epochs = { low = 0, high = 6, step = 3 }\n",
        ANN,
        settings=150,
    ),
    # The first 90 settings of the first table.
    "seeds": Recipe(
        "synthetic radiographs of 32×32, fully connected networks, several seeds",
        "chest_xray",
        DEPTH + 'loss = ["bce", "ce", "focal"]\n',
        ANN + "epochs = 40\n",
        PHANTOM,
        settings=90,
        seeds=3,
    ),
}


@dataclass(frozen=True, eq=False)
class Table:
    """Settings, and what their trials reported."""

    name: str
    spec: Spec
    chosen: tuple[Mapping[str, Value], ...]
    losses: Array
    """By setting, seed and epoch; NaN from the epoch at which a trial diverged, or ended."""
    lengths: NDArray[np.int64]
    """Planned epochs by setting."""
    seconds: Array
    """The seconds of an epoch by setting, in the median."""

    @classmethod
    def load(cls, name: str) -> "Table":
        """Read a table of this repository."""
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
            spec = Spec.from_json(json.loads(str(stored["spec"])))
            chosen = tuple(json.loads(str(stored["chosen"])))
            losses = np.asarray(stored["losses"], float)
            seconds = np.asarray(stored["seconds"], float)
        lengths = [int(spec.job(one, 0).parameters["epochs"]) for one in chosen]
        return cls(name, spec, chosen, losses, np.array(lengths), seconds)

    @property
    def epochs(self) -> int:
        """The number of epochs of the longest training."""
        return int(self.losses.shape[2])


def train(name: str, settings: int, seeds: int) -> None:
    """Train random settings to their end, and store their curves."""
    recipe = RECIPES[name]
    study = Recipe(**{**vars(recipe), "settings": settings, "seeds": seeds}).study
    # The server may still be stopping when the folder is removed.
    with tempfile.TemporaryDirectory(prefix="curves-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        folder.chmod(0o711)  # PostgreSQL may run as another user, who needs access
        (folder / "curves.toml").write_text(study)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "PG"))}
        home = folder / ".tuner"
        launch = [sys.executable, "-m", "tuner", "launch", "--study", "curves.toml", "--no-check"]
        done = subprocess.run(
            [*launch, "--objectives", str(REPOSITORY / "objectives")],
            cwd=folder,
            env=kept | {"TUNER_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"the study failed:\n{done.stderr[-4000:]}")
        with Database.open(Settings(home)) as database, database.snapshot() as connection:
            _store(name, connection)


def _store(name: str, connection: sa.Connection) -> None:
    study = studies.find(connection, StudyRef("curves"))
    spec = study.spec
    seeds = t.trial.c.seed < spec.replicates.seeds
    of_study = sa.and_(t.trial.c.study_id == study.study_id, seeds)
    chosen: dict[int, Mapping[str, Value]] = {}
    trials = sa.select(t.trial.c.configuration, t.trial.c.chosen).where(of_study)
    for trial in connection.execute(trials):
        chosen[trial.configuration] = trial.chosen
    shape = len(chosen), spec.replicates.seeds, spec.longest
    losses, seconds = np.full(shape, np.nan), np.full(shape, np.nan)
    for row in connection.execute(
        sa.select(
            t.trial.c.configuration,
            t.trial.c.seed,
            t.epoch.c.epoch,
            t.epoch.c.val_loss,
            t.epoch.c.seconds,
        )
        .select_from(t.epoch.join(t.trial))
        .where(of_study)
    ):
        place = row.configuration, row.seed, row.epoch - 1
        losses[place], seconds[place] = row.val_loss, row.seconds
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        spec=np.array(json.dumps(spec.to_json())),
        chosen=np.array(json.dumps([chosen[one] for one in sorted(chosen)])),
        losses=losses.astype(np.float32),
        seconds=np.nanmedian(seconds, axis=(1, 2)).astype(np.float32),
    )


def main() -> None:
    """Train a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=RECIPES)
    parser.add_argument("--settings", type=int, help="how many settings")
    parser.add_argument("--seeds", type=int, help="how many seeds of each")
    given = parser.parse_args()
    recipe = RECIPES[given.table]
    train(given.table, given.settings or recipe.settings, given.seeds or recipe.seeds)


if __name__ == "__main__":
    main()
