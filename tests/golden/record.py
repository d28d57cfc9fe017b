"""Train the studies of the golden files with the real product, and store them as one file.

    .venv/bin/python -m tests.golden.record FOLDER

FOLDER is created, with the home, the data and the studies' files; an existing one is only stored
again. Training takes some ten minutes on two cores. Its last bits differ between CPUs, so every
golden file changes with it: run `make golden` afterwards, and read the difference.
"""

import csv
import lzma
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import psycopg2
from PIL import Image

from tests.golden.stored import STUDIES
from tuner.settings import from_environment
from tuner.store.database import Database
from tuner.store.embedded.binaries import locate

HERE = Path(__file__).parent
COMPLETE = (
    *("lr_sched", "everything", "digits", "pruned", "one_seed", "no_test", "patients"),
    *("failed", "paused", "single"),
)
"""Studies that are trained to their end, in this order."""

ANONYMOUS = """
UPDATE tuner.worker SET pid = 1000 + worker_id, host = 'lab-1';
UPDATE tuner.lease SET hosts = '["lab-1"]' WHERE hosts <> '[]';
UPDATE tuner.study SET provenance = provenance
  || '{"host": "lab-1", "platform": "Linux-6.1.0-x86_64-with-glibc2.36"}';
"""


def main(folder: Path) -> None:
    """Store the studies of a folder; if there is no such folder, train them first."""
    if not folder.exists():
        train(folder)
    settings = from_environment({"TUNER_HOME": str(folder / "home")})
    with Database.open(settings) as database:
        with database.transaction() as connection:
            connection.exec_driver_sql(ANONYMOUS)
        parameters = {str(k): str(v) for k, v in database.address.parameters.items()}
        STUDIES.write_bytes(lzma.compress(dump(parameters, folder).encode(), preset=9))
    click.echo(f"{STUDIES}: {STUDIES.stat().st_size:,} bytes")


def train(folder: Path) -> None:
    """Train all studies in the home below a folder."""
    folder.mkdir(parents=True)
    draw_images(folder / "data")
    (folder / "studies").mkdir()
    for file in sorted((HERE / "studies").glob("*.toml")):
        (folder / "studies" / file.name).write_text(file.read_text())
    environment = {**os.environ, "TUNER_HOME": str(folder / "home")}
    for name in COMPLETE:
        launch(folder, environment, name).wait()
    # A second version: the same trials trained longer, from their stored epochs.
    launch(folder, environment, "one_seed", "--epochs-to", "6").wait()
    stop_early(folder, environment)
    kill_and_resume(folder, environment)
    kill(folder, environment, "running", ended=4)


def launch(
    folder: Path, environment: dict[str, str], name: str, *more: str
) -> "subprocess.Popen[bytes]":
    """Start a launch, from the study's file or, with more options, from the stored study."""
    click.echo(f"launch {name} {' '.join(more)}")
    study = name if more else f"studies/{name}.toml"
    words = [sys.executable, "-m", "tuner", "launch", "--study", study, "--workers", "2", *more]
    return subprocess.Popen(words, cwd=folder, env=environment)


def stop_early(folder: Path, environment: dict[str, str]) -> None:
    """Stop a study in its first trials: none is complete."""
    launched = launch(folder, environment, "stopped")
    with connected(environment) as cursor:
        wait(cursor, "stopped", "SELECT count(*) >= 2 FROM tuner.epoch {own}")
    subprocess.run(
        [sys.executable, "-m", "tuner", "stop", "stopped"], env=environment, check=True, cwd=folder
    )
    launched.wait()


def kill_and_resume(folder: Path, environment: dict[str, str]) -> None:
    """Kill all workers of a study, resume it, and kill them again."""
    kill(folder, environment, "interrupted", ended=2)
    click.echo("waiting for the leases to expire")
    time.sleep(32)
    kill(folder, environment, "interrupted", ended=6)


def kill(folder: Path, environment: dict[str, str], name: str, ended: int) -> None:
    """Launch a study, and kill its launch and workers after this many trials have ended."""
    launched = launch(folder, environment, name)
    with connected(environment) as cursor:
        wait(
            cursor,
            name,
            f"SELECT count(*) >= {ended} FROM tuner.outcome {{own}}",
            # Both workers are in the middle of a trial.
            "SELECT count(*) >= 2 FROM tuner.lease l {own} AND expires > clock_timestamp() AND "
            "(SELECT count(*) FROM tuner.epoch e WHERE e.trial_id = l.trial_id) BETWEEN 2 AND 18",
        )
        cursor.execute(
            "SELECT pid FROM tuner.worker JOIN tuner.study USING (study_id) WHERE name = %s "
            "AND ended IS NULL AND seen > clock_timestamp() - interval '20 s'",
            [name],
        )
        workers = [int(pid) for (pid,) in cursor]
    for pid in (launched.pid, *workers):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    launched.wait()


def wait(cursor: "psycopg2.extensions.cursor", name: str, *conditions: str) -> None:
    """Wait until all conditions hold for a study at the same time."""
    own = (
        "WHERE trial_id IN (SELECT trial_id FROM tuner.trial JOIN tuner.study "
        f"USING (study_id) WHERE name = '{name}')"
    )
    together = " AND ".join(f"({condition.format(own=own)})" for condition in conditions)
    deadline = time.monotonic() + 300
    while True:
        cursor.execute(f"SELECT {together}")
        if cursor.fetchall()[0][0]:
            return
        if time.monotonic() > deadline:
            sys.exit(f"{name} did not come to where it was to be stopped.")
        time.sleep(0.05)


@contextmanager
def connected(environment: dict[str, str]) -> Iterator["psycopg2.extensions.cursor"]:
    """Yield a cursor of the embedded database with one transaction per statement."""
    settings = from_environment({"TUNER_HOME": environment["TUNER_HOME"]})
    with Database.open(settings) as database:
        parameters: dict[str, Any] = dict(database.address.parameters)
        connection = psycopg2.connect("", **parameters)
        connection.autocommit = True
        try:
            yield connection.cursor()
        finally:
            connection.close()


def dump(parameters: dict[str, str], folder: Path) -> str:
    """Return the database as portable SQL, without anything of this machine."""
    words = [locate().program("pg_dump"), "--no-owner", "--no-privileges", "--no-comments"]
    words += [f"--{key}={parameters[key]}" for key in ("host", "port") if key in parameters]
    words += [f"--username={parameters['user']}", f"--dbname={parameters['dbname']}"]
    text = subprocess.run(
        words,
        env={**os.environ, "PGPASSWORD": parameters.get("password", "")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kept = [
        line
        for line in text.splitlines()
        # Settings and psql commands: older servers do not know newer ones.
        if not line.startswith(("SET ", "--", "\\restrict", "\\unrestrict")) and line
    ]
    return anonymous("\n".join(kept) + "\n", folder)


def anonymous(text: str, folder: Path) -> str:
    """Replace the names of this machine's folders."""
    text = text.replace(str(folder.resolve()), "/data/golden")
    text = text.replace(str(HERE.parents[1]), "/opt/tuner")
    for line in text.splitlines():
        if any(trace in line for trace in (sys.prefix, str(Path.home()), platform.release())):
            click.echo(f"May tell of this machine: {line[:200]}")
    return text


def draw_images(folder: Path) -> None:
    """Draw the images of the studies that read a manifest: leaves, and scans of patients."""
    random = np.random.default_rng(12)
    (folder / "images").mkdir(parents=True)
    leaves = []
    for number in range(150):
        kind = number % 3 if number % 10 else 0
        image = random.normal(110, 40, (8, 8))
        image[2 * kind : 2 * kind + 3, :] += 35
        split = "val" if number % 5 > 2 else "train"
        name = f"images/leaf_{number:03d}.png"
        save(folder / name, image)
        leaves.append((name, ("birch", "maple", "oak")[kind], split))
    write(folder / "leaves.csv", ("path", "label", "split"), leaves)
    scans = []
    for patient in range(75):
        sick = patient % 3 == 0
        own = random.normal(0, 14, (8, 8))
        for view in range(1 + int(random.integers(4))):
            image = 100 + own + random.normal(0, 24, (8, 8))
            image[3:6, 2:6] += 22 * sick
            name = f"images/scan_{patient:02d}_{view}.png"
            save(folder / name, image)
            split = ("train", "train", "val", "test", "train")[patient // 3 % 5]
            scans.append((name, "sick" if sick else "well", split, f"P{patient:02d}"))
    write(folder / "scans.csv", ("path", "label", "split", "patient"), scans)


def save(file: Path, image: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> None:
    """Write a grey image."""
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)


def write(file: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Write a manifest."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
