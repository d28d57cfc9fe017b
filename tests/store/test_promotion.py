"""Which paused trial is promoted: rules for any number of workers and any values."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.specs import make_spec
from tuner.spec.space import Choice, Range
from tuner.spec.study import Spec
from tuner.store.ledger.promotion import Climb, Climber, Ladder, Stretch

RUNGS = (2, 6, 18)
LENGTH = 40
OPTIONS = {"first": 0.05, "eta": 3}


def promoting(trials: int = 12, epochs: int = LENGTH, **options: float) -> Spec:
    """Build a study whose trials pause."""
    given_options = {**OPTIONS, **options}
    return make_spec(
        trials=trials,
        epochs=epochs,
        sampler="random",
        allocator="promote",
        allocator_options=given_options,
    )


@dataclass
class Training:
    """One trial of a simulated search."""

    number: int
    length: int = LENGTH
    epoch: int = 0
    running: bool = True
    until: int | None = None
    seen: dict[int, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether it was trained to its end."""
        return self.epoch == self.length


class Simulation:
    """A search with several workers, whose stretches end in any order."""

    def __init__(
        self,
        values: Sequence[float],
        ladder: Ladder,
        workers: int = 1,
        chance: random.Random | None = None,
        lengths: Callable[[int], int] = lambda _: LENGTH,
    ) -> None:
        self.values, self.ladder, self.workers = values, ladder, workers
        self.chance = chance or random.Random(0)
        self.lengths = lengths
        self.trials: list[Training] = []
        self.decisions: list[Stretch] = []

    def climb(self) -> Climb:
        """Return a claim's view; rows come in any order."""
        climbers = [
            Climber(one.number, dict(one.seen), paused=not one.running and not one.complete)
            for one in self.trials
            if one.seen
        ]
        self.chance.shuffle(climbers)
        return Climb(
            self.ladder,
            climbers,
            complete=sum(one.complete for one in self.trials),
            finishing=sum(one.running and one.until is None for one in self.trials),
            last_turn=next(
                (one.start for one in reversed(self.decisions) if one.why == "in turn"), None
            ),
        )

    def go(self) -> "Simulation":
        """Train until no worker gets a trial and none is training."""
        while True:
            running = [one for one in self.trials if one.running]
            if len(running) < self.workers and self._claim():
                continue
            if not running:
                return self
            self._end(self.chance.choice(running))

    def _claim(self) -> bool:
        climb = self.climb()
        stretch = climb.promotion()
        if stretch is None and len(self.trials) < len(self.values):
            number = len(self.trials)
            length = self.lengths(number)
            self.trials.append(Training(number, length, until=self.ladder.until(0, length)))
            return True
        if stretch is None and not climb.is_enough:
            stretch = climb.turn()
        if stretch is None:
            return False
        trial = self.trials[stretch.number]
        assert not trial.running, "a trial goes on once at a time"
        assert trial.epoch == stretch.start, "from where it was paused"
        self.decisions.append(stretch)
        trial.running, trial.until = True, self.ladder.until(stretch.start, trial.length)
        return True

    def _end(self, trial: Training) -> None:
        trial.running = False
        trial.epoch = trial.length if trial.until is None else trial.until
        trial.seen |= {rung: self.values[trial.number] for rung in self.ladder.rungs
                       if rung <= trial.epoch and rung < trial.length}  # fmt: skip

    @property
    def completed(self) -> set[int]:
        """The trials that were trained to their end."""
        return {one.number for one in self.trials if one.complete}


def reached(stretch: Stretch) -> int:
    """Return how many trials had reached a stretch's rung at its decision."""
    return int(stretch.saw["rungs"][str(stretch.start)]["reached"])


def test_the_rungs_come_from_the_longest_training() -> None:
    """5 % of 40 epochs, then three times as many each; whole epochs if the file gives them."""
    ladder = Ladder.of(promoting())
    assert ladder is not None
    assert ladder.rungs == RUNGS
    assert [ladder.until(at, LENGTH) for at in (0, 2, 6, 18)] == [2, 6, 18, None]
    assert [ladder.until(at, 10) for at in (0, 2, 6)] == [2, 6, None], "a shorter one ends early"
    assert ladder.until(0, 2) is None, "what ends at the first rung need not pause there"
    made = Ladder.of(promoting(first=5.0, eta=2))
    assert made is not None
    assert made.rungs == (5, 10, 20)
    one = Ladder.of(promoting(epochs=1))
    assert one is not None
    assert (one.rungs, one.until(0, 1)) == ((), None)
    assert Ladder.of(make_spec()) is None


@pytest.mark.parametrize(
    ("dimensions", "longest"),
    [
        ((Choice("epochs", (10, 60, 20)),), 60),
        ((Range("epochs", 10, 80, step=10, integer=True),), 80),
        ((Choice("lr", (0.1, 0.2)),), 40),
    ],
)
def test_varied_lengths_share_one_ladder(dimensions: tuple[Choice | Range], longest: int) -> None:
    """Trials of different lengths are compared at the same epochs."""
    spec = replace(promoting(), space=replace(promoting().space, dimensions=dimensions))
    assert spec.longest == longest
    ladder = Ladder.of(spec)
    assert ladder is not None
    assert ladder.rungs[0] == round(longest * 0.05)


def test_by_default_a_sixth_of_the_settings_or_the_contenders_are_finished() -> None:
    """Rounded up; at least as many as race; more if the file says so."""
    assert promoting(13).finish == 3
    assert promoting(13, finish=5).finish == 5
    raced = promoting(40)
    raced = replace(raced, replicates=replace(raced.replicates, seeds=3, of="top", top=8))
    assert (raced.configurations, raced.finish) == (24, 8)


def test_one_worker_follows_the_rule_step_by_step() -> None:
    """Nine settings, the best first: the promotions, by hand."""
    ladder = Ladder((1, 3), 3, finish=2)
    done = Simulation([1, 2, 3, 4, 5, 6, 7, 8, 9], ladder).go()
    told = [(one.number, one.start, one.why, reached(one)) for one in done.decisions]
    assert told == [
        (0, 1, "promoted", 3),
        # Nothing is complete yet, so it need not be among the best third of three.
        (0, 3, "first to finish", 1),
        (1, 1, "promoted", 6),
        (2, 1, "promoted", 9),
        # Two are to be completed: by turns, the higher rung first.
        (1, 3, "in turn", 3),
    ]
    assert done.completed == {0, 1}


def test_turns_go_down_the_rungs_and_begin_again() -> None:
    """No rung is left out, however many trials wait above it."""
    trials = [Climber(number, {2: 1.0, 6: 1.0}, paused=True) for number in (0, 1)]
    trials += [Climber(number, {2: 1.0}, paused=True) for number in (2, 3)]
    ladder = Ladder((2, 6), 9, finish=4)
    turns = [Climb(ladder, trials, last_turn=last).turn() for last in (None, 6, 2)]
    assert [(one.number, one.start) for one in turns if one] == [(0, 6), (2, 2), (0, 6)]


searches = st.tuples(
    st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=25),
    st.integers(2, 4),
    st.integers(1, 30),
    st.integers(1, 8),
    st.integers(0, 2**16),
)


@given(searches)
def test_no_trial_is_lost(search: tuple[list[float], int, int, int, int]) -> None:
    """As many complete as are to be finished, for any values and number of workers."""
    values, eta, finish, workers, seed = search
    ladder = Ladder(RUNGS, eta, finish)
    done = Simulation(values, ladder, workers, random.Random(seed)).go()
    assert len(done.trials) == len(values)
    assert len(done.completed) >= min(finish, len(values))
    assert all(one.epoch in (*RUNGS, LENGTH) for one in done.trials)


@given(searches)
def test_no_stretch_is_given_twice_and_each_is_the_best_of_its_rung(
    search: tuple[list[float], int, int, int, int],
) -> None:
    """Each promoted trial was paused there, and its recorded rank gives the reason."""
    values, eta, finish, workers, seed = search
    done = Simulation(values, Ladder(RUNGS, eta, finish), workers, random.Random(seed)).go()
    given_out = [(one.number, one.start) for one in done.decisions]
    assert len(set(given_out)) == len(given_out)
    for one in done.decisions:
        first = one.start == RUNGS[-1] and one.saw["complete"] == one.saw["finishing"] == 0
        in_top = one.saw["rank"] <= reached(one) // eta
        assert (one.why == "first to finish") == first
        assert (one.why == "promoted") == (in_top and not first)


@given(searches)
def test_the_first_trial_at_the_last_rung_is_finished_at_once(
    search: tuple[list[float], int, int, int, int],
) -> None:
    """Only one: the next needs a rank in the best share of the rung, or its turn."""
    values, eta, finish, _, seed = search
    done = Simulation(values, Ladder(RUNGS, eta, finish), 1, random.Random(seed)).go()
    last = [one for one in done.decisions if one.start == RUNGS[-1]]
    assert [one.why == "first to finish" for one in last] == [True, *[False] * (len(last) - 1)][
        : len(last)
    ]


@given(searches)
def test_the_best_one_is_found(search: tuple[list[float], int, int, int, int]) -> None:
    """If rungs do not mislead, the best setting is completed, even with one to finish."""
    values, eta, _, workers, seed = search
    done = Simulation(values, Ladder(RUNGS, eta, 1), workers, random.Random(seed)).go()
    known = [value for value in values if not math.isnan(value)]
    if known and len(values) >= eta ** len(RUNGS):
        assert min(known) in {values[number] for number in done.completed}


@given(searches, st.lists(st.sampled_from([1, 2, 5, 10, LENGTH]), min_size=25, max_size=25))
def test_trials_of_any_length_end(
    search: tuple[list[float], int, int, int, int], lengths: list[int]
) -> None:
    """A trial that ends before a rung is never paused there."""
    values, eta, _, workers, seed = search
    ladder = Ladder(RUNGS, eta, len(values))
    done = Simulation(values, ladder, workers, random.Random(seed), lambda one: lengths[one]).go()
    assert done.completed == set(range(len(values)))


def test_undefined_values_rank_last() -> None:
    """NaN is never promoted before a number."""
    trials = [Climber(0, {2: math.nan}, paused=True)]
    trials += [Climber(number, {2: 5.0 + number}, paused=True) for number in (1, 2)]
    found = Climb(Ladder((2,), 3, 1), trials).promotion()
    assert found is not None
    assert found.number == 1
