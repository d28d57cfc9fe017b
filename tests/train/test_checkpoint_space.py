"""Space: the least useful checkpoints are removed first, and no more than necessary."""

from hypothesis import assume, given
from hypothesis import strategies as st

from tuner.train.checkpoints.space import StoredCheckpoint, Use, owner, removals, uses

TRIALS = [{"study": "s", "trial": str(number)} for number in range(4)]


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[StoredCheckpoint], int, list[dict[str, str]], list[str]]:
    """Draw entries, a limit, the running trials, and the branch points."""
    count = draw(st.integers(0, 12))
    entries = [
        StoredCheckpoint(
            key=f"k{number}",
            epoch=draw(st.integers(1, 9)),
            bytes=draw(st.integers(1, 50)),
            last_used=draw(st.floats(0, 100)),
            labels=draw(st.sampled_from(TRIALS)),
        )
        for number in range(count)
    ]
    running = draw(st.lists(st.sampled_from(TRIALS), max_size=2))
    branches = [entry.key for entry in entries if draw(st.booleans())]
    return entries, draw(st.integers(0, 400)), running, branches


@given(store=stores())
def test_the_rest_fits_and_nothing_goes_without_need(
    store: tuple[list[StoredCheckpoint], int, list[dict[str, str]], list[str]],
) -> None:
    """The rest fits; without the last removal of a useful one it would not."""
    entries, limit, running, branches = store
    owners = [owner(labels) for labels in running]
    gone = removals(entries, limit, owners, branches)
    use = uses(entries, owners, branches)
    rest = sum(entry.bytes for entry in entries if entry not in gone)
    assert rest <= limit
    assert len({entry.key for entry in gone}) == len(gone)
    if gone and use[gone[-1].key] > Use.PASSED:
        assert rest + gone[-1].bytes > limit
    assert {key for key in use if use[key] == Use.PASSED} <= {entry.key for entry in gone}


@given(store=stores())
def test_nothing_more_useful_goes_before_something_less_useful(
    store: tuple[list[StoredCheckpoint], int, list[dict[str, str]], list[str]],
) -> None:
    """Checkpoints are removed by use first, then by the time since their last use."""
    entries, limit, running, branches = store
    owners = [owner(labels) for labels in running]
    gone = removals(entries, limit, owners, branches)
    use = uses(entries, owners, branches)
    left = [entry for entry in entries if entry not in gone]
    # Only stores that lose some and keep some test anything; without any, this fails.
    assume(gone and left)
    last_to_go = max((use[entry.key], entry.last_used) for entry in gone)
    assert last_to_go <= min((use[entry.key], entry.last_used) for entry in left)


def test_the_four_uses() -> None:
    """The newest of a running trial ranks above branch points, a finished trial's last below."""
    mine, done = TRIALS[0], TRIALS[1]
    entries = [
        StoredCheckpoint("early", 2, 1, 50.0, mine),
        StoredCheckpoint("branch", 5, 1, 1.0, mine),
        StoredCheckpoint("newest", 7, 1, 2.0, mine),
        StoredCheckpoint("last", 9, 1, 99.0, done),
    ]
    found = uses(entries, [owner(mine)], ["branch"])
    assert found == {
        "early": Use.PASSED,
        "branch": Use.BRANCH,
        "newest": Use.RUNNING,
        "last": Use.FINISHED,
    }
    order = [e.key for e in removals(entries, 0, [owner(mine)], ["branch"])]
    assert order == ["early", "last", "branch", "newest"]
    assert [e.key for e in removals(entries, 100, [owner(mine)], ["branch"])] == ["early"]
    promised = removals(entries, 0, [owner(mine)], ["branch"], ["early", "last"])
    assert [e.key for e in promised] == ["branch", "newest"], "no limit takes what is promised"
    kept_none = removals(entries, 100, [owner(mine)], ["branch"], leaving=[owner(done)])
    assert [e.key for e in kept_none] == ["early", "last"], "a trial that is to leave none"
    shared = removals(entries, 100, [owner(mine)], ["branch"], ["last"], leaving=[owner(done)])
    assert [e.key for e in shared] == ["early"], "another is paused where it ended"
    large = [StoredCheckpoint("paused", 2, 1_000, 1.0, done), entries[2]]
    assert removals(large, 10, [owner(mine)], promised=["paused"]) == [], "nor does it push out"
