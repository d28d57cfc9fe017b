"""Searches replayed on real learning curves: what a search would have trained, epoch by epoch.

The ledger itself decides what a free worker gets (`next_assignment`), what TPE proposes (`propose`)
and which of Optuna's pruners is asked (`build_pruner`). Only the epochs are not trained: they are
read from a table of curves.

A random search draws settings of the table in random order. TPE proposes any point of the space; it
gets the nearest setting of the table that the search has not used yet.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.curves import Array, Table
from tuner.records import Value
from tuner.spec.search import ALLOCATORS, PRUNERS, SAMPLERS, Method
from tuner.spec.space import Choice, Range
from tuner.spec.study import Replicates, Spec
from tuner.store.ledger.assignments import Assignment, Existing, next_assignment
from tuner.store.ledger.promotion import Climb, Climber, Ladder, Stretch
from tuner.store.optuna_storage import TrialsInMemory
from tuner.store.pruning import build_pruner
from tuner.store.sampling import distributions, propose

TITLE = "replayed"
"""The name of Optuna's study, by which hyperband assigns trials to brackets."""

Sampler = Literal["random", "tpe", "gp"]
Paused = Literal["pruned", "running", "hidden"]
"""How a sampler sees a paused trial; in the ledger it is pruned."""


@dataclass(frozen=True)
class Way:
    """A way to spend epochs, as in the section [search] of a study file."""

    title: str
    pruner: str = "none"
    allocator: str = "none"
    options: Mapping[str, float] = field(default_factory=dict)
    """Options of the pruner or of the allocator."""

    def spec(self, of: Spec, trials: int, sampler: Sampler = "random", seed: int = 0) -> Spec:
        """Return a study that searches this way."""
        options = dict(self.options)
        if self.pruner == "hyperband":
            options["max_resource"] = of.longest
        search = replace(
            of.search,
            sampler=sampler,
            sampler_options=_options(SAMPLERS[sampler], {}),
            pruner=self.pruner,
            pruner_options=_options(PRUNERS[self.pruner], options),
            allocator=self.allocator,
            allocator_options=_options(ALLOCATORS[self.allocator], options),
            seed=seed,
        )
        budget = replace(of.budget, trials=trials)
        return replace(of, budget=budget, search=search, replicates=Replicates())


def _options(method: Method, given: Mapping[str, Value]) -> dict[str, Value]:
    every = {name: given.get(name, method.default(name)) for name in method.options}
    return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, eq=False)
class World:
    """The settings available to one search, with one curve for each."""

    spec: Spec
    chosen: Sequence[Mapping[str, Value]]
    losses: Array
    """By setting and epoch."""
    lengths: NDArray[np.int64]
    """Planned epochs by setting."""
    costs: Array
    """How long an epoch takes, by setting."""

    @classmethod
    def draw(
        cls, table: Table, settings: int, chance: np.random.Generator, *, timed: bool = False
    ) -> "World":
        """Draw settings in random order, and one of the seeds for each."""
        order = chance.permutation(len(table.chosen))[:settings]
        seeds = chance.integers(table.losses.shape[1], size=settings)
        return cls(
            table.spec,
            [table.chosen[one] for one in order],
            table.losses[order, seeds[: len(order)]],
            table.lengths[order],
            table.seconds[order] if timed else np.ones(len(order)),
        )

    def __post_init__(self) -> None:
        """Compute the final value of each setting; a diverged one has none."""
        rows = range(len(self.losses))
        values = [self.losses[row, : self.lengths[row]] for row in rows]
        ends = [float(one.min()) if np.isfinite(one).all() else math.inf for one in values]
        object.__setattr__(self, "ends", np.array(ends))

    ends: Array = field(init=False)
    """The best loss of every setting that is trained to its end."""

    @property
    def best(self) -> float:
        """The best loss that a search can reach."""
        return float(self.ends.min())


@dataclass(eq=False)
class Trial:
    """One trial of a replayed search."""

    setting: int
    curve: Array
    """The values of all its epochs."""
    frozen: FrozenTrial
    """The trial as Optuna sees it."""
    epoch: int = 0
    until: int = 0
    """The epoch at which its stretch ends."""
    working: bool = True
    reached: dict[int, float] = field(default_factory=dict)
    """Its best loss by rung."""

    @property
    def complete(self) -> bool:
        """Whether it was trained to its end."""
        return self.frozen.state == TrialState.COMPLETE

    @property
    def ended(self) -> bool:
        """Whether it will never be continued."""
        return self.complete or bool(self.frozen.user_attrs)

    def best(self) -> float:
        """Return its best loss so far."""
        return float(self.curve[: self.epoch].min())


class _Trials(TrialsInMemory):
    """A study's trials during training, with the notes of pruners that have rungs."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        self._frozen[trial_id].system_attrs[key] = value

    def append(self, trial: FrozenTrial) -> None:
        self._frozen.append(trial)


class Search:
    """One search: what it assigns to workers, and how it judges their epochs."""

    def __init__(self, spec: Spec, world: World, paused: Paused = "pruned") -> None:
        self.world = world
        self._spec, self._paused = spec, paused
        self._ladder = Ladder.of(spec)
        self._trials: list[Trial] = []
        self._storage = _Trials([], spec.direction)
        self._pruner = build_pruner(spec) if spec.search.pruner != "none" else None
        self._warmup = int(spec.search.pruner_options.get("warmup", 0))
        self._study = optuna.study.Study(TITLE, self._storage, pruner=self._pruner)
        self._last_turn: int | None = None
        self._distributions = distributions(spec)
        self._near = Neighbours(world) if spec.search.sampler != "random" else None

    def ask(self) -> Trial | None:
        """Return the next trial for a free worker, if there is one."""
        existing = [
            Existing(
                number,
                seed=0,
                ended=trial.ended,
                complete=trial.complete,
                paused=not (trial.working or trial.ended),
            )
            for number, trial in enumerate(self._trials)
        ]
        following = next_assignment(self._spec, existing, climb=self._climb())
        if isinstance(following, Stretch):
            return self._resume(following)
        return self._begin() if isinstance(following, Assignment) else None

    def tell(self, trial: Trial) -> bool:
        """Take in an epoch of a trial; return whether the trial leaves its worker."""
        loss = float(trial.curve[trial.epoch - 1])
        if math.isnan(loss):
            trial.frozen.user_attrs["diverged"] = True
            trial.frozen.state, trial.working = TrialState.PRUNED, False
            return True
        trial.frozen.intermediate_values[trial.epoch] = loss
        if self._ladder is not None and trial.epoch in self._ladder.rungs:
            trial.reached[trial.epoch] = trial.best()
        # As in the ledger, the pruner is asked about the last epoch too.
        asked = self._pruner if trial.epoch > self._warmup else None
        if asked is not None and asked.prune(self._study, trial.frozen):
            trial.frozen.user_attrs["pruned"] = True
            trial.frozen.state, trial.working = TrialState.PRUNED, False
            return True
        if trial.epoch == len(trial.curve):
            trial.frozen.value = trial.best()
            trial.frozen.state, trial.working = TrialState.COMPLETE, False
            return True
        if trial.epoch == trial.until:
            trial.working = False
            if self._paused == "pruned":
                trial.frozen.state = TrialState.PRUNED
            return True
        return False

    def _begin(self) -> Trial:
        number = len(self._trials)
        setting = number if self._near is None else self._near.take(self._propose(number))
        chosen = dict(self.world.chosen[setting])
        every = self._distributions
        frozen = create_trial(
            state=TrialState.RUNNING,
            params=chosen,
            distributions={name: every[name] for name in chosen},
        )
        frozen.number = frozen._trial_id = number
        length = int(self.world.lengths[setting])
        trial = Trial(setting, self.world.losses[setting, :length], frozen)
        trial.until = self._end_of_stretch(trial, 0)
        self._trials.append(trial)
        self._storage.append(frozen)
        return trial

    def _resume(self, stretch: Stretch) -> Trial:
        trial = self._trials[stretch.number]
        trial.until = self._end_of_stretch(trial, stretch.start)
        trial.frozen.state, trial.working = TrialState.RUNNING, True
        if stretch.why == "in turn":
            self._last_turn = stretch.start
        return trial

    def _end_of_stretch(self, trial: Trial, start: int) -> int:
        length = len(trial.curve)
        rung = self._ladder.until(start, length) if self._ladder is not None else None
        return length if rung is None else rung

    def _propose(self, number: int) -> Mapping[str, Value]:
        seen = [
            trial.frozen
            for trial in self._trials
            if trial.working or trial.ended or self._paused != "hidden"
        ]
        return propose(self._spec, TITLE, seen, number)

    def _climb(self) -> Climb | None:
        if self._ladder is None:
            return None
        return Climb(
            self._ladder,
            [
                Climber(number, trial.reached, paused=not (trial.working or trial.ended))
                for number, trial in enumerate(self._trials)
                if trial.reached
            ],
            complete=sum(trial.complete for trial in self._trials),
            finishing=sum(
                trial.working and trial.until == len(trial.curve) for trial in self._trials
            ),
            last_turn=self._last_turn,
        )


class Neighbours:
    """The settings of a table that a search has not used yet, by their place in the space."""

    def __init__(self, world: World) -> None:
        self._dimensions = world.spec.space.dimensions
        self._places = np.array([self._place(one) for one in world.chosen])
        self._free = np.ones(len(self._places), bool)

    def take(self, chosen: Mapping[str, Value]) -> int:
        """Return the nearest setting, and remove it."""
        # Distance along a range is a share of its length. Between two choices it is 1 if they
        # differ, and also if a parameter is set in only one of the two settings.
        apart = np.abs(self._places - self._place(chosen))
        apart = np.where(np.isnan(apart), 1.0, np.minimum(apart, 1.0))
        distance = np.where(self._free, (apart**2).sum(axis=1), math.inf)
        nearest = int(distance.argmin())
        self._free[nearest] = False
        return nearest

    def _place(self, chosen: Mapping[str, Value]) -> Array:
        names = [one.name for one in self._dimensions]
        return np.array(
            [
                _along(one, chosen[name]) if name in chosen else math.nan
                for one, name in zip(self._dimensions, names, strict=True)
            ]
        )


def _along(dimension: Choice | Range, value: Value) -> float:
    """Return a value's coordinate in its dimension: from 0 to 1, or a whole number for a choice."""
    if isinstance(dimension, Choice):
        return float(dimension.values.index(value))
    low, high, at = float(dimension.low), float(dimension.high), float(value)
    if dimension.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)


@dataclass(frozen=True)
class Replayed:
    """How a search's answer, its best complete trial, improved."""

    spent: Array
    """When it improved, in trainings of full length, of all workers together."""
    regret: Array
    """How much worse it is than the best that the search could find."""
    total: float
    """The cost of the complete search."""

    def after(self, budget: float) -> float:
        """Return the regret after a budget; infinite before the first complete trial."""
        return float(self.course(np.array([budget]))[0])

    def course(self, budgets: Array) -> Array:
        """Return the regret at each of these budgets."""
        places = np.searchsorted(self.spent, budgets, side="right")
        return np.concatenate(([math.inf], self.regret))[places]

    def until(self, regret: float) -> float:
        """Return the budget at which the regret gets this small; infinite if it never does."""
        near = np.flatnonzero(self.regret <= regret)
        return float(self.spent[near[0]]) if len(near) else math.inf


def replay(search: Search, workers: int, limit: float = math.inf) -> Replayed:
    """Let workers train epochs until nothing is left to do or the budget is spent."""
    world = search.world
    full = float((world.costs * world.lengths).mean())
    spent, answer = 0.0, math.inf
    improved: list[tuple[float, float]] = []
    # Which worker ends an epoch next, and when; ties go to the one that asked first.
    queue: list[tuple[float, int, Trial]] = []
    idle, now, asked = workers, 0.0, 0
    while True:
        while idle and (given := search.ask()) is not None:
            heapq.heappush(queue, (now + world.costs[given.setting], asked, given))
            asked, idle = asked + 1, idle - 1
        if not queue or spent >= limit * full:
            break
        now, turn, trial = heapq.heappop(queue)
        cost = float(world.costs[trial.setting])
        trial.epoch += 1
        spent += cost
        if search.tell(trial):
            idle += 1
        else:
            heapq.heappush(queue, (now + cost, turn, trial))
        if trial.complete and trial.best() < answer:
            answer = trial.best()
            improved.append((spent / full, answer - world.best))
    ends = np.array(improved).reshape(-1, 2)
    return Replayed(ends[:, 0], ends[:, 1], spent / full)
