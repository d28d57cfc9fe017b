"""How large a fleet one database can serve: simulated workers from 1 to 1,000.

    python -m benchmarks.fleet                                     # about ten minutes
    python -m benchmarks.fleet --only size --workers 1 100 --seconds 20
    python -m benchmarks.fleet --only stored --stored 100 10000 --json

The workers are simulated (`benchmarks.simulated`): they train nothing, but speak the real
protocol, statement by statement, to a real PostgreSQL that writes to the disk as usual. Their
trials take a minute and have 30 epochs; each worker notes a checkpoint about every two seconds
and renews its lease every five, as real ones do.

- *size*: fleets of 1 to 1,000 workers on a study of 1,000 stored trials
- *stored*: claims and endings of 1,000 workers on studies of 100 to 10,000 stored trials, with one
  epoch a trial, so that the simulation leaves cores to the holder of the lock
- *bouncer*: 300 workers through PgBouncer in transaction mode
- *connections*: what many open connections cost a server, directly and behind PgBouncer
- *learning*: TPE feeding workers with trials of half a second, on a study of 10,000 stored trials;
  with `constant_liar`, where a proposal that a peer has overtaken is made again
- *short*: trials of one second on 16 workers, the row that Ray Tune publishes of itself

*Lost* is the time in which a worker has no trial to train, from the last epoch of a trial to the
answer of the next claim. *Lock busy* is the share of the time in which the study's advisory lock
was held. The server, PgBouncer and the simulation share the machine; how much of it each took is
in the table, and a simulated moment that came late (*late*) is the simulation's fault.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
import sqlalchemy as sa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import chart, record
from benchmarks.servers import Bouncer, FleetServer, memory_of, run_bouncer, run_fleet_server
from benchmarks.simulated import Orders
from benchmarks.stored import SEEDS, settle, store
from tuner.spec.search import SAMPLERS
from tuner.store import address, schema
from tuner.store.database import Database

SIZES = (1, 10, 100, 300, 1_000)
STORED = (100, 1_000, 10_000)
PARTS = ("size", "stored", "bouncer", "connections", "learning", "short")
TRIAL_SECONDS, EPOCHS = 60.0, 30
LEARNING_SECONDS = 0.5
PROCESSES, THREADS = 12, 4
"""Processes of the simulation, and connections of each."""
RAY = {"short": (715.27, 625.0)}
"""Seconds that Ray Tune publishes, and the ideal."""


@dataclass(frozen=True)
class Load:
    """One run: a fleet on a study."""

    workers: int
    stored: int
    seconds: float
    bouncer: bool = False
    trial_seconds: float = TRIAL_SECONDS
    epochs: int = EPOCHS
    trials: int | None = None
    """Continue until the study has this many; None: measure a window of `seconds`."""
    reuse: bool = True
    sampler: str = "grid"
    constant_liar: bool = False


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    figures: dict[str, Any] = {}
    with run_fleet_server() as server:
        figures["server"] = server.about()
        if "size" in options.only:
            figures["size"] = [
                run(server, Load(workers, 1_000, options.seconds)) for workers in options.workers
            ]
        if "stored" in options.only:
            largest = max(options.workers)
            figures["stored"] = [
                run(server, Load(largest, stored, options.seconds, epochs=1))
                for stored in options.stored
            ]
        if "bouncer" in options.only:
            load = Load(options.bouncer_workers, 1_000, options.seconds, bouncer=True)
            figures["bouncer"] = [run(server, load)]
        if "connections" in options.only:
            figures["connections"] = connections(server, options.connections)
        if "learning" in options.only:
            figures["learning"] = [run(server, load) for load in _learning(options)]
        for part, load in _as_ray(options).items():
            if part in options.only:
                figures[part] = run(server, load)
    record.finish(options, "fleet", figures, list(lines(figures)))


def _as_ray(options: argparse.Namespace) -> Mapping[str, Load]:
    """Return the loads of Ray Tune's published rows, at the requested size."""
    short = options.short_trials
    return {
        "short": Load(options.short_workers, 0, 0.0, False, 1.0, 1, trials=short),
    }


def _learning(options: argparse.Namespace) -> Iterator[Load]:
    for liar in (True, False):
        yield Load(
            options.learning_workers,
            max(options.stored),
            options.seconds,
            trial_seconds=LEARNING_SECONDS,
            epochs=1,
            sampler="tpe",
            constant_liar=liar,
        )


def run(server: FleetServer, load: Load) -> dict[str, Any]:
    """Let a fleet work on a study in a separate database."""
    with server.database() as url, ExitStack() as stack:
        with Database(address.parse(url)) as database:
            _prepare(database, load)
            rows = _sizes(database)
        bouncer = stack.enter_context(run_bouncer(server, url)) if load.bouncer else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        crews = _start(load, url if bouncer is None else bouncer.url, folder)
        try:
            found = _measure(server, bouncer, load, crews)
        finally:
            for crew in crews:
                crew.kill()
                crew.wait()
        with Database(address.parse(url)) as database:
            found["bytes"] = _growth(rows, _sizes(database))
    record.progress(json.dumps({k: v for k, v in found.items() if k != "curve"}))
    return found


def _prepare(database: Database, load: Load) -> None:
    schema.ensure(database)
    rounds = 2 + (settle_seconds(load) + load.seconds) // load.trial_seconds
    trials = load.trials or load.stored + int(rounds + 1) * load.workers
    trials = -(-trials // (20 * SEEDS)) * 20 * SEEDS if load.trials is None else trials
    learns = SAMPLERS[load.sampler].learns
    store(
        database,
        "fleet",
        stored=load.stored,
        trials=trials,
        epochs=load.epochs,
        sampler=load.sampler,
        sampler_options={"constant_liar": True} if load.constant_liar else {},
        # A sampler learns from the first seed alone.
        seeds=1 if learns else SEEDS,
        images=200,
    )
    with database.transaction() as connection:
        # The events that a trial has besides its beginning and its end.
        connection.execute(
            sa.text(
                "INSERT INTO tuner.event (study_id, trial_id, worker_id, kind, text)"
                " SELECT study_id, trial_id, 1, 'checkpoint', 'at epoch ' || n"
                " FROM tuner.lease, generate_series(1, :epochs) n"
            ),
            {"epochs": load.epochs},
        )
    settle(database)


def settle_seconds(load: Load) -> float:
    """Return when all workers are training, and their first epochs are stored."""
    return 15.0 + join_seconds(load)


def join_seconds(load: Load) -> float:
    """Return the time over which the workers start, one after the other.

    A starting worker costs more than a running one: if they started faster than this, the window
    would measure how a backlog is worked off.
    """
    return load.workers / 20


def _start(load: Load, url: str, folder: Path) -> list["subprocess.Popen[str]"]:
    crews = []
    count = min(PROCESSES, load.workers)
    threads = min(THREADS, -(-load.workers // count) + 1)
    for place in range(count):
        first = load.workers * place // count
        orders = Orders(
            url=url,
            study="fleet",
            workers=load.workers * (place + 1) // count - first,
            first=first,
            of=load.workers,
            threads=threads,
            trial_seconds=load.trial_seconds,
            epochs=load.epochs,
            join_seconds=join_seconds(load),
            settle_seconds=settle_seconds(load),
            window_seconds=load.seconds,
            whole=load.trials is not None,
            reuse=load.reuse,
        )
        path = folder / f"orders-{place}.json"
        path.write_text(json.dumps(asdict(orders)))
        crews.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.simulated", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        )
    for crew in crews:
        assert crew.stdout is not None
        if crew.stdout.readline() != "ready\n":
            raise SystemExit("a process of simulated workers has failed")
    return crews


def _measure(
    server: FleetServer,
    bouncer: Bouncer | None,
    load: Load,
    crews: Sequence["subprocess.Popen[str]"],
) -> dict[str, Any]:
    # All wait for this line, so that their windows coincide.
    for crew in crews:
        assert crew.stdin is not None
        crew.stdin.write("go\n")
        crew.stdin.flush()
    whole = load.trials is not None
    if not whole:
        time.sleep(settle_seconds(load))
    before = _spent(server, bouncer)
    begun = time.perf_counter()
    if not whole:
        time.sleep(load.seconds)
        after = _spent(server, bouncer)
        seconds = time.perf_counter() - begun
    told = [json.loads(crew.stdout.readline()) for crew in crews if crew.stdout is not None]
    if whole:
        after = _spent(server, bouncer)
        seconds = time.perf_counter() - begun
    used = {name: after[name] - before[name] for name in after}
    return _summary(load, told, used, seconds)


def _spent(server: FleetServer, bouncer: Bouncer | None) -> dict[str, float]:
    """Return the server's running totals: CPU seconds, WAL bytes, network bytes."""
    return {
        "server cpu": server.cpu(),
        "bouncer cpu": 0.0 if bouncer is None else bouncer.cpu(),
        "log bytes": server.log_bytes(),
        "network bytes": float(psutil.net_io_counters(pernic=True)["lo"].bytes_sent),
        "commits": server.commits(),
    }


def _summary(
    load: Load, told: Sequence[Mapping[str, Any]], used: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    durations: dict[str, list[float]] = {}
    trips: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for one in told:
        for name, values in one["durations"].items():
            durations.setdefault(name, []).extend(values)
        trips.update(one["trips"])
        sent.update(one["sent"])
        counts.update(one["counts"])
        failures.update(one["failures"])
    epochs, trials = max(counts["epochs"], 1), max(counts["trials"], 1)
    gaps = durations.get("gap", [])
    lost = sum(gaps) / (sum(gaps) + len(gaps) * load.trial_seconds) if gaps else 0.0
    held, waited = durations.get("lock held", []), durations.get("lock waited", [])
    late = [value for one in told for value in one["late"]]
    joined = [one["joined"] for one in told]
    return {
        **asdict(load),
        "measured_seconds": seconds,
        "joined_seconds": None if None in joined else max(joined),
        "epochs_per_second": counts["epochs"] / seconds,
        "trials_per_second": counts["trials"] / seconds,
        "actions": {
            name: {**quantiles_ms(values), "count": len(values), "trips": trips[name] / len(values)}
            for name, values in sorted(durations.items())
            if name in trips
        },
        "gap": quantiles_ms(gaps),
        "lost_percent": 100 * lost,
        "lock_busy_percent": 100 * sum(held) / seconds,
        "lock_held": quantiles_ms(held),
        "lock_waited": quantiles_ms(waited),
        "trips_per_epoch": sum(trips.values()) / epochs,
        "sent_bytes_per_epoch": sum(sent.values()) / epochs,
        "network_bytes_per_epoch": used["network bytes"] / epochs,
        "log_bytes_per_epoch": used["log bytes"] / epochs,
        "commits_per_second": used["commits"] / seconds,
        "server_cores": used["server cpu"] / seconds,
        "bouncer_cores": used["bouncer cpu"] / seconds,
        "simulation_cores": sum(one["cpu"] / one["seconds"] for one in told),
        "late": quantiles_ms(late),
        "failures": dict(failures),
        "trials_ended": trials,
    }


def quantiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th and 99th percentile and the largest, in milliseconds."""
    if not seconds:
        return {}
    ranked = sorted(1000 * one for one in seconds)

    def at(share: float) -> float:
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    return {
        "median": statistics.median(ranked),
        "p95": at(0.95),
        "p99": at(0.99),
        "max": ranked[-1],
    }


GROWING = (
    "tuner.trial", "tuner.lease", "tuner.epoch", "tuner.outcome", "tuner.event",
    "tuner.prediction", "trials", "trial_params", "trial_user_attributes",
    "trial_intermediate_values", "trial_values",
)  # fmt: skip


def _sizes(database: Database) -> dict[str, tuple[int, int]]:
    """Return the bytes of each growing table with its indexes, and its rows."""
    found = {}
    with database.transaction() as connection:
        for table in GROWING:
            row = connection.execute(
                sa.text(f"SELECT pg_total_relation_size('{table}'), (SELECT count(*) FROM {table})")
            ).one()
            found[table] = (int(row[0]), int(row[1]))
    return found


def _growth(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, float]]:
    return {
        table: {"bytes": size, "rows": rows, "new_rows": rows - before[table][1]}
        for table, (size, rows) in after.items()
    }


def connections(server: FleetServer, count: int) -> dict[str, Any]:
    """Open this many connections, each of which has run the first statements of a claim."""
    found: dict[str, Any] = {"count": count}
    with server.database() as url:
        with Database(address.parse(url)) as database:
            schema.ensure(database)
        found["direct"] = _held(server, url, count)
        with run_bouncer(server, url) as bouncer:
            found["bouncer"] = _held(server, bouncer.url, count)
            found["bouncer"]["pooler_bytes"] = bouncer.memory()
    record.progress(json.dumps(found))
    return found


def _held(server: FleetServer, url: str, count: int) -> dict[str, Any]:
    before = memory_of(server.backends())
    database = Database(address.parse(url))
    held: list[Any] = []
    took: list[float] = []
    try:
        for _ in range(count):
            begun = time.perf_counter()
            connection = database.connect()
            held.append(connection)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT * FROM tuner.study, tuner.lease, tuner.trial LIMIT 1")
                cursor.execute("SELECT * FROM tuner.epoch, tuner.event, trials LIMIT 1")
            took.append(time.perf_counter() - begun)
        backends = server.backends()
        return {
            "backends": len(backends),
            "backend_bytes": (memory_of(backends) - before) / count,
            "opened": quantiles_ms(took),
        }
    finally:
        for connection in held:
            connection.close()
        database.close()


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as Markdown tables."""
    if rows := [*figures.get("size", ()), *figures.get("bouncer", ())]:
        head = "| workers | through | epochs/s | claims | claim, ms: median, p95 | an epoch, ms "
        yield head + "| lock busy | lost | late, s: p95 | server, cores | simulation, cores |"
        yield "|---" * 11 + "|"
        yield from map(_at_work, rows)
    if claims := figures.get("stored"):
        head = "| stored trials | claims | claims/s | claim, ms: median, p95, p99 | lock held, ms "
        yield ""
        yield head + "| lock busy | lost | late, s: p95 | server, cores |"
        yield "|---" * 9 + "|"
        yield from map(_claiming, claims)
    if learning := figures.get("learning"):
        yield ""
        head = "| TPE | workers | stored trials | trials/s | ideal | proposals a trial "
        yield head + "| claims a trial | a proposal, ms | lock held, ms | lock busy |"
        yield "|---" * 10 + "|"
        yield from map(_proposing, learning)
    if found := figures.get("connections"):
        direct, pooled = found["direct"], found["bouncer"]
        yield ""
        yield (
            f"{found['count']:,} connections: {direct['backend_bytes'] / 1e6:.1f} MB each in the "
            f"server directly; idle behind PgBouncer, {pooled['pooler_bytes'] / 1e6:.0f} MB all "
            "together."
        )
    if row := figures.get("short"):
        yield from ("", _beside_ray("short", "trials of one second", row))


def _at_work(row: Mapping[str, Any]) -> str:
    claim, through = row["actions"].get("claim", {}), "PgBouncer" if row["bouncer"] else "–"
    latency = f"{claim['median']:.0f}, {claim['p95']:.0f}" if claim else "–"
    return (
        f"| {row['workers']:,} | {through} | {row['epochs_per_second']:.3g} "
        f"| {claim.get('count', 0):,} | {latency} "
        f"| {row['actions']['record']['median']:.0f} | {row['lock_busy_percent']:.1f}% "
        f"| {row['lost_percent']:.2f}% | {_late(row)} | {row['server_cores']:.2f} "
        f"| {row['simulation_cores']:.2f} |"
    )


def _claiming(row: Mapping[str, Any]) -> str:
    claim = row["actions"]["claim"]
    return (
        f"| {row['stored']:,} | {claim['count']:,} "
        f"| {claim['count'] / row['measured_seconds']:.1f} "
        f"| {claim['median']:.0f}, {claim['p95']:.0f}, {claim['p99']:.0f} "
        f"| {row['lock_held']['median']:.0f} | {row['lock_busy_percent']:.0f}% "
        f"| {row['lost_percent']:.2f}% | {_late(row)} | {row['server_cores']:.2f} |"
    )


def _proposing(row: Mapping[str, Any]) -> str:
    made, claims, trials = row["actions"]["proposal"], row["actions"]["claim"], row["trials_ended"]
    return (
        f"| {'constant_liar' if row['constant_liar'] else 'usual'} | {row['workers']:,} "
        f"| {row['stored']:,} | {row['trials_per_second']:.1f} "
        f"| {row['workers'] / row['trial_seconds']:.0f} | {made['count'] / trials:.2f} "
        f"| {claims['count'] / trials:.2f} | {made['median']:.0f} "
        f"| {row['lock_held']['median']:.0f} | {row['lock_busy_percent']:.0f}% |"
    )


def _late(row: Mapping[str, Any]) -> str:
    """Return how late the simulation was: a lateness above a second is not the server's fault."""
    return f"{row['late']['p95'] / 1000:.2f}"


def _beside_ray(part: str, words: str, row: Mapping[str, Any]) -> str:
    ideal = row["trials"] / row["workers"] * row["trial_seconds"]
    theirs, their_ideal = RAY[part]
    return (
        f"{row['trials']:,} simulated {words} on {row['workers']} workers: "
        f"{row['measured_seconds']:.1f} s, {row['measured_seconds'] / ideal:.2f} times the ideal "
        f"{ideal:.0f} s. Ray Tune publishes {theirs:.0f} s for 10,000 trials that ran as "
        f"processes, {theirs / their_ideal:.2f} times its ideal; simulated workers start none, so "
        "the two are not one measurement."
    )


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw how claim times and cores grow with the fleet."""
    rows = [row for row in figures["size"] if row["actions"].get("claim")]
    style: dict[Any, Any] = {"svg.hashsalt": "fleet", "svg.fonttype": "path", "font.size": 9}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.6, 2.6))
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        sizes = [row["workers"] for row in rows]
        for name, colour in (("median", chart.OWN), ("p95", chart.OTHER)):
            values = [row["actions"]["claim"][name] for row in rows]
            left.loglog(sizes, values, "o-", color=colour, label=name, markersize=4)
        left.set_title("A claim, ms", loc="left", fontsize=9, color=chart.INK)
        for name, colour in (("server", chart.OWN), ("simulation", chart.OTHER)):
            values = [row[f"{name}_cores"] for row in rows]
            right.loglog(sizes, values, "o-", color=colour, label=name, markersize=4)
        right.set_title("Cores", loc="left", fontsize=9, color=chart.INK)
        for axes in (left, right):
            axes.set_xlabel("workers", color=chart.FAINT)
            axes.legend(frameon=False, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(visible=True, which="major", color="#eceff1")
        figure.tight_layout()
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workers", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--stored", nargs="+", type=int, default=list(STORED))
    parser.add_argument("--seconds", type=float, default=45.0, help="length of a measured window")
    parser.add_argument("--bouncer-workers", type=int, default=300)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--learning-workers", type=int, default=8)
    parser.add_argument("--short-workers", type=int, default=16)
    parser.add_argument("--short-trials", type=int, default=1_600)
    return parser.parse_args()


if __name__ == "__main__":
    main()
