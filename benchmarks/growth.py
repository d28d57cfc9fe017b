"""What a claim costs when 10,000 trials are stored, against 100.

    python -m benchmarks.growth                     # one or two minutes
    python -m benchmarks.growth --stored 100 1000 --trials 100 --json

Workers that train nothing take turns in one process, on a study of each size, trial by trial in
alternation, so that other load on the machine affects both alike. The table has what does not
depend on the machine's load: statements, their bytes, pages of the server, and the CPU of this
process and of its server process. Times, and how long the study's lock was held, are in the record.

The study's sampler is random. What a learning sampler needs besides, outside the study's lock, is
measured apart: *reading* the trials, for the first time and again, and a *proposal* of TPE over as
many made-up trials.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from optuna.trial import create_trial

from benchmarks import record
from benchmarks.servers import FleetServer, run_fleet_server
from benchmarks.simulated import IDENTITY, LOCK
from benchmarks.stored import make_dataset, make_training, settle, store
from tests.store.specs import SETUP, made_up, make_ranged
from tuner.settings import Timing
from tuner.store import address, sampling, schema
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed

STORED = (100, 10_000)
EPOCHS = 3
PROPOSALS = 5
PATIENT = Timing(lease=3600.0)
T = TypeVar("T")


@dataclass
class Costs:
    """What was counted of one kind of action."""

    wall: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    locked: list[float] = field(default_factory=list)
    """How long the study's lock was held, if at all."""
    statements: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return medians, in milliseconds where it is time."""
        times = {name: getattr(self, name) for name in ("wall", "client", "server", "locked")}
        counts = {name: getattr(self, name) for name in ("statements", "sent", "pages")}
        return {
            "count": len(self.wall),
            **{
                f"{name}_ms": 1000 * statistics.median(all_) for name, all_ in times.items() if all_
            },
            "wall_p95_ms": 1000 * sorted(self.wall)[int(0.95 * len(self.wall))],
            **{name: statistics.median(all_) for name, all_ in counts.items() if all_},
        }


class Study:
    """A study of one size, its workers, and what their actions cost."""

    def __init__(self, url: str, stored: int, *, trials: int, workers: int):
        self.database = Database(address.parse(url))
        schema.ensure(self.database)
        total = stored + -(-trials // 100) * 100
        bench = store(
            self.database, "grown", stored=stored, trials=total, epochs=EPOCHS, sampler="random"
        )
        settle(self.database)
        self.workers = [bench.worker(PATIENT) for _ in range(workers)]
        self.costs: dict[str, Costs] = defaultdict(Costs)
        self._statements: list[int] = []
        self._locked = 0.0
        self._watch()

    def turn(self, number: int) -> None:
        """Let a worker train one trial."""
        worker = self.workers[number % len(self.workers)]
        first = "first " if number < len(self.workers) else ""
        answer = self._counted(f"{first}claim", lambda: worker.claim(None, adopt=True))
        assert isinstance(answer, Claimed), answer
        lease, dataset = answer.lease, make_dataset(2)
        worker.identify(lease, IDENTITY)
        curve, result = make_training(dataset, EPOCHS, np.random.default_rng(0))
        for epoch in curve:
            self._counted("epoch", partial(worker.record, lease, [epoch]))
        self._counted("end", lambda: worker.complete(lease, SETUP, dataset, result))
        self._counted(f"{first}reading", worker.observations)

    def _counted(self, name: str, act: Callable[[], T]) -> T:
        costs, self._statements, self._locked = self.costs[name], [], 0.0
        pids, pages = self._backends(), self._pages()
        server = sum(map(_cpu, pids))
        wall, client = time.perf_counter(), time.thread_time()
        answer = act()
        costs.client.append(time.thread_time() - client)
        ended = time.perf_counter()
        costs.wall.append(ended - wall)
        costs.server.append(sum(map(_cpu, pids)) - server)
        costs.pages.append(self._pages() - pages)
        costs.statements.append(len(self._statements))
        costs.sent.append(sum(self._statements))
        if self._locked:
            costs.locked.append(self._locked)
        return answer

    def _backends(self) -> list[int]:
        with self.database.engine.connect() as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            return [int(pid) for (pid,) in connection.execute(sa.text(query))]

    def _pages(self) -> int:
        """Return how many pages were read so far, from memory or not."""
        with self.database.autocommit() as connection:
            connection.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        with self.database.autocommit() as connection:
            query = (
                "SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)"
                " FROM pg_statio_user_tables"
            )
            return int(connection.execute(sa.text(query)).scalar_one())

    def _watch(self) -> None:
        begun: list[float] = []

        def sent(*given: Any) -> None:
            self._statements.append(len(given[2]))

        def executed(*given: Any) -> None:
            if LOCK in given[2]:
                begun[:] = [time.perf_counter()]

        def returned(*_: Any) -> None:
            if begun:
                self._locked = time.perf_counter() - begun.pop()

        sa.event.listen(self.database.engine, "before_cursor_execute", sent)
        sa.event.listen(self.database.engine, "after_cursor_execute", executed)
        sa.event.listen(self.database.engine, "checkin", returned)


def _cpu(pid: int) -> float:
    """Return the seconds that a process has had a core."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def measure(server: FleetServer, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Let workers train on studies of each size, in alternation."""
    with ExitStack() as stack:
        grown = []
        for stored in options.stored:
            url = stack.enter_context(server.database())
            grown.append(Study(url, stored, trials=options.trials, workers=options.workers))
            stack.callback(grown[-1].database.close)
        for number in range(options.trials):
            for study in grown:
                study.turn(number)
    found = []
    for stored, study in zip(options.stored, grown, strict=True):
        costs = {name: one.summary() for name, one in study.costs.items()}
        found.append({"stored": stored, "actions": {**costs, "proposal": proposal(stored)}})
        record.progress(json.dumps(found[-1]))
    return found


def proposal(stored: int) -> dict[str, float]:
    """Ask TPE for configurations, over this many trials of a space of ranges."""
    spec = make_ranged(trials=stored + PROPOSALS, sampler="tpe")
    distributions = sampling.distributions(spec)
    chance = np.random.default_rng(0)
    trials = []
    for number in range(stored):
        chosen = dict(made_up(spec, number))
        own = {name: distributions[name] for name in chosen}
        trials.append(
            create_trial(
                params=chosen, distributions=own, value=chance.random(), user_attrs={"seed": 0}
            )
        )
        trials[-1].number = trials[-1]._trial_id = number
    costs = Costs()
    for place in range(PROPOSALS):
        wall, client = time.perf_counter(), time.thread_time()
        sampling.propose(spec, "grown", trials, stored + place)
        costs.client.append(time.thread_time() - client)
        costs.wall.append(time.perf_counter() - wall)
    return costs.summary()


def lines(figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield what was measured as a Markdown table: for each action, a row a size."""
    yield (
        "| action | stored trials | n | statements | bytes sent | pages | this process, CPU ms | "
        "server, CPU ms |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    rows = figures["rows"]
    for name in rows[0]["actions"]:
        for row in rows:
            one = row["actions"][name]
            counts = [_cell(one, key, ",.0f") for key in ("statements", "sent", "pages")]
            times = [_cell(one, key, ",.1f") for key in ("client_ms", "server_ms")]
            cells = [name, f"{row['stored']:,}", f"{one['count']:,}", *counts, *times]
            yield f"| {' | '.join(cells)} |"


def _cell(one: Mapping[str, float], key: str, form: str) -> str:
    return format(one[key], form) if key in one else "–"


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    with run_fleet_server() as server:
        rows = measure(server, options)
    record.finish(options, "growth", {"rows": rows}, list(lines({"rows": rows})))


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--stored", nargs="+", type=int, default=STORED)
    parser.add_argument("--trials", type=int, default=60, help="trained on each study")
    parser.add_argument("--workers", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
