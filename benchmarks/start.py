"""From Enter to the first epoch, to the tables, and to the answers of reading commands.

    python -m benchmarks.start
    python -m benchmarks.start --size 64 --repetitions 5

A launch in an empty folder, with an empty database and images that were not
decoded yet, and a second one of another study there. The moments in between
are the database's own records of them, in seconds after Enter.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from benchmarks import record
from benchmarks.peers import setting as peers
from benchmarks.peers.setting import Setting
from benchmarks.peers.task import write_images
from benchmarks.peers.tuner_study import REPOSITORY, STUDY
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database

EPOCHS = 3
READING = (
    ("--help",),
    ("status",),
    ("studies",),
    ("table", "first"),
    ("show", "first", "0"),
    ("compare", "first"),
    ("gap", "first"),
)


def main() -> None:
    """Measure as the command line asks."""
    options = _options()
    figures: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.repetitions):
        for size in options.size:
            # The server may still be stopping when the folder is removed.
            with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
                for what, seconds in _measure(Path(folder), size).items():
                    record.progress(f"{what}: {seconds}")
                    for name, one in seconds.items():
                        figures.setdefault(what, {}).setdefault(name, []).append(one)
    record.finish(options, "start", figures, list(lines(figures)))


def lines(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """Yield medians as Markdown tables: launches, then reading commands."""
    for kind in ("launch", "reading"):
        columns = [what for what in figures if kind in what]
        yield from ("", f"| seconds | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
        for name in figures[columns[0]]:
            cells = [_cell(figures[what][name]) for what in columns]
            shown = f"`{name}`" if kind == "reading" else name
            yield f"| {shown} | {' | '.join(cells)} |"


def _cell(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


def _measure(folder: Path, size: int) -> dict[str, dict[str, float]]:
    write_images(folder / "images", size)
    found: dict[str, dict[str, float]] = {}
    for name in ("first", "second"):
        _write_study(folder, name, size, seeds=1 if name == "first" else 2)
        started = time.time()
        _tuner(folder, "launch", "--study", f"{name}.toml", "--objectives", _objectives())
        ended = time.time()
        moments = _moments(folder, name)
        seconds = {what: moment - started for what, moment in moments.items()}
        seconds["tables at the end"] = ended - moments["last trial ended"]
        seconds["back at the prompt"] = ended - started
        found[f"{name} launch, {size}²"] = seconds
    for arguments in READING:
        started = time.time()
        _tuner(folder, *arguments)
        found.setdefault(f"reading, {size}²", {})[" ".join(arguments)] = time.time() - started
    return found


def _moments(folder: Path, name: str) -> dict[str, float]:
    """Return when a study's events happened, by the database's clock."""
    settings = Settings(home=folder / ".tuner")
    mine = sa.select(t.trial.c.trial_id).join(t.study, t.study.c.study_id == t.trial.c.study_id)
    mine = mine.where(t.study.c.name == name)
    registered = sa.select(sa.func.min(t.worker.c.started)).join(
        t.study, t.study.c.study_id == t.worker.c.study_id
    )
    asked = {
        "study stored": sa.select(t.study.c.created).where(t.study.c.name == name),
        "worker registered": registered.where(t.study.c.name == name),
        "first trial taken": sa.select(sa.func.min(t.trial.c.created)).where(
            t.trial.c.trial_id.in_(mine)
        ),
        "first epoch recorded": sa.select(sa.func.min(t.epoch.c.recorded)).where(
            t.epoch.c.trial_id.in_(mine)
        ),
        "last trial ended": sa.select(sa.func.max(t.outcome.c.ended)).where(
            t.outcome.c.trial_id.in_(mine)
        ),
    }
    with Database.open(settings) as database, database.transaction() as connection:
        return {
            what: connection.execute(query).scalar_one().timestamp()
            for what, query in asked.items()
        }


def _write_study(folder: Path, name: str, size: int, seeds: int) -> None:
    setting = Setting(str(folder), "ann", size, seeds, EPOCHS)
    text = STUDY.format(
        seeds=seeds,
        schedules=list(setting.schedules),
        model="ann",
        epochs=EPOCHS,
        rate=peers.RATE,
        batch=peers.BATCH,
        width=peers.WIDTH,
        dropout=peers.DROPOUT,
        images=folder / "images",
        size=size,
    )
    (folder / f"{name}.toml").write_text(text.replace('"raced"', f'"{name}"'))


def _tuner(folder: Path, *arguments: str) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "PG"))}
    environment: Mapping[str, str] = kept | {"TUNER_HOME": str(folder / ".tuner")}
    command: Sequence[str] = [sys.executable, "-m", "tuner", *arguments]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)


def _objectives() -> str:
    return str(REPOSITORY / "objectives")


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--size", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
