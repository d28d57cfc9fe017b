"""tuner itself: a study file, and `tuner launch` in a new folder."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import setting as peers
from benchmarks.peers.setting import Setting

REPOSITORY = Path(__file__).resolve().parents[2]
STUDY = """
[study]
name = "raced"
question = "Which schedule?"
objective = "chest_xray"

[budget]
trials = "grid"

[replicates]
seeds = {seeds}

[space]
scheduler = {schedules}

[fixed]
model = "{model}"
epochs = {epochs}
lr = {rate}
batch_size = {batch}
step_size = 10
decay = 0.1
width = {width}
dropout = {dropout}
loss = "ce"

[data]
source = "npy"
path = "{images}"
image_size = {size}
"""


def main() -> None:
    """Launch the study and report its trials' results."""
    given = Setting.given()
    folder = Path(given.folder) / "tuner"
    folder.mkdir()
    text = STUDY.format(
        seeds=given.seeds,
        schedules=json.dumps(list(given.schedules)),
        model=given.model,
        epochs=given.epochs,
        rate=peers.RATE,
        batch=peers.BATCH,
        width=peers.WIDTH,
        dropout=peers.DROPOUT if given.model == "ann" else 0,
        images=Path(given.folder) / "images",
        size=given.size,
    )
    (folder / "raced.toml").write_text(text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "PG"))}
    command = [sys.executable, "-m", "tuner", "launch", "--study", "raced.toml"]
    subprocess.run(
        [*command, "--objectives", str(REPOSITORY / "objectives")],
        cwd=folder,
        env=environment | {"TUNER_HOME": str(folder / ".tuner")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    with (folder / ".tuner" / "results" / "raced.csv").open() as file:
        rows = list(csv.DictReader(file))
    peers.tell(
        [
            {
                "schedule": row["scheduler"],
                "seed": int(row["seed"]),
                "val": float(row["val_acc"]),
                "test": float(row["test_acc"]),
            }
            for row in rows
        ]
    )


if __name__ == "__main__":
    main()
