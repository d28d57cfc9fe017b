"""Which (configuration, seed) comes next: rules that hold for every study."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.store.specs import make_spec
from tuner.spec.study import Replicates, Spec
from tuner.store.ledger.assignments import PENDING, Assignment, Existing, next_assignment
from tuner.store.ledger.looks import Decided, Look


def make(configurations: int, replicates: Replicates) -> Spec:
    """Build a study of this many configurations by a budget of trials."""
    total = replicates.total(configurations)
    spec = make_spec(trials=total, sampler="random")
    return replace(spec, replicates=replicates)


def run(spec: Spec, existing: list[Existing] | None = None) -> list[Existing]:
    """Train a study to its end, one trial after the other; looks drop none.

    A trial's value is its configuration.
    """
    done, decided = list(existing or []), list[Decided]()
    while (found := next_assignment(spec, done, decided=decided)) is not None:
        if isinstance(found, Look):
            decided.append(Decided(found, ()))
            continue
        assert isinstance(found, Assignment), "nothing runs, so nothing is pending"
        value = float(found.configuration)
        done.append(Existing(found.configuration, found.seed, ended=True, value=value))
        assert len(done) <= spec.total_trials
    return done


@given(configurations=st.integers(1, 30), seeds=st.integers(1, 5))
def test_each_pair_comes_once_and_seed_0_first(configurations: int, seeds: int) -> None:
    """All configurations under seed 0, then all under seed 1, and so on; exactly the budget."""
    done = run(make(configurations, Replicates(seeds)))
    expected = [(c, s) for s in range(seeds) for c in range(configurations)]
    assert [(one.configuration, one.seed) for one in done] == expected


@given(
    before=st.tuples(st.integers(1, 12), st.integers(1, 3)),
    more=st.tuples(st.integers(0, 6), st.integers(0, 3)),
)
def test_extension_keeps_what_was_done(before: tuple[int, int], more: tuple[int, int]) -> None:
    """More trials and more seeds add exactly what is missing, and repeat nothing."""
    first = run(make(before[0], Replicates(before[1])))
    wider = make(before[0] + more[0], Replicates(before[1] + more[1]))
    done = run(wider, first)
    assert done[: len(first)] == first
    pairs = {(one.configuration, one.seed) for one in done}
    assert len(pairs) == len(done) == wider.total_trials


@given(
    configurations=st.integers(1, 20),
    seeds=st.integers(1, 4),
    data=st.data(),
)
def test_any_order_of_endings_makes_the_same_cells(
    configurations: int, seeds: int, data: st.DataObject
) -> None:
    """With parallel trials and random failures the same (configuration, seed) pairs are filled."""
    spec = make(configurations, Replicates(seeds))
    done: list[Existing] = []
    while (found := next_assignment(spec, done)) is not None:
        assert isinstance(found, Assignment)
        ended = data.draw(st.booleans())
        value = data.draw(st.none() | st.floats(0, 1)) if ended else None
        done.append(Existing(found.configuration, found.seed, ended=ended, value=value))
    assert len({(one.configuration, one.seed) for one in done}) == spec.total_trials


@given(configurations=st.integers(2, 20), seeds=st.integers(2, 4), top=st.integers(1, 5))
def test_top_replicates_the_contenders_only(configurations: int, seeds: int, top: int) -> None:
    """After the exploration only the best ones are repeated under further seeds."""
    top = min(top, configurations)
    done = run(make(configurations, Replicates(seeds, "top", top)))
    assert [one.configuration for one in done[:configurations]] == [*range(configurations)]
    again = {(one.configuration, one.seed) for one in done[configurations:]}
    assert again == {(c, s) for c in range(top) for s in range(1, seeds)}


def test_contenders_wait_for_the_exploration() -> None:
    """While an exploration trial is running, the contenders are not known yet."""
    spec = make(3, Replicates(2, "top", 1))
    done = [Existing(0, 0, True, 0.1), Existing(1, 0, True, 0.2), Existing(2, 0, False, None)]
    assert next_assignment(spec, done) == PENDING
    ended = [*done[:2], Existing(2, 0, True, 0.05)]
    assert next_assignment(spec, ended) == Assignment(2, 1)


def test_top_is_a_ceiling() -> None:
    """If fewer trials completed than contenders are wanted, fewer are replicated."""
    spec = make(3, Replicates(3, "top", 2))
    explored = [Existing(0, 0, True, None), Existing(1, 0, True, 0.2), Existing(2, 0, True, None)]
    done = run(spec, explored)
    assert [(one.configuration, one.seed) for one in done[3:]] == [(1, 1), (1, 2)]
    assert len(done) < spec.total_trials


def test_ties_fall_to_the_older_configuration() -> None:
    """Equal values are ordered by age, so that every worker has the same order."""
    spec = make(3, Replicates(2, "top", 2))
    explored = [Existing(c, 0, True, 0.5) for c in (2, 0, 1)]
    done = run(spec, explored)
    assert [(one.configuration, one.seed) for one in done[3:]] == [(0, 1), (1, 1)]
