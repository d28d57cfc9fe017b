"""Training time lost to coordination, an epoch and a trial; many short trials; many results.

    python -m benchmarks.coordination
    python -m benchmarks.coordination --only lost --stored 100 --networks loopback
    python -m benchmarks.coordination --only short --json

A real worker (supervisor, ledger, renewal of leases) works on the embedded PostgreSQL,
with a trainer that trains nothing (`benchmarks.fixed`): an epoch is a sleep of fixed
length, reported by the real messages. The database already holds this many whole trials of
the study. On loopback the worker reaches the server as `tuner launch` does, by its
socket; `2 ms` is a TCP proxy in between that delays each piece of data by 2 ms, each way.

*Lost*, for each number of stored trials:
- an epoch: how long the trainer waits in its report before it can train the next epoch
- CPU: the CPU time of the worker's process per epoch besides that, while the trainer trains
- record: a transaction that stores epochs, which no trainer waits for
- claim: a transaction that hands out a trial
- a trial: from a result to the next order, while the trainer is idle: the last epochs stored, the
  trial completed, the next one claimed

*Short* and *results* are two rows that Ray Tune publishes about itself, at the size of this
machine: many trials of one second (its own: 10,000 on 16 CPUs in 715 s, where 625 s are ideal), on
as many workers as there are cores and on 16, which sleep for that second; and results as fast as
trainers can report them, every one of which is committed (Ray: 500 a second without logging, 50 to
100 with it).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import record
from benchmarks.stored import settle, store
from tests.faults.proxy import Proxy
from tuner.settings import Settings, Timing, worker_environment
from tuner.store import schema
from tuner.store import tables as t
from tuner.store.database import Database

STORED = (100, 1_000, 10_000)
NETWORKS: Mapping[str, float | None] = {"loopback": None, "2 ms": 0.002}
"""Seconds of delay each way; None is the server's own socket."""
PRUNERS = ("none", "median")
MEASURED = 20
EPOCHS, EPOCH_SECONDS = 25, 0.01
SHORT = {2: 100, 16: 480}
"""Trials of one second by number of workers."""
RESULTS_WORKERS, RESULTS_TRIALS, RESULTS_EPOCHS = 2, 10, 2_000
RAY_RATIO = 715.27 / 625
PARTS = ("lost", "short", "results")


@dataclass(frozen=True)
class Site:
    """The database, and the workers' folders."""

    settings: Settings
    database: Database
    folder: Path


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    figures: dict[str, Any] = {}
    with _site() as site:
        if "lost" in options.only:
            figures["lost"] = [
                lost(site, stored, network, pruner)
                for pruner in options.pruners
                for stored in options.stored
                for network in options.networks
            ]
        if "short" in options.only:
            figures["short"] = [short(site, workers) for workers in options.workers]
        if "results" in options.only:
            figures["results"] = results(site)
    record.finish(options, "coordination", figures, list(lines(figures)))


@contextmanager
def _site() -> Iterator[Site]:
    # The server may still be stopping when the folder is removed.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user, who needs access
        settings = Settings(folder / ".tuner", timing=Timing())
        with Database.open(settings, create=True) as database:
            schema.ensure(database)
            yield Site(settings, database, folder)


def lost(site: Site, stored: int, network: str, pruner: str) -> dict[str, Any]:
    """Measure how much of a trainer's time coordination takes."""
    name = f"lost-{stored}-{pruner}-{network.replace(' ', '-')}"
    trials = stored + MEASURED
    store(site.database, name, stored=stored, trials=trials, epochs=EPOCHS, pruner=pruner)
    settle(site.database)
    with _address(site, NETWORKS[network]) as settings:
        times = _work(site, settings, name, workers=1, seconds=EPOCH_SECONDS)
    # The first trial is left out: it includes the start of everything.
    (first, spent), *_, (last, spent_last) = times["spent"][1:]
    found = {
        "stored": stored,
        "network": network,
        "pruner": pruner,
        "epoch_ms": 1000 * statistics.fmean(times["reports"][first:]),
        "epoch_longest_ms": 1000 * max(times["reports"][first:]),
        "cpu_ms": 1000 * (spent_last - spent) / (last - first),
        "record_ms": _median_ms(times["record"]),
        "record_longest_ms": 1000 * max(times["record"]),
        "claim_ms": _median_ms(times["claim"][1:]),
        "trial_ms": _median_ms(times["gaps"]),
        "trial_longest_ms": 1000 * max(times["gaps"]),
    }
    record.progress(json.dumps(found))
    return found


def short(site: Site, workers: int) -> dict[str, Any]:
    """Run many trials of one second."""
    count = SHORT.get(workers, 30 * workers)
    name = f"short-{workers}"
    store(site.database, name, stored=0, trials=count, epochs=1)
    _work(site, site.settings, name, workers, seconds=1.0)
    begun, ended = _span(site.database, name)
    found = {"workers": workers, "trials": count, "seconds": ended - begun}
    found |= {"ideal": count / workers, "ratio": (ended - begun) / (count / workers)}
    record.progress(json.dumps(found))
    return found


def results(site: Site) -> dict[str, Any]:
    """Report results as fast as trainers can."""
    trials, epochs = RESULTS_TRIALS, RESULTS_EPOCHS
    store(site.database, "results", stored=0, trials=trials, epochs=epochs)
    _work(site, site.settings, "results", RESULTS_WORKERS, seconds=0.0)
    begun, ended = _span(site.database, "results")
    count = RESULTS_TRIALS * RESULTS_EPOCHS
    found = {"workers": RESULTS_WORKERS, "results": count, "seconds": ended - begun}
    found["per_second"] = count / (ended - begun)
    record.progress(json.dumps(found))
    return found


def _median_ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


@contextmanager
def _address(site: Site, delay: float | None) -> Iterator[Settings]:
    """Return settings that reach the server with a delay each way, or without one."""
    if delay is None:
        yield site.settings
        return
    address = dict(site.database.address.parameters)
    proxy = Proxy(Path(address["host"], f".s.PGSQL.{address['port']}"), delay=delay).open()
    try:
        there = f"{address['user']}:{address['password']}@127.0.0.1:{proxy.port}"
        yield Settings(site.settings.home, database_url=f"postgresql://{there}/{address['dbname']}")
    finally:
        proxy.close()


def _work(
    site: Site, settings: Settings, study: str, workers: int, seconds: float
) -> dict[str, list[Any]]:
    """Let workers finish a study; return what they and their trainers recorded."""
    with (
        tempfile.TemporaryDirectory(prefix="notes-", dir=site.folder) as notes,
        ExitStack() as stack,
    ):
        command = [sys.executable, "-m", "benchmarks.fixed", "worker"]
        command += [str(settings.home), study, str(seconds), notes]
        kept = {k: v for k, v in os.environ.items() if k.startswith(("PATH", "PYTHON", "HOME"))}
        environment = {**kept, **_only_database(settings)}
        started = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=Path(__file__).parents[1],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(workers)
        ]
        for one in started:
            _, said = one.communicate()
            if one.returncode:
                raise SystemExit(f"a worker of {study} failed:\n{said[-4000:]}")
        found: dict[str, list[Any]] = {}
        for path in sorted(Path(notes).glob("*.json")):
            for name, values in json.loads(path.read_text()).items():
                found.setdefault(name, []).extend(values)
    return found


def _only_database(settings: Settings) -> dict[str, str]:
    environment = worker_environment(settings)
    return {k: v for k, v in environment.items() if k.startswith("TUNER_")}


def _span(database: Database, name: str) -> tuple[float, float]:
    """Return when the first trial of a study was created and when the last one ended."""
    with database.transaction() as connection:
        first, last = connection.execute(
            sa.select(sa.func.min(t.trial.c.created), sa.func.max(t.outcome.c.ended))
            .select_from(t.trial.join(t.outcome).join(t.study))
            .where(t.study.c.name == name)
        ).one()
    return first.timestamp(), last.timestamp()


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as Markdown tables."""
    if rows := figures.get("lost"):
        head = "| pruner | network | stored trials | an epoch, ms (longest) | CPU an epoch, ms "
        head += "| record, ms (longest) | claim, ms | a trial, ms (longest) |"
        yield from (head, "|---" * 8 + "|")
        for row in rows:
            yield (
                f"| {row['pruner']} | {row['network']} | {row['stored']:,} "
                f"| {row['epoch_ms']:.2f} ({row['epoch_longest_ms']:.1f}) | {row['cpu_ms']:.1f} "
                f"| {row['record_ms']:.0f} ({row['record_longest_ms']:.0f}) "
                f"| {row['claim_ms']:.0f} | {row['trial_ms']:.0f} ({row['trial_longest_ms']:.0f}) |"
            )
    if rows := figures.get("short"):
        yield from ("", "| trials of one second | workers | seconds | ideal | ratio |")
        yield "|---|---|---|---|---|"
        for row in rows:
            yield (
                f"| {row['trials']} | {row['workers']} | {row['seconds']:.1f} | {row['ideal']:.0f} "
                f"| {row['ratio']:.2f} |"
            )
        yield f"| Ray Tune's own: 10,000 | 16 | 715.3 | 625 | {RAY_RATIO:.2f} |"
    if row := figures.get("results"):
        yield ""
        yield (
            f"{row['results']:,} results of {row['workers']} workers in {row['seconds']:.1f} s: "
            f"{row['per_second']:,.0f} a second, all committed."
        )


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--stored", nargs="+", type=int, default=list(STORED))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    parser.add_argument("--workers", nargs="+", type=int, default=list(SHORT))
    return parser.parse_args()


if __name__ == "__main__":
    main()
