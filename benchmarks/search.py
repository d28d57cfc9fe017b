"""How many epochs searches need to find the best setting, replayed on real learning curves.

    python -m benchmarks.search --record                        # every table of benchmarks/curves
    python -m benchmarks.search --tables digits --repetitions 20

Each repetition draws 60 settings of a table (of a small one two thirds), their order, and one of
the seeds for each; a search by TPE may use all settings of the table, and begins the same number.
Its answer is the best complete trial. The regret is how much worse its loss is, at its best epoch,
than the best of all settings that the search may use. All workers are equally fast.

Ratios compare the epochs of two ways of searching: the mean regret that the reference has after 4,
6, 8, ... trainings of full length, and the epochs that the other needs for it. Their geometric mean
is recorded. Its interval is over settings of the table resampled with replacement; its noise is
over the searches alone, resampled in the same way.
"""

import argparse
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.curves import FOLDER, RECIPES, Array, Table
from benchmarks.searches import Paused, Replayed, Sampler, Search, Way, World, replay

MET = 60
"""Settings that a search begins, as in studies/everything.toml."""
NEAR = (0.005, 0.01)
"""Nats by which an answer may be worse than the best."""
SHOWN = (4, 8, 12)
"""Budgets, in trainings of full length, after which regrets are recorded."""
DRAWS_OF_SEARCHES = 200
ENOUGH = 45
"""Settings that are enough to compare searches on two thirds of them."""
LEVELS = (4, 6, 8, 10, 12, 16, 20, 24)
GRID = np.arange(0.25, MET + 0.25, 0.25)
BUDGETS = GRID[1:80:2]
"""Budgets of the picture."""
TARGET = 0.65
HYPERBAND = Way("hyperband (from 5)", "hyperband", options={"min_resource": 5})
PROMOTE = Way(
    f"promote, all finished in the end (finish = {MET})",
    allocator="promote",
    options={"finish": MET},
)
WAYS: Mapping[str, Way] = {
    "full": Way("every trial whole"),
    "median": Way("median (warm-up 5)", "median", options={"warmup": 5}),
    "percentile": Way("percentile 25 (warm-up 5)", "percentile", options={"warmup": 5}),
    "hyperband": HYPERBAND,
    "asha": Way(
        "asha (2, 3): promote's rungs", "asha", options={"min_resource": 2, "reduction_factor": 3}
    ),
    "promote": Way("promote", allocator="promote"),
    "promote-all": PROMOTE,
}
LATER = Way("promote, first = 5", allocator="promote", options={"finish": MET, "first": 5})
SEARCHED: Mapping[str, tuple[Sampler, ...]] = {
    "phantom": ("random", "tpe"),
    "digits": ("random", "tpe"),
    "cnn": ("random",),
    "lengths": ("random",),
    "seeds": ("random",),
}
WORKERS: Mapping[Sampler, tuple[int, ...]] = {"random": (1, 2, 8, 32), "tpe": (1, 2, 8, 32)}
PARTS = ("random", "tpe", "interval", "rest", "seen")
FEW = (1, 2)
"""The numbers of workers with recorded intervals."""
DRAWN = ("full", "median", "hyperband", "asha", "promote-all")


@dataclass(frozen=True)
class Trying:
    """Repetitions of one way to search a table."""

    way: Way
    sampler: Sampler = "random"
    workers: int = 1
    met: int | None = None
    """How many settings a search begins; by default as many as the table allows."""
    timed: bool = False
    """Whether an epoch costs its seconds, not one epoch."""
    paused: Paused = "pruned"
    limit: float = math.inf

    def run(self, table: Table, seeds: Sequence[int]) -> list[Replayed]:
        """Replay searches; the same seed means the same settings, in the same order."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        found = []
        met = _begun(len(table.chosen)) if self.met is None else self.met
        room = met if self.sampler == "random" else len(table.chosen)
        for seed in seeds:
            world = World.draw(table, room, np.random.default_rng(seed), timed=self.timed)
            spec = self.way.spec(table.spec, met, self.sampler, seed)
            found.append(replay(Search(spec, world, self.paused), self.workers, self.limit))
        return found


class Crew:
    """The processes that replay."""

    def __init__(self, pool: ProcessPoolExecutor, jobs: int) -> None:
        self._pool, self._jobs = pool, jobs

    def run(self, trying: Trying, table: Table, repetitions: int) -> list[Replayed]:
        """Replay a number of searches."""
        pieces = [range(start, repetitions, self._jobs) for start in range(self._jobs)]
        each = self._pool.map(partial(trying.run, table), pieces)
        return [one for piece in each for one in piece]

    def ratios(self, table: Table, workers: int, repetitions: int, draws: int) -> list[float]:
        """Return promotion's ratio to hyperband, each on settings of the table resampled."""
        work = partial(_drawn_ratio, table, workers, repetitions)
        return list(self._pool.map(work, range(draws)))


def _drawn_ratio(table: Table, workers: int, repetitions: int, seed: int) -> float:
    chance = np.random.default_rng([seed, 1])
    rows = chance.integers(len(table.chosen), size=len(table.chosen))
    drawn = _only(table, rows.tolist())
    seeds = range(seed * repetitions, (seed + 1) * repetitions)
    promoted, reference = (
        Trying(way, workers=workers, limit=30).run(drawn, seeds) for way in (PROMOTE, HYPERBAND)
    )
    return ratio(promoted, reference)


def _only(table: Table, rows: Sequence[int]) -> Table:
    return replace(
        table,
        chosen=tuple(table.chosen[row] for row in rows),
        losses=table.losses[rows],
        lengths=table.lengths[rows],
        seconds=table.seconds[rows],
    )


# What is recorded


def measure(
    name: str, crew: Crew, given: argparse.Namespace, recorded: Mapping[str, Any]
) -> dict[str, Any]:
    """Replay searches on one table; parts that are not requested stay as recorded."""
    table = Table.load(name)
    figures: dict[str, Any] = {
        **recorded,
        "settings": len(table.chosen),
        "seeds": table.losses.shape[1],
        "epochs": table.epochs,
        "diverged": float(np.isnan(table.losses[:, :, 0 : table.lengths.min()]).any(axis=2).mean()),
        "early": _early(table),
        "cost": _spread_of_costs(table),
        "searches": dict(recorded.get("searches", {})),
    }
    if table.losses.shape[1] > 1:
        figures["moves"] = _moves(table)
    samplers = [sampler for sampler in SEARCHED[name] if sampler in given.parts]
    crews = [(one, workers) for one in samplers for workers in WORKERS[one]]
    for sampler, workers in (one for one in crews if one[1] in given.workers):
        repetitions = given.repetitions if sampler == "random" else given.tpe
        record.progress(f"{name}, {sampler}, {workers} workers")
        found = {
            key: crew.run(Trying(way, sampler, workers), table, repetitions)
            for key, way in WAYS.items()
        }
        if (sampler, workers) == ("random", 1):
            figures["courses"] = {key: _drawn(found[key]) for key in DRAWN}
        figures["searches"][f"{sampler} {workers}"] = _searched_figures(found, repetitions)
    if "interval" in given.parts:
        figures["interval"] = {}
        for workers in FEW:
            record.progress(f"{name}, interval, {workers} workers")
            ratios = crew.ratios(table, workers, given.repetitions // 4, given.draws)
            figures["interval"][str(workers)] = _middle(ratios)
    if "rest" in given.parts:
        record.progress(f"{name}, the rest")
        figures["timed"] = _compared(crew, table, given.repetitions, HYPERBAND, PROMOTE, timed=True)
        figures["later"] = _compared(crew, table, given.repetitions, PROMOTE, LATER)
        figures["constant"] = _constant(crew, table, given.repetitions)
    if "seen" in given.parts and "tpe" in SEARCHED[name]:
        record.progress(f"{name}, what samplers see")
        figures["seen"] = _seen(crew, table, given)
    return figures


def _searched_figures(found: Mapping[str, Sequence[Replayed]], repetitions: int) -> dict[str, Any]:
    """Return the recorded figures of every way to search, with one number of workers."""
    promote, hyperband = found["promote-all"], found["hyperband"]
    return {
        "repetitions": repetitions,
        "ways": {key: _summary(one) for key, one in found.items()},
        "ratio": _plain(ratio(promote, hyperband)),
        "ratio_90": _plain(ratio(promote, hyperband, 0.9)),
        "ratio_median": _plain(ratio(promote, found["median"])),
        "ratio_same_rungs": _plain(ratio(promote, found["asha"])),
        "noise": _noise(promote, hyperband),
        "levels": [_plain(one) for one in _shares(promote, hyperband)],
    }


def _noise(found: Sequence[Replayed], reference: Sequence[Replayed]) -> list[float | None]:
    """Return the 90% interval of the ratio over searches, resampled in pairs."""
    chance = np.random.default_rng(0)
    ratios = []
    for _ in range(DRAWS_OF_SEARCHES):
        # The same seed has the same settings in the same order, so the two searches form a pair.
        places = chance.integers(len(found), size=len(found))
        ratios.append(ratio([found[one] for one in places], [reference[one] for one in places]))
    return _middle(ratios)


def _middle(ratios: Sequence[float]) -> list[float | None]:
    """Return the 90% interval of the ratios; undefined ones are left out."""
    ratios = [one for one in ratios if not math.isnan(one)] or [math.nan]
    return [_plain(np.quantile(ratios, q)) for q in (0.05, 0.95)]


def _spread_of_costs(table: Table) -> float | None:
    """Return the ratio of a slow setting's time per epoch to a fast one's."""
    fast, slow = np.quantile(table.seconds, (0.1, 0.9))
    return _plain(slow / fast)


def _moves(table: Table) -> dict[str, float]:
    """Return how much the ranking changes with the seed; the best quarter by mean is good."""
    ends = _ends(table)
    ends = ends[np.isfinite(ends).all(axis=1)]
    mean = ends.mean(axis=1)
    good = ends[np.argsort(mean)[: len(ends) // 4]]
    seeds = range(ends.shape[1])
    pairs = [(one, other) for one in seeds for other in seeds if one != other]
    first = ends.argmin(axis=0)
    others = [np.delete(ends, seed, axis=1).mean(axis=1) for seed in seeds]
    return {
        "settings": len(ends),
        "agreement": float(np.mean([_rank_correlation(ends, *pair) for pair in pairs])),
        "agreement_good": float(np.mean([_rank_correlation(good, *pair) for pair in pairs])),
        "seed_sd": float(np.sqrt(good.var(axis=1, ddof=1).mean())),
        "setting_sd": float(good.mean(axis=1).std(ddof=1)),
        "rank": float(
            np.mean([1 + (ends[:, other] < ends[first[one], other]).sum() for one, other in pairs])
        ),
        "worse": float(np.mean([others[seed][first[seed]] - others[seed].min() for seed in seeds])),
    }


def _rank_correlation(values: Array, one: int, other: int) -> float:
    return float(np.corrcoef(_ranks(values[:, one]), _ranks(values[:, other]))[0, 1])


def _compared(
    crew: Crew, table: Table, repetitions: int, reference: Way, way: Way, **more: Any
) -> float | None:
    theirs = crew.run(Trying(reference, **more), table, repetitions)
    return _plain(ratio(crew.run(Trying(way, **more), table, repetitions), theirs))


def _constant(crew: Crew, table: Table, repetitions: int) -> dict[str, float | None]:
    """Compare first rungs at a constant learning rate, where early epochs do not mislead."""
    rows = [row for row, one in enumerate(table.chosen) if one["scheduler"] == "constant"]
    if len(rows) < ENOUGH:
        return {"settings": len(rows), "later": None, "hyperband": None}
    some = _only(table, rows)
    met = _begun(len(rows))
    return {
        "settings": len(rows),
        "later": _compared(crew, some, repetitions, PROMOTE, LATER, met=met),
        "hyperband": _compared(crew, some, repetitions, HYPERBAND, PROMOTE, met=met),
    }


def _begun(settings: int) -> int:
    """Return how many settings a search begins on a table of this size."""
    return min(MET, 2 * settings // 3)


def _seen(crew: Crew, table: Table, given: argparse.Namespace) -> dict[str, Any]:
    """Compare how samplers treat paused trials: as pruned, as running, or hidden."""
    found = {}
    tries = {f"tpe {paused}": Trying(PROMOTE, "tpe", limit=20, paused=paused) for paused in
             ("pruned", "running", "hidden")}  # fmt: skip
    tries["gp pruned"] = Trying(PROMOTE, "gp", limit=20)
    tries["gp hyperband"] = Trying(HYPERBAND, "gp", limit=20)
    for key, trying in tries.items():
        repetitions = given.gp if key.startswith("gp") else given.tpe
        every = crew.run(trying, table, repetitions)
        found[key] = {"repetitions": repetitions, **_summary(every)}
    return found


def _early(table: Table) -> dict[str, dict[str, float]]:
    """Return how much too low good settings rank early, by schedule, as a share of all ranks.

    The best quarter at the end counts as good.
    """
    running = np.minimum.accumulate(table.losses, axis=2)
    last = _ranks(_ends(table).mean(axis=1))
    schedules = np.array([str(one["scheduler"]) for one in table.chosen])
    good = last < 0.25
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(schedules):
        of_name = good & (schedules == name)
        found[name] = {"settings": int(of_name.sum())}
        if not of_name.any():
            continue
        for epoch in (2, 6):
            values = running[:, :, epoch - 1]
            first = _ranks(np.where(np.isnan(values), math.inf, values).mean(axis=1))
            found[name][str(epoch)] = float(np.median((first - last)[of_name]))
    return found


def _ends(table: Table) -> Array:
    """Return the best loss by setting and seed; infinite where the trial diverged."""
    best = np.minimum.accumulate(table.losses, axis=2)
    ends = np.array([best[row, :, length - 1] for row, length in enumerate(table.lengths)])
    return np.where(np.isnan(ends), math.inf, ends)


def _ranks(values: Array) -> Array:
    return np.asarray(values.argsort().argsort() / len(values), float)


def _summary(found: Sequence[Replayed]) -> dict[str, Any]:
    regrets = np.array([one.course(GRID) for one in found])
    last = np.array([one.after(math.inf) for one in found])
    after = {str(budget): regrets[:, int(np.searchsorted(GRID, budget))] for budget in SHOWN}
    return {
        "until": {str(near): _quantiles([one.until(near) for one in found]) for near in NEAR},
        "regret": {key: [_plain(one.mean()), *_quantiles(one)] for key, one in after.items()},
        "missed": float((last > NEAR[0]).mean()),
        "lost": float((last > 0).mean()),
        "end": _plain(last.mean()),
        "spent": float(np.mean([one.total for one in found])),
    }


def _drawn(found: Sequence[Replayed]) -> list[float | None]:
    """Return the mean regret at each budget of the picture."""
    return [_plain(one) for one in np.mean([one.course(BUDGETS) for one in found], axis=0)]


def _quantiles(values: Sequence[float] | Array) -> list[float | None]:
    return [_plain(np.quantile(values, q, method="higher")) for q in (0.5, 0.9)]


def _plain(value: float) -> float | None:
    """Return a number for the record: None if it is infinite or undefined."""
    return round(float(value), 5) if math.isfinite(value) else None


def ratio(
    found: Sequence[Replayed], reference: Sequence[Replayed], quantile: float | None = None
) -> float:
    """Return which share of the reference's epochs gives the same regret.

    The geometric mean over the reference's budgets, up to the end of half its searches; infinite if
    the regret never gets as small.
    """
    shares = [one for one in _shares(found, reference, quantile) if not math.isnan(one)]
    return float(np.exp(np.mean(np.log(shares)))) if shares else math.nan


def _shares(
    found: Sequence[Replayed], reference: Sequence[Replayed], quantile: float | None = None
) -> list[float]:
    """Return the ratio at each of the reference's budgets; NaN before its first regret."""
    mine, theirs = (_course(those, quantile) for those in (found, reference))
    end = float(np.median([one.total for one in reference]))
    shares = []
    for budget in LEVELS:
        regret = theirs[int(np.searchsorted(GRID, budget))]
        reached = np.flatnonzero(mine <= regret)
        if budget > end or not math.isfinite(regret):
            shares.append(math.nan)
        else:
            shares.append(float(GRID[reached[0]]) / budget if len(reached) else math.inf)
    return shares


def _course(found: Sequence[Replayed], quantile: float | None) -> Array:
    every = np.array([one.course(GRID) for one in found])
    if quantile is None:
        return np.asarray(every.mean(axis=0))
    return np.asarray(np.quantile(every, quantile, axis=0, method="higher"))


# What is shown


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as Markdown."""
    tables = figures["tables"]
    yield from _ratio_lines(tables)
    for name, one in tables.items():
        seeds = "one seed" if one["seeds"] == 1 else f"{one['seeds']} seeds"
        yield ""
        yield f"**{RECIPES[name].title}**: {one['settings']} settings under {seeds}, one worker"
        for sampler in SEARCHED[name]:
            if (searched := _searched(one, (sampler, 1))) is not None:
                yield from _search_lines(searched, sampler)
    for part in (_other_lines, _early_lines, _seen_lines, _moves_lines):
        yield ""
        yield from part(tables)


def _ratio_lines(tables: Mapping[str, Any]) -> Iterator[str]:
    crews = [(sampler, workers) for sampler, those in WORKERS.items() for workers in those]
    heads = [f"{'TPE, ' if sampler == 'tpe' else ''}{workers}" for sampler, workers in crews]
    yield (
        f"| epochs of promote (`finish = {MET}`) in those of hyperband; workers: | "
        f"{' | '.join(heads)} |"
    )
    yield "|---" * (1 + len(crews)) + "|"
    kinds = {
        "ratio": "same mean regret",
        "ratio_90": "same 90th percentile",
        "ratio_median": "same mean regret as the median pruner",
        "ratio_same_rungs": "same mean regret as asha with its rungs",
    }

    def ratio(one: Mapping[str, Any], kind: str, crew: tuple[str, int]) -> str:
        if (searched := _searched(one, crew)) is None:
            return "–"
        interval = one.get("interval", {}).get(str(crew[1])) if crew[0] == "random" else None
        return _share(searched[kind]) + (_between(interval) if kind == "ratio" else "")

    def runs(one: Mapping[str, Any], way: str, crew: tuple[str, int]) -> str:
        searched = _searched(one, crew)
        return "–" if searched is None else _runs(searched["ways"][way]["until"][str(NEAR[0])][0])

    def noise(one: Mapping[str, Any], crew: tuple[str, int]) -> str:
        return _between((_searched(one, crew) or {}).get("noise")).strip(" ()") or "–"

    for name, one in tables.items():
        for kind, words in kinds.items():
            cells = [ratio(one, kind, crew) for crew in crews]
            yield f"| {name}, {words} | {' | '.join(cells)} |"
            if kind == "ratio":
                cells = [noise(one, crew) for crew in crews]
                yield f"| {name}, 90% of these ratios by the searches drawn | {' | '.join(cells)} |"
    yield ""
    yield from _level_lines(tables)
    yield ""
    yield f"| training runs to within {NEAR[0]} nats, median; workers: | {' | '.join(heads)} |"
    yield "|---" * (1 + len(crews)) + "|"
    ways = {
        "promote-all": f"promote, finish = {MET}",
        "promote": "promote, default finish",
        "hyperband": "hyperband",
    }
    for name, one in tables.items():
        for way, words in ways.items():
            cells = [runs(one, way, crew) for crew in crews]
            yield f"| {name}, {words} | {' | '.join(cells)} |"


def _level_lines(tables: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ratios whose means are in the first table."""
    yield f"| the same, by budget of hyperband, in training runs | {' | '.join(map(str, LEVELS))} |"
    yield "|---" * (1 + len(LEVELS)) + "|"
    for name, one in tables.items():
        for workers in FEW:
            searched = _searched(one, ("random", workers)) or {}
            if "levels" in searched:
                cells = [_share(value) for value in searched["levels"]]
                workers_of = "1 worker" if workers == 1 else f"{workers} workers"
                yield f"| {name}, {workers_of} | {' | '.join(cells)} |"


def _searched(one: Mapping[str, Any], crew: tuple[str, int]) -> Mapping[str, Any] | None:
    sampler, workers = crew
    found: Mapping[str, Any] | None = one["searches"].get(f"{sampler} {workers}")
    return found


def _search_lines(searched: Mapping[str, Any], sampler: str) -> Iterator[str]:
    title = {"random": "random settings", "tpe": "settings by TPE"}[sampler]
    heads = [f"to within {near:g}" for near in NEAR]
    heads += [f"regret after {budget}" for budget in SHOWN]
    heads += ["ends over 0.005 worse", "trainings in all"]
    yield ""
    yield f"| {title}, {searched['repetitions']} searches | {' | '.join(heads)} |"
    yield "|---" * (1 + len(heads)) + "|"
    for key, one in searched["ways"].items():
        cells = [_pair(one["until"][str(near)]) for near in NEAR]
        for budget in SHOWN:
            mean, _, high = one["regret"][str(budget)]
            cells.append(f"{_number(mean, 4)} / {_number(high, 4)}")
        cells += [f"{one['missed']:.0%}", f"{one['spent']:.1f}"]
        yield f"| {WAYS[key].title} | {' | '.join(cells)} |"


def _other_lines(tables: Mapping[str, Any]) -> Iterator[str]:
    yield "| epochs in those of the other, one worker | " + " | ".join(tables) + " |"
    yield "|---" * (1 + len(tables)) + "|"
    counts = dict.fromkeys(one["constant"]["settings"] for one in tables.values())
    those = "constant schedules only ({} settings)".format(
        ", ".join(f"{_begun(count)} of {count}" for count in counts)
    )
    rows: dict[str, list[float | None]] = {
        "epoch of a slow setting (90th percentile) / of a fast one (10th), by time": [
            one.get("cost") for one in tables.values()
        ],
        "promote / hyperband, if an epoch costs its seconds": [
            one.get("timed") for one in tables.values()
        ],
        f"promote / hyperband, {those}": [one["constant"]["hyperband"] for one in tables.values()],
        "promote from epoch 5 / from 5%": [one["later"] for one in tables.values()],
        f"promote from epoch 5 / from 5%, {those}": [
            one["constant"]["later"] for one in tables.values()
        ],
    }
    for words, values in rows.items():
        yield f"| {words} | {' | '.join(_share(value) for value in values)} |"


def _early_lines(tables: Mapping[str, Any]) -> Iterator[str]:
    heads = [f"{name}, epoch {epoch}" for name in tables for epoch in (2, 6)]
    yield f"| ranks too low | {' | '.join(heads)} |"
    yield "|---" * (1 + len(heads)) + "|"
    for schedule in next(iter(tables.values()))["early"]:
        cells = [
            _signed(one["early"].get(schedule, {}).get(epoch))
            for one in tables.values()
            for epoch in "26"
        ]
        yield f"| {schedule} | {' | '.join(cells)} |"


SEEN = {
    "tpe pruned": "TPE, pruned at its epoch (as shipped)",
    "tpe running": "TPE, running",
    "tpe hidden": "TPE, not seen at all",
    "gp pruned": "GP with promote: only complete trials are seen",
    "gp hyperband": "GP with hyperband",
}


def _seen_lines(tables: Mapping[str, Any]) -> Iterator[str]:
    seen = {name: one["seen"] for name, one in tables.items() if "seen" in one}
    heads = [f"{name}, {budget}" for name in seen for budget in SHOWN]
    yield f"| what a paused trial is to the sampler; regret after | {' | '.join(heads)} |"
    yield "|---" * (1 + len(heads)) + "|"
    for key, words in SEEN.items():
        means = [one[key]["regret"][str(budget)][0] for one in seen.values() for budget in SHOWN]
        yield f"| {words} | {' | '.join(_number(mean, 4) for mean in means)} |"


def _moves_lines(tables: Mapping[str, Any]) -> Iterator[str]:
    moved = {name: one for name, one in tables.items() if "moves" in one}
    if not moved:
        return
    yield f"| what a second seed changes | {' | '.join(moved)} |"
    yield "|---" * (1 + len(moved)) + "|"
    rows = {
        "rank correlation of two seeds, all settings": ("agreement", 2),
        "the same, best quarter of settings": ("agreement_good", 2),
        "standard deviation between seeds, best quarter, nats": ("seed_sd", 4),
        "standard deviation between settings, best quarter, nats": ("setting_sd", 4),
        "mean rank of one seed's best setting under another": ("rank", 1),
        "by how much it is worse there than the best, in the mean, nats": ("worse", 4),
    }
    for words, (key, digits) in rows.items():
        cells = [_number(one["moves"][key], digits) for one in moved.values()]
        yield f"| {words} | {' | '.join(cells)} |"


def _between(interval: Sequence[float | None] | None) -> str:
    low, high = interval or (None, None)
    return "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.0%}"


def _pair(both: Sequence[float | None]) -> str:
    return " / ".join(_runs(one) for one in both)


def _runs(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


PICTURE = record.RECORD.parent / "search.svg"
SHOWS = "Mean regret by epochs spent, for searches that stop, pause or train every trial whole"
COLOURS = {
    "full": "#c3c9cf",
    "median": "#b08a2e",
    "hyperband": "#6b747c",
    "asha": "#b5533c",
    "promote-all": "#1f6f8b",
}
NAMES = {
    "full": "every trial whole",
    "median": "median pruner",
    "hyperband": "hyperband",
    "asha": "promote's rungs, but stopping",
    "promote-all": f"promote, finish = {MET}",
}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the mean regret by epochs spent, with one worker, a panel a table."""
    tables = {name: one for name, one in figures["tables"].items() if name in RECIPES}
    style: dict[Any, Any] = {"svg.hashsalt": "search", "svg.fonttype": "path", "font.size": 9}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.2, 3.3 * -(-len(tables) // 2)))
        FigureCanvasAgg(figure)
        axes = figure.subplots(-(-len(tables) // 2), min(2, len(tables)), squeeze=False)
        for panel, (name, one) in zip(axes.flat, tables.items(), strict=False):
            for key, drawn in one["courses"].items():
                course = [math.nan if value is None else value for value in drawn]
                width = 2.2 if key == "promote-all" else 1.4
                panel.plot(BUDGETS, course, color=COLOURS[key], linewidth=width, label=NAMES[key])
            panel.set_yscale("log")
            panel.set_xlim(0, 20)
            title = textwrap.fill(RECIPES[name].title, 60)
            panel.set_title(title, loc="left", fontsize=8.5)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlabel("epochs spent, in trainings of full length")
            panel.set_ylabel("mean regret, nats")
        for panel in list(axes.flat)[len(tables) :]:
            panel.set_axis_off()
        axes.flat[0].legend(frameon=False, fontsize=8)
        figure.tight_layout()
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Replay every search on the tables; those that are not requested stay as recorded."""
    given = _options()
    kept = record.read(given.record or record.RECORD)["search"] if given.add else None
    figures: dict[str, Any] = {"tables": kept["figures"]["tables"] if kept else {}}
    with ProcessPoolExecutor(given.jobs) as pool:
        crew = Crew(pool, given.jobs)
        for name in given.tables:
            recorded = figures["tables"].get(name, {})
            figures["tables"][name] = measure(name, crew, given, recorded)
    order = [name for name in RECIPES if name in figures["tables"]]
    figures["tables"] = {name: figures["tables"][name] for name in order}
    earlier = kept["command"] if kept else None
    figures = json.loads(json.dumps(figures))
    record.finish(given, "search", figures, list(lines(figures)), after=earlier)


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    stored = [name for name in RECIPES if (FOLDER / f"{name}.npz").exists()]
    parser.add_argument("--tables", nargs="+", choices=RECIPES, default=stored)
    parser.add_argument("--repetitions", type=int, default=200, help="of random searches")
    parser.add_argument("--tpe", type=int, default=200, help="repetitions of searches by TPE")
    parser.add_argument("--gp", type=int, default=200, help="repetitions of searches by GP")
    parser.add_argument("--draws", type=int, default=40, help="tables drawn for an interval")
    parser.add_argument("--jobs", type=int, default=2, help="processes that replay")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of each table")
    numbers = sorted({number for several in WORKERS.values() for number in several})
    parser.add_argument("--workers", nargs="+", type=int, choices=numbers, default=numbers)
    parser.add_argument("--add", action="store_true", help="keep what is recorded beside these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
