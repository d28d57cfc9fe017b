"""When two studies are the same, when one extends the other, and which keys differ."""

import pytest

from tests.spec.conftest import GRID, RATES, STUDY, TPE, Read
from tuner.spec.identity import compare, extended, fingerprint

BASE = (
    STUDY
    + TPE
    + '[space]\nlr = [1e-3, 1]\nscheduler = ["step", "cosine"]\n'
    + 'step_size = { values = [5, 6], when = { scheduler = ["step", "cosine"] } }\n'
    + "[fixed]\ndropout = 0\nepochs = 3\n[data]\nshift = 1\n"
)
SAME = {
    "comments": BASE.replace("[fixed]", "# a word\n[fixed]  # another"),
    "number format": BASE.replace("1e-3, 1]", "0.001, 1.0]").replace("shift = 1", "shift = 1.0"),
    "order of keys": BASE.replace("dropout = 0\nepochs = 3", "epochs = 3\ndropout = 0.0"),
    "order of sections": "[fixed]\nepochs = 3\ndropout = 0\n"
    + BASE.replace("[fixed]\ndropout = 0\nepochs = 3\n", ""),
    "order in a condition": BASE.replace('= ["step", "cosine"] }', '= ["cosine", "step"] }'),
    "a default written out": BASE.replace("[space]", 'seed = 0\nat = "best"\n[space]'),
}


@pytest.mark.parametrize("case", SAME)
def test_files_that_mean_the_same_have_one_identity(read: Read, case: str) -> None:
    """Comments, order and number formats do not affect a study's identity."""
    assert fingerprint(read(SAME[case])) == fingerprint(read(BASE))
    assert compare(read(BASE), read(SAME[case])).same


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("lr=[1e-3, 2]", "space.lr"),
        ("lr=1e-3", "space.lr"),
        ("step_size=[5, 7]", "space.step_size"),
        ("epochs=4", "fixed.epochs"),
        ("data.shift=0.5", "data.shift"),
        ("data.image_size=32", "data.image_size"),
        ("budget.trials=21", "budget.trials"),
        ("budget.hours=2", "budget.hours"),
        ("budget.gpu_hours=2", "budget.hours"),
        ("budget.price_per_hour=2.5", "budget.price_per_hour"),
        ("budget.epochs=100", "budget.epochs"),
        ("budget.full=2.5", "budget.full"),
        ("limits.threads=2", "limits.threads"),
        ("replicates.seeds=2", "replicates.seeds"),
        ("search.seed=1", "search.seed"),
        ("search.sampler_options.n_startup_trials=3", "search.sampler_options.n_startup_trials"),
        ("study.question=Why?", "study.question"),
    ],
)
def test_every_other_change_is_named_by_its_key(read: Read, override: str, key: str) -> None:
    """A change of any section changes the identity and is reported by its key."""
    stored, given = read(BASE), read(BASE, [override])
    assert fingerprint(stored) != fingerprint(given)
    assert key in [change.key for change in compare(stored, given).changes]


def test_the_override_itself_is_no_part_of_the_identity(read: Read) -> None:
    """Only an override's effect counts."""
    written = read(BASE.replace("epochs = 3", "epochs = 4"))
    assert fingerprint(read(BASE, ["epochs=4"])) == fingerprint(written)


@pytest.mark.parametrize(
    ("overrides", "extends"),
    [
        (["budget.trials=40"], True),
        (["budget.trials=10"], False),
        (["budget.trials=40", "replicates.seeds=2"], True),
        (["replicates.seeds=2"], False),
        (["budget.hours=3"], True),
        (["budget.price_per_hour=2", "budget.money=100"], True),
        (["budget.epochs=100"], True),
        (["limits.memory=8GB", "limits.silence=5m", "limits.attempts=9"], True),
        (["study.question=Why?"], True),
        (["limits.threads=2"], False),
        (["budget.trials=40", "epochs=9"], False),
        (["epochs=9"], False),
        (["search.pruner=median"], False),
        ([], False),
    ],
)
def test_only_more_of_the_same_extends(read: Read, overrides: list[str], extends: bool) -> None:
    """More trials and seeds extend a study without losing a configuration; limits may change."""
    assert compare(read(BASE), read(BASE, overrides)).extends is extends


def test_fewer_seeds_are_no_extension(read: Read) -> None:
    """The same number of trials under fewer seeds is not an extension: replicates would be lost."""
    stored = read(BASE, ["replicates.seeds=2"])
    assert not compare(stored, read(BASE)).extends
    assert not compare(stored, read(BASE, ["budget.trials=40"])).extends


def test_a_grid_grows_by_seeds_alone(read: Read) -> None:
    """More seeds extend a grid; a longer list makes a different grid."""
    grid = STUDY + GRID + RATES
    assert compare(read(grid), read(grid, ["replicates.seeds=3"])).extends
    assert not compare(read(grid, ["replicates.seeds=3"]), read(grid)).extends
    assert not compare(read(grid), read(grid, ["lr=[1e-4, 1e-3, 1e-2]"])).extends


def test_a_change_is_told_in_words(read: Read) -> None:
    """A change is shown as key, stored value and given value."""
    changes = compare(read(BASE), read(BASE, ["lr={low=0.1, high=1, log=true}"])).changes
    assert [str(change) for change in changes] == [
        "space.lr: stored { values = [0.001, 1] }, given { low = 0.1, high = 1, log = true }"
    ]
    changes = compare(read(BASE), read(BASE, ["width=32"])).changes
    assert [str(change) for change in changes] == ["fixed.width: stored nothing, given 32"]


def test_an_extension_keeps_the_stored_settings(read: Read) -> None:
    """Size and limits come from the given file, all that affects results from the stored one."""
    stored, given = read(BASE), read(BASE, ["budget.trials=40", "limits.attempts=9"])
    grown = extended(stored, given)
    assert (grown.total_trials, grown.limits.attempts) == (40, 9)
    assert compare(grown, given).same
    assert grown.defaults == stored.defaults
