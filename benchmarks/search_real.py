"""Searches for real, by wall time: tuner's three ways, Optuna and Ray Tune on the same space.

    python -m benchmarks.search_real --record
    python -m benchmarks.search_real --trials 6 --epochs 4          # tries it out

Each competitor is a separate program that begins 60 trials of at most 40 epochs on all cores,
start included. Optuna searches by TPE with hyperband, Ray Tune by ASHA with random settings; both
train by the notebook loop. How long a search takes until its best complete trial is this good?
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import record
from benchmarks.peers.search_loop import BATCHES, DECAYS, DEPTHS, RATES, SCHEDULERS, Search
from benchmarks.peers.setting import DROPOUT, WIDTH
from benchmarks.peers.task import write_images
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database

REPOSITORY = Path(__file__).resolve().parents[1]
NEAR = (0.01, 0.03)
"""Nats by which an answer may be worse than the best that any search found."""
WAYS = {
    "tuner": 'sampler = "random"',
    "tuner-hyperband": 'sampler = "tpe"\npruner = "hyperband"\n[search.pruner_options]\n'
    "min_resource = {first}\nmax_resource = {epochs}",
    "tuner-promote": 'sampler = "random"\nallocator = "promote"',
    "tuner-promote-tpe": 'sampler = "tpe"\nallocator = "promote"',
}
TITLES = {
    "tuner": "tuner, every trial whole",
    "tuner-hyperband": "tuner, TPE and hyperband",
    "tuner-promote": "tuner, promote",
    "tuner-promote-tpe": "tuner, TPE and promote",
    "optuna": "Optuna, TPE and hyperband, notebook loop",
    "ray": "Ray Tune, ASHA, notebook loop",
}
STUDY = """
[study]
name = "searched"
question = "Which setting is best?"
objective = "chest_xray"

[budget]
trials = {trials}

[space]
scheduler = {schedulers}
lr = {{ low = {rates[0]}, high = {rates[1]}, log = true }}
batch_size = {batches}
weight_decay = {{ low = {decays[0]}, high = {decays[1]}, log = true }}
depth = {{ low = {depths[0]}, high = {depths[1]} }}

[fixed]
model = "ann"
width = {width}
dropout = {dropout}
loss = "ce"
epochs = {epochs}
step_size = 10
decay = 0.1

[data]
source = "npy"
path = "{images}"
image_size = {size}

[search]
seed = {seed}
metric = "val_loss"
{way}
"""


def main() -> None:
    """Let each competitor search once, one after the other."""
    given = _options()
    figures: dict[str, Any] = {}
    for name in given.only:
        if name in ("optuna", "ray") and find_spec(name) is None:
            continue
        figures[name] = searched(name, given)
        record.progress(f"{name}: {figures[name]['seconds']:.0f} s")
    record.finish(given, "search_real", figures, list(lines(figures)))


def searched(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one search in an empty folder; return its seconds and its trials."""
    # The server may still be stopping when the folder is removed.
    with tempfile.TemporaryDirectory(prefix="search-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        folder.chmod(0o711)  # PostgreSQL may run as another user, who needs access
        write_images(folder / "images", given.size)
        search = Search(text, given.size, given.trials, given.epochs, given.seed)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "PG"))}
        if name in WAYS:
            (folder / "searched.toml").write_text(_study(name, search))
            command = ["tuner", "launch", "--study", "searched.toml", "--no-check"]
            command += ["--objectives", str(REPOSITORY / "objectives")]
            kept["TUNER_HOME"] = str(folder / ".tuner")
        else:
            command = [f"benchmarks.peers.search_{name}", search.text()]
            # Ray would run its workers at a lower priority than the others.
            kept |= {"PYTHONPATH": str(REPOSITORY), "RAY_worker_niceness": "0"}
        began, started = time.time(), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        if name in WAYS:
            trials = _trials(folder / ".tuner", given.epochs)
        else:
            trials = json.loads(done.stdout.splitlines()[-1])["trials"]
        for one in trials:
            one["ended"] -= began
        return {"seconds": seconds, "trials": sorted(trials, key=lambda one: one["ended"])}


def _study(name: str, search: Search) -> str:
    way = WAYS[name].format(first=min(5, search.epochs), epochs=search.epochs)
    return STUDY.format(
        trials=search.trials,
        schedulers=json.dumps(SCHEDULERS),
        rates=RATES,
        batches=list(BATCHES),
        decays=DECAYS,
        depths=DEPTHS,
        width=WIDTH,
        dropout=DROPOUT,
        epochs=search.epochs,
        images=Path(search.folder) / "images",
        size=search.size,
        seed=search.seed,
        way=way,
    )


def _trials(home: Path, epochs: int) -> list[dict[str, Any]]:
    """Read tuner's trials; a paused trial ended with its last epoch."""
    with Database.open(Settings(home)) as database, database.snapshot() as connection:
        study = studies.find(connection, StudyRef("searched"))
        rows = connection.execute(
            sa.select(
                t.epoch.c.trial_id,
                sa.func.count().label("epochs"),
                sa.func.min(t.epoch.c.val_loss).label("loss"),
                sa.func.max(t.epoch.c.recorded).label("recorded"),
            )
            .select_from(t.epoch.join(t.trial))
            .where(t.trial.c.study_id == study.study_id)
            .group_by(t.epoch.c.trial_id)
        ).all()
    return [
        {
            "ended": row.recorded.timestamp(),
            "complete": row.epochs == epochs,
            "epochs": row.epochs,
            "loss": row.loss,
        }
        for row in rows
    ]


def seconds_until(trials: Sequence[Mapping[str, Any]], loss: float) -> float:
    """Return when the first complete trial reached this loss; infinite if none did."""
    good = (one["ended"] for one in trials if one["complete"] and one["loss"] <= loss)
    return min(good, default=math.inf)


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as a Markdown table."""
    complete = {
        name: [trial["loss"] for trial in one["trials"] if trial["complete"]]
        for name, one in figures.items()
    }
    best = min(min(those) for those in complete.values() if those)
    heads = [f"s until {best + near:.3f}" for near in NEAR]
    yield f"| | {' | '.join(heads)} | s in all | epochs | complete | best loss |"
    yield "|---" * (5 + len(NEAR)) + "|"
    for name, one in figures.items():
        cells = []
        for near in NEAR:
            seconds = seconds_until(one["trials"], best + near)
            cells.append(f"{seconds:.0f}" if math.isfinite(seconds) else "never")
        epochs = sum(trial["epochs"] for trial in one["trials"])
        lowest = f"{min(complete[name]):.3f}" if complete[name] else "–"
        cells += [f"{one['seconds']:.0f}", f"{epochs:,}", f"{len(complete[name])}", lowest]
        yield f"| {TITLES[name]} | {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    return parser.parse_args()


if __name__ == "__main__":
    main()
