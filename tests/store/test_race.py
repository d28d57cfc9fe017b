"""How a race assigns seeds: rules that hold whatever the looks decide."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.specs import make_spec
from tuner.spec.study import Replicates, Spec
from tuner.store.ledger.assignments import (
    PENDING,
    RACING,
    Assignment,
    Existing,
    next_assignment,
    race,
)
from tuner.store.ledger.looks import ERROR, Decided, Ends, Look, Race, looks, schedule

Judge = Callable[[Look], Decided]


def make(configurations: int, seeds: int, top: int) -> Spec:
    """Build a study that explores this many configurations and races the top ones."""
    replicates = Replicates(seeds, "top", top)
    spec = make_spec(trials=replicates.total(configurations), sampler="random")
    return replace(spec, replicates=replicates)


def nobody(look: Look) -> Decided:
    """Drop no contender."""
    return Decided(look, ())


def last_at(*rounds: int) -> Judge:
    """Drop the last contender at these looks."""

    def judge(look: Look) -> Decided:
        return Decided(look, look.racing[-1:] if look.rounds in rounds else ())

    return judge


def ending(at: int) -> Judge:
    """End the race because of its images at one look."""
    return lambda look: Decided(look, (), "images" if look.rounds >= at else "")


class Run:
    """A study trained by this many workers, which take and end trials in any order."""

    def __init__(self, spec: Spec, judge: Judge = nobody, workers: int = 1, seed: int = 0):
        self.spec, self.judge, self.workers = spec, judge, workers
        self.chance = random.Random(seed)
        self.existing: list[Existing] = []
        self.decided: list[Decided] = []
        self.room = 0

    def go(self) -> "Run":
        """Train until nothing is left to train."""
        while True:
            self.chance.shuffle(self.existing)
            found = next_assignment(self.spec, self.existing, decided=self.decided)
            running = [one for one in self.existing if not one.ended]
            if isinstance(found, Look):
                self._look(found)
            elif isinstance(found, Assignment) and len(running) < self.workers:
                self.existing.append(Existing(found.configuration, found.seed, ended=False))
                assert len(self.existing) <= self.spec.total_trials, "the budget is exact"
            elif running:
                self._end(self.chance.choice(running))
            else:
                assert found is None, found
                return self

    def _look(self, look: Look) -> None:
        running = {(one.configuration, one.seed) for one in self.existing if not one.ended}
        seen = {(one, seed) for one in look.racing for seed in range(1, look.rounds + 1)}
        assert not running & seen, "a look waits for all that it looks at"
        self.decided.append(self.judge(look))

    def _end(self, one: Existing) -> None:
        self.existing.remove(one)
        value = float(one.configuration)
        self.existing.append(replace(one, ended=True, complete=True, value=value))

    def seeds(self, configuration: int) -> list[int]:
        """Return the further seeds that a configuration was given."""
        return sorted(
            one.seed for one in self.existing if one.configuration == configuration and one.seed
        )


def test_the_looks_are_known_beforehand() -> None:
    """After the rounds 2, 3, 4, 6, 8, 11, …; only those that the budget can reach."""
    assert list(islice(schedule(), 9)) == [2, 3, 4, 6, 8, 11, 16, 23, 32]
    assert looks(5, 5 * 9) == [2, 3, 4, 6, 8, 11, 16]
    assert looks(5, 5 * 2) == [], "with three seeds there is nothing to give out after a look"


def test_a_look_after_which_nothing_could_be_given_out_is_not_held() -> None:
    """The budget must suffice for another round of two; otherwise a look would have no effect."""
    seeds = {0: {1, 2}, 1: {1, 2}, 2: {1, 2}}
    assert Race((0, 1, 2), seeds, room=7).look() is None
    found = Race((0, 1, 2), seeds, room=8).look()
    assert found is not None
    assert found.rounds == 2


def test_where_nobody_is_dropped_every_contender_gets_the_seeds_of_the_file() -> None:
    """Without drops the study is the same as one without races."""
    done = Run(make(6, 7, 3)).go()
    assert [done.seeds(one) for one in range(6)] == [[*range(1, 7)]] * 3 + [[]] * 3
    assert len(done.existing) == done.spec.total_trials


def test_freed_trials_go_to_those_who_remain() -> None:
    """If one of three is dropped after two seeds, the two others get more than the file's seeds."""
    done = Run(make(6, 10, 3), last_at(2)).go()
    assert done.seeds(2) == [1, 2]
    assert done.seeds(0) == done.seeds(1) == [*range(1, 13)], "(27 - 2) // 2"
    assert len(done.existing) <= done.spec.total_trials


def test_with_one_left_the_rest_is_saved() -> None:
    """If two of three are dropped at once nothing more is trained."""
    done = Run(make(6, 10, 3), lambda look: Decided(look, look.racing[1:])).go()
    assert [done.seeds(one) for one in range(3)] == [[1, 2]] * 3
    standing = race(done.spec, done.existing, done.decided)
    assert (standing.won, standing.saved) == (True, 21)


def test_images_end_a_race_until_it_gets_more_room() -> None:
    """A race that more seeds cannot settle stops, and continues after an extension."""
    done = Run(make(6, 10, 3), ending(4)).go()
    assert done.seeds(0) == [1, 2, 3, 4]
    assert race(done.spec, done.existing, done.decided).stuck
    done.spec, done.judge = make(6, 14, 3), nobody
    done.go()
    assert done.seeds(0) == [*range(1, 14)]


def test_a_look_is_a_barrier_and_nothing_else_is() -> None:
    """Before a look the trials of its rounds must have ended; between looks workers go ahead."""
    spec = make(3, 10, 2)
    done = [Existing(one, 0, True, float(one)) for one in range(3)]
    ahead = [Existing(0, 1, False), Existing(1, 1, False), Existing(0, 2, False)]
    assert next_assignment(spec, [*done, *ahead]) == Assignment(1, 2)
    ahead.append(Existing(1, 2, False))
    assert next_assignment(spec, [*done, *ahead]) == RACING
    ended = [replace(one, ended=True) for one in ahead]
    found = next_assignment(spec, [*done, *ended])
    assert isinstance(found, Look)
    assert (found.number, found.rounds, found.racing) == (1, 2, (0, 1))
    after = next_assignment(spec, [*done, *ended], decided=[nobody(found)])
    assert after == Assignment(0, 3)


def test_a_dropped_contenders_running_trial_does_not_hold_up_a_look() -> None:
    """A retried trial of a dropped contender delays no look."""
    spec = make(3, 10, 3)
    done = [Existing(one, 0, True, float(one)) for one in range(3)]
    done += [Existing(one, seed, True) for one in range(3) for seed in (1, 2)]
    look = next_assignment(spec, done)
    assert isinstance(look, Look)
    decided = [Decided(look, (2,))]
    done = [one for one in done if (one.configuration, one.seed) != (2, 1)]
    done += [Existing(2, 1, False), *(Existing(one, 3, True) for one in (0, 1))]
    found = next_assignment(spec, done, decided=decided)
    assert isinstance(found, Look)
    assert (found.rounds, found.racing) == (3, (0, 1))


def test_one_contender_alone_is_replicated_as_before() -> None:
    """With `top = 1`, or one survivor of the exploration, there is no race and nothing is saved."""
    done = Run(make(4, 6, 1)).go()
    assert done.seeds(0) == [1, 2, 3, 4, 5]
    assert done.decided == []


def test_a_study_stored_before_races_goes_on_with_all_its_contenders() -> None:
    """Half of the replicates exist and no look was decided: none counts as dropped."""
    spec = make(4, 6, 2)
    run = Run(spec)
    run.existing = [Existing(one, 0, True, float(one)) for one in range(4)]
    run.existing += [Existing(one, seed, True) for one in (0, 1) for seed in (1, 2, 3)]
    run.go()
    assert run.seeds(0) == run.seeds(1) == [1, 2, 3, 4, 5]
    assert [one.look.rounds for one in run.decided] == [2, 3, 4]


def test_who_has_raced_stays_when_exploring_longer_finds_better_ones() -> None:
    """A longer exploration adds contenders; those with evidence stay."""
    done = Run(make(3, 6, 2)).go()
    wider = make(5, 6, 2)
    done.spec = wider
    run_values = [replace(one, value=one.value) for one in done.existing]
    # The two new configurations are better than all before.
    run_values += [Existing(one, 0, True, -1.0) for one in (3, 4)]
    found = race(wider, run_values, done.decided)
    assert found.contenders == (3, 4, 0, 1)
    assert found.room == 10, "the study's total stays a ceiling"


@settings(max_examples=150, deadline=None)
@given(
    configurations=st.integers(1, 9),
    seeds=st.integers(2, 12),
    top=st.integers(1, 6),
    workers=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    eager=st.floats(0, 1),
)
def test_any_race_keeps_its_promises(
    configurations: int, seeds: int, top: int, workers: int, seed: int, eager: float
) -> None:
    """Never over the budget, no seed for a dropped contender, only whole rounds, in any order."""
    spec = make(configurations, seeds, min(top, configurations))

    def judge(look: Look) -> Decided:
        # It depends only on the look, so that every worker decides the same.
        chance = random.Random(f"{seed} {look.rounds} {look.racing}")
        dropped = tuple(one for one in look.racing[1:] if chance.random() < eager / 2)
        ends: Ends = "images" if chance.random() < 0.05 else ""
        return Decided(look, dropped, ends)

    many = Run(spec, judge, workers, seed).go()
    alone = Run(spec, judge).go()
    assert len(many.existing) <= spec.total_trials
    cells = {(one.configuration, one.seed) for one in many.existing}
    assert cells == {(one.configuration, one.seed) for one in alone.existing}
    assert many.decided == alone.decided
    standing = race(spec, many.existing, many.decided)
    left = {many.seeds(one)[-1] if many.seeds(one) else 0 for one in standing.racing}
    assert len(left) == 1, "all that race have the same seeds"
    for past in many.decided:
        for one in past.dropped:
            assert many.seeds(one) == [*range(1, past.look.rounds + 1)]
    if not standing.over:
        assert standing.room - standing.spent < len(standing.racing)
    assert sum(past.look.error for past in many.decided) <= ERROR
    assert len(many.decided) <= max([past.look.looks for past in many.decided], default=0)


def test_extensions_spend_what_is_left_of_the_error_and_never_more() -> None:
    """However often a study is extended, all its looks together keep the error rate."""
    run = Run(make(6, 6, 3))
    for seeds in (6, 12, 24, 60, 150):
        run.spec = make(6, seeds, 3)
        run.go()
    spent = [past.look.error for past in run.decided]
    assert sum(spent) < ERROR
    assert all(one > 0 for one in spent)
    first = [past.look.error for past in run.decided if past.look.room == 15]
    assert len(set(first)) == 1, "the looks of one extent share alike"


@pytest.mark.parametrize("seeds", [2, 3])
def test_few_seeds_make_no_race(seeds: int) -> None:
    """If nothing would be left to assign after the first look there is no look."""
    done = Run(make(6, seeds, 3)).go()
    assert done.decided == []
    assert len(done.existing) == done.spec.total_trials


def test_the_exploration_comes_first() -> None:
    """While an explored trial runs no race begins."""
    spec = make(3, 5, 2)
    done = [Existing(0, 0, True, 0.1), Existing(1, 0, True, 0.2), Existing(2, 0, False)]
    assert next_assignment(spec, done) == PENDING


def test_a_race_that_images_ended_goes_on_for_who_was_never_looked_at() -> None:
    """A longer exploration, or a retried trial, brings a contender without a look."""
    seen = Look(1, 2, (0, 1), 2, 3, room=12, error=0.01)
    ended = Decided(seen, (), "images")
    seeds = {0: {1, 2}, 1: {1, 2}}
    assert Race((0, 1), seeds, 12, (ended,)).stuck
    assert not Race((0, 1), seeds, 14, (ended,)).stuck, "there is more room"
    assert not Race((7, 0, 1), seeds, 12, (ended,)).stuck, "configuration 7 is new"
