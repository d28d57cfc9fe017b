"""The big storms: nothing lost, nothing twice, under kills, freezes and restarts of PostgreSQL.

    python -m benchmarks.storm [--seed 0] [--only grid|learning|packs|pausing]
    python -m benchmarks.storm --on slurm|ray|all

Trains four studies on real workers while processes are killed at random, and prints the results;
the first and the third, whose trials are trained eight at a time, are compared, bit by bit, with
the same study trained undisturbed, one trial after the other. The last one pauses its trials until
a budget in epochs is spent, exactly. Ends with 1 if anything was not as promised. docs/faults.md
keeps the figures.
"""

import argparse
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import optuna
import psutil
import torch

from tests.faults import storm, verdict
from tests.faults.weather import Report, Weather
from tests.fleet import storm as fleet_storm
from tests.fleet.storm import FleetWeather
from tests.harness.postgres import Server, run_server

GRID = Weather("storm_grid", trials=120, workers=8, kills=60, restarts=3, freezes=5)
PACKS = replace(
    GRID,
    name="storm_packs",
    workers=4,
    epochs=100,
    pack=8,
    plain=True,
    # The calm study trains all trials one after the other.
    deadline_seconds=3600.0,
)
LEARNING = Weather(
    "storm_learning",
    trials=40,
    workers=4,
    kills=20,
    restarts=2,
    freezes=2,
    epochs=30,
    learning=True,
)
PAUSING = Weather(
    "storm_pausing",
    trials=40,
    workers=4,
    kills=20,
    restarts=2,
    freezes=2,
    epochs=30,
    # A quarter of what training all of them takes; a number at which no stretch happens to end.
    budget=301,
)


FLEET = Weather(
    "storm_fleet",
    trials=48,
    workers=4,
    kills=0,
    restarts=0,
    freezes=0,
    images=600,
    hidden=64,
    pause_seconds=0.25,
    deadline_seconds=1800.0,
)
FLEETS = {
    "slurm": FleetWeather(
        replace(FLEET, name="storm_slurm"),
        {"slurm": 4},
        {
            "kill worker": 3,
            "kill trainer": 3,
            "slurm: cancel": 2,
            "slurm: requeue": 2,
            "slurm: preempt": 2,
            "slurm: node down": 1,
            "slurm: node drained": 1,
            "slurm: time limit": 1,
            "slurm: controller killed": 1,
            "slurm: launcher lost": 1,
            "stop PostgreSQL": 1,
        },
    ),
    "ray": FleetWeather(
        replace(FLEET, name="storm_ray"),
        {"ray": 4},
        {
            "kill worker": 3,
            "kill trainer": 3,
            "ray: node killed": 2,
            "ray: node added": 1,
            "ray: driver killed": 1,
            "ray: actor killed": 2,
            "ray: launcher lost": 1,
            "stop PostgreSQL": 1,
        },
    ),
    "all": FleetWeather(
        replace(FLEET, name="storm_all", workers=5),
        {"ray": 2, "slurm": 2, "local": 1},
        {
            "kill worker": 3,
            "kill trainer": 3,
            "slurm: cancel": 1,
            "slurm: requeue": 1,
            "slurm: preempt": 1,
            "ray: node killed": 1,
            "ray: actor killed": 1,
            "ray: driver killed": 1,
            "stop PostgreSQL": 1,
        },
    ),
}


def main() -> int:
    """Run the storms that the command line asks for, and print their figures."""
    options = _options()
    print(_machine(), flush=True)
    reports = []
    with tempfile.TemporaryDirectory(prefix="tuner-storm-") as name, run_server() as server:
        if options.on is not None:
            return 1 if _fleet(FLEETS[options.on], options.seed, server, Path(name)).faults else 0
        if options.only in (None, "grid"):
            weather = replace(GRID, seed=options.seed)
            reports.append(_grid(weather, server, Path(name)))
        if options.only in (None, "learning"):
            weather = replace(LEARNING, seed=options.seed)
            reports.append(_learning(weather, server, Path(name)))
        if options.only in (None, "packs"):
            weather = replace(PACKS, seed=options.seed)
            reports.append(_grid(weather, server, Path(name, "packs")))
        if options.only in (None, "pausing"):
            weather = replace(PAUSING, seed=options.seed)
            reports.append(_pausing(weather, server, Path(name)))
    return 1 if any(report.faults for report in reports) else 0


def _grid(weather: Weather, server: Server, folder: Path) -> Report:
    report, bench = storm.run(weather, server, folder / "grid")
    alone = replace(storm.calm(weather), pack=1)
    quiet, undisturbed = storm.run(alone, server, folder / "calm")
    verdict.check_whole(report, bench)
    verdict.check_equal(report, bench, undisturbed)
    return _shown(report, quiet)


def _fleet(weather: FleetWeather, seed: int, server: Server, folder: Path) -> Report:
    study = replace(weather.study, seed=seed)
    report, bench = fleet_storm.run(replace(weather, study=study), server, folder / "fleet")
    quiet, undisturbed = storm.run(storm.calm(study), server, folder / "calm")
    verdict.check_whole(report, bench)
    verdict.check_equal(report, bench, undisturbed)
    return _shown(report, quiet)


def _learning(weather: Weather, server: Server, folder: Path) -> Report:
    report, bench = storm.run(weather, server, folder / "learning")
    verdict.check_whole(report, bench)
    return _shown(report)


def _pausing(weather: Weather, server: Server, folder: Path) -> Report:
    report, bench = storm.run(weather, server, folder / "pausing")
    verdict.check_whole(report, bench)
    verdict.check_promoted(report, bench)
    return _shown(report)


def _shown(*reports: Report) -> Report:
    for report in reports:
        print("\n".join(report.lines()), flush=True)
    return reports[0]


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, optuna "
        f"{optuna.__version__}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0, help="of the blows and the sampler")
    parser.add_argument(
        "--on", choices=sorted(FLEETS), help="a storm over fleets in place of those"
    )
    parser.add_argument(
        "--only", choices=("grid", "learning", "packs", "pausing"), help="one storm alone"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
