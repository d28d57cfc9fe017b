"""What questions cost on a large study: 10,000 trials of 50 epochs, made in the database.

    python -m benchmarks.scale            # about a minute

Each question is a separate process, as a person asks it: start of Python, connection, answer.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from tests.answers.fabricate import Told, fabricate, hits, images
from tests.store.specs import make_spec
from tuner.records import Value
from tuner.settings import Settings
from tuner.spec.space import Choice
from tuner.store import schema
from tuner.store.database import Database

KINDS = ("constant", "step", "cosine", "exponential", "onecycle")
SEEDS, EPOCHS = 5, 50
QUESTIONS = (
    ("export trials", ("export", "--study", "large", "-o", "trials.csv"), 3),
    ("export trials, parquet", ("export", "--study", "large", "-o", "trials.parquet"), 3),
    ("export epochs", ("export", "--study", "large", "--epochs", "-o", "epochs.csv"), 15),
    ("compare", ("compare", "large"), 5),
    ("compare by one factor", ("compare", "large", "--by", "scheduler"), 5),
    ("gap", ("gap", "large"), None),
    ("influence", ("influence", "large"), None),
    ("report", ("report", "large", "-o", "report.html"), 20),
    ("plot curves", ("plot", "large", "curves", "-o", "curves.svg"), None),
    ("plot parallel", ("plot", "large", "parallel", "-o", "parallel.svg"), None),
    ("table", ("table", "large"), None),
    ("status", ("status", "large"), None),
)
"""Name, command, and promised seconds."""


def build(database: Database, trials: int) -> None:
    """Store the study: predictions of 200 + 200 images a trial, and curves of 50 epochs."""
    truth, chance = images(200, 200), np.random.default_rng(1)
    rates = tuple(float(f"{10 ** -(1 + n / 100):.4g}") for n in range(trials // SEEDS // 10 // 5))
    widths = tuple(16 * (1 + n) for n in range(10))
    space = (Choice("scheduler", KINDS), Choice("width", widths), Choice("lr", rates))

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        right = 0.9 - 0.05 * (chosen["scheduler"] == "constant")
        logs = {
            split: hits(chance.random(len(labels)) < right, labels)
            for split, labels in truth.labels.items()
        }
        return Told(logs=logs, epochs=1)

    spec = make_spec("large", dimensions=space, seeds=SEEDS, epochs=EPOCHS)
    fabricate(database, spec, tell, data={"data-0": truth})
    with database.transaction() as connection:
        connection.execute(
            sa.text(
                "insert into tuner.epoch select trial_id, n, token, train_loss / n, train_nll / n,"
                " train_acc, val_loss, val_acc, val_auc, val_balanced_acc, lr, seconds, reused,"
                " recorded, val_sensitivity, val_specificity, 0.1"
                f" from tuner.epoch, generate_series(2, {EPOCHS}) n"
            )
        )
        connection.execute(sa.text("analyze"))


def ask(home: Path, arguments: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds and the largest memory (GB) of one command."""
    before = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=home,
        env={**os.environ, "TUNER_HOME": str(home / ".tuner")},
        stdout=subprocess.DEVNULL,
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
    assert status == 0, arguments
    return time.perf_counter() - before, used.ru_maxrss / 1024**2


def main() -> None:
    """Build the study and ask each question three times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-scale-") as name:
        home = Path(name)
        home.chmod(0o711)
        with Database.open(Settings(home / ".tuner"), create=True) as database:
            schema.ensure(database)
            begun = time.perf_counter()
            build(database, asked.trials)
            print(f"{asked.trials:,} trials built in {time.perf_counter() - begun:.0f} s\n")
            print("| question | seconds (best of 3) | promised | memory, GB |\n|---|---|---|---|")
            for question, arguments, promised in QUESTIONS:
                found = [ask(home, arguments) for _ in range(3)]
                print(
                    f"| {question} | {min(one for one, _ in found):.1f} | {promised or '–'} | "
                    f"{max(gb for _, gb in found):.2f} |",
                    flush=True,
                )
    print(f"\nbuilding took {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.2f} GB")


if __name__ == "__main__":
    main()
