"""The README's study from an empty folder: shipped files, embedded database, real training."""

import csv
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.harness import warm
from tests.harness.commands import Done
from tests.harness.postgres import PASSWORD, Server
from tuner.results import FIGURES, LEADING, TRAILING
from tuner.store.embedded import server as embedded

SETTINGS = ("epochs=3", "data.train_images=100", "data.val_images=50", "data.test_images=50")
QUICK = [word for setting in SETTINGS for word in ("--set", setting)]
TWO_SEEDS = [*QUICK, "--set", "replicates.seeds=2"]
"""The shipped study, smaller: 18 trials of 3 epochs on 100 images."""

COLUMNS = [
    *LEADING,
    *("scheduler", "lr"),
    *("epochs", "batch_size", "loss", "optimizer", "model", "depth", "width", "dropout"),
    "best_epoch",
    *FIGURES,
    *(f"last_{name}" for name in FIGURES),
    *TRAILING,
]


ONE_SEED = [*QUICK, "--set", "replicates.seeds=1"]
"""Even smaller: 9 trials."""


def execute(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tuner` in a folder as a shell does, with every process that it starts."""
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def tuner(folder: Path, *arguments: str, **environment: str) -> Done:
    """Run `tuner` in a folder."""
    process = warm.start(arguments, folder, {**os.environ, "COLUMNS": "120", **environment})
    out, err = process.communicate(timeout=180)
    return Done(process.wait(), out, err)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """Make a folder inside one that no other user can enter, such as /root."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / "project"
    folder.mkdir()
    yield folder
    embedded.erase(folder / ".tuner")


def test_study_from_an_empty_private_folder(private: Path) -> None:
    """launch exits 0; the CSV has every trial and column; the table has n and intervals."""
    done = execute(private, "launch", "--study", "lr_sched", *TWO_SEEDS)
    assert done.returncode == 0, done.stdout + done.stderr
    with (private / ".tuner" / "results" / "lr_sched.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert len(rows) == 18
    assert all(row["epochs_run"] == "3" for row in rows if row["state"] == "COMPLETE")
    table = json.loads(tuner(private, "table", "lr_sched", "--json").out)
    schedules = table["factors"][0]
    assert [level["level"] for level in schedules["levels"]] == ["cosine", "step", "exponential"]
    assert all(level["means"]["val_acc"]["n"] == 2 for level in schedules["levels"])
    assert all(level["means"]["val_acc"]["low"] is not None for level in schedules["levels"])
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700

    again = tuner(private, "launch", "--study", "lr_sched", *TWO_SEEDS)
    assert again.code == 0
    assert "complete: 18 trials. Nothing to train." in again.out


def test_study_on_a_server_with_a_password(tcp_server: Server, tmp_path: Path) -> None:
    """The same on a server over TCP; the password appears in no output and no file."""
    secret = quote(PASSWORD, safe="")
    url = f"postgres://tuner:{secret}@127.0.0.1:{tcp_server.port}/tuner"
    few = [*ONE_SEED, "--set", "lr=1e-3", "--debug"]
    done = tuner(tmp_path, "launch", "--study", "lr_sched", *few, TUNER_DATABASE_URL=url)
    assert done.code == 0, done.out + done.err
    shown = tuner(tmp_path, "db", "url", TUNER_DATABASE_URL=url).out
    written = [
        path.read_text(errors="replace")
        for path in (tmp_path / ".tuner").rglob("*.*")
        if path.is_file()
    ]
    for text in (done.out, done.err, shown, *written):
        assert PASSWORD not in text
        assert secret not in text
    assert not (tmp_path / ".tuner" / "postgres").exists()
    with (tmp_path / ".tuner" / "results" / "lr_sched.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_two_runs_of_a_study_agree_bit_for_bit(tmp_path: Path, private: Path) -> None:
    """Two runs of a study without pruning give equal figures for any number of workers."""
    few = [*ONE_SEED, "--set", "search.pruner=none"]
    # Trials are numbered in the order of claims, and a worker skips a trial that waits for a peer's
    # epochs: which setting gets which number may differ.
    volatile = {"trial", "attempts", "seconds", "device", "started", "ended"}
    found = []
    for workers in ("1", "2"):
        home = private / f"home{workers}"
        done = tuner(
            private,
            "launch",
            "--study",
            "lr_sched",
            *few,
            "--workers",
            workers,
            "--device",
            "cpu",
            TUNER_HOME=str(home),
        )
        assert done.code == 0, done.err
        with (home / "results" / "lr_sched.csv").open(encoding="utf-8") as file:
            rows = [
                {k: v for k, v in row.items() if k not in volatile} for row in csv.DictReader(file)
            ]
        assert len(rows) == 9
        found.append(sorted(rows, key=lambda row: (row["scheduler"], row["lr"], row["seed"])))
        embedded.erase(home)
    assert found[0] == found[1]
