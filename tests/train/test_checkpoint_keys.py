"""Two trainings have a key in common exactly if they have the weights in common."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from itertools import islice, pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.blobs import Blobs, blob_job, nothing
from tuner.errors import ObjectiveError
from tuner.records import Epoch, Value
from tuner.spec.parameters import SHARED
from tuner.train.checkpoints.keys import (
    LENGTH_PARAMETERS,
    RATE_PARAMETERS,
    Base,
    courses,
    extend,
    path,
    root,
    shaping,
    shared_epochs,
    shared_epochs_of_jobs,
)
from tuner.train.passes import training_bounds
from tuner.train.recipe import Recipe, read_recipe
from tuner.train.schedules import SCHEDULES, Position, course, rate
from tuner.train.state import fingerprint

STEPS = 7
"""Steps per epoch."""

BASE = Base("source", "data", {"device": "cpu", "threads": "1"}, 0, "val_loss", {"width": 64})

RECIPES = st.builds(
    replace,
    st.just(read_recipe({})),
    scheduler=st.sampled_from(sorted(SCHEDULES)),
    lr=st.sampled_from([1e-3, 1e-2]),
    step_size=st.integers(1, 12),
    decay=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    epochs=st.integers(1, 40),
    patience=st.integers(0, 3),
    warmup_epochs=st.sampled_from([0, 0, 2]),
    plateau_patience=st.integers(1, 2),
    momentum=st.sampled_from([0.9, 0.9, 0.5]),
)


def common(one: list[str], other: list[str]) -> int:
    """Return how many first keys two paths have in common."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def path_of(recipe: Recipe, base: Base = BASE) -> list[str]:
    """Return the path of a recipe, with all its parameters in the key."""
    return path(replace(base, parameters=shaping(asdict(recipe))), recipe, STEPS)


@given(recipe=RECIPES, epochs=st.integers(1, 40))
def test_other_lengths_share_all_epochs_unless_the_rates_know_the_length(
    recipe: Recipe, epochs: int
) -> None:
    """Step, exponential and constant settings of other lengths are prefixes of each other."""
    other = replace(recipe, epochs=epochs)
    shared = common(path_of(recipe), path_of(other))
    warm = recipe.warmup_epochs
    if recipe.scheduler == "onecycle" and max(1, epochs - warm) != max(1, recipe.epochs - warm):
        assert shared <= min(warm, epochs, recipe.epochs)
    elif recipe.scheduler == "cosine" and max(1, epochs - warm) != max(1, recipe.epochs - warm):
        assert shared == min(warm + 1, epochs, recipe.epochs)
    else:
        assert shared == min(epochs, recipe.epochs)


@settings(max_examples=300)
@given(one=RECIPES, other=RECIPES)
def test_settings_share_the_epochs_whose_rates_are_equal(one: Recipe, other: Recipe) -> None:
    """For any schedules the keys differ from the first different rate on."""
    mine, theirs = path_of(one), path_of(other)
    decided = zip(courses(one, STEPS), courses(other, STEPS), strict=False)
    equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], decided))
    expected = equal if one.momentum == other.momentum else 0
    assert common(mine, theirs) == expected == shared_epochs(one, other)
    assert set(mine[expected:]).isdisjoint(theirs[expected:])


def test_no_key_comes_twice_in_a_path() -> None:
    """Equal rates in every epoch give different keys: a key depends on its epoch."""
    keys = path_of(replace(read_recipe({}), epochs=500))
    assert len(set(keys)) == 500
    assert all(extend(parent, [1e-3]) == key for parent, key in pairwise(keys))


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, seed=1),
        replace(BASE, data="other data"),
        replace(BASE, source="other code"),
        replace(BASE, metric="val_acc"),
        replace(BASE, metrics=("f1",)),
        replace(BASE, metrics=("f1", "brier")),
        replace(BASE, numerics={"device": "cpu", "threads": "2"}),
        replace(BASE, parameters={"width": 128}),
        replace(BASE, parameters={"width": 64, "depth": 3}),
    ],
)
def test_nothing_is_shared_when_anything_before_the_first_epoch_differs(other: Base) -> None:
    """Seed, data, code, metric, numerics or parameters alone change all keys."""
    recipe = read_recipe({})
    assert set(path(BASE, recipe, STEPS)).isdisjoint(path(other, recipe, STEPS))
    assert root(BASE) != root(other)


def test_every_field_of_the_base_was_tried() -> None:
    """A field added to the base must be added to the test above, too."""
    tried = {"source", "data", "numerics", "seed", "metric", "parameters", "metrics"}
    assert {field.name for field in fields(Base)} == tried


def test_a_rate_one_bit_away_is_another_key() -> None:
    """Rates are hashed exactly and in order, and differently from a rule."""
    assert extend("k", [0.1]) != extend("k", [0.1 + 2**-56])
    assert extend("k", [0.1, 0.2]) != extend("k", [0.2, 0.1])
    assert extend("k", [0.1]) != extend("k", [0.1], "a rule")
    assert extend("k", [0.1]) == extend("k", [0.1])


class Watched:
    """A recipe that records what a schedule reads."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.recipe, name)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULES))
def test_no_parameter_of_a_schedule_is_forgotten(scheduler: str) -> None:
    """Parameters that a schedule reads enter keys as rates; otherwise nothing would be shared."""
    watched = Watched(read_recipe({"scheduler": scheduler}))
    schedule: Callable[[Any, Position], float] = rate
    for epoch in range(1, 40):
        schedule(watched, Position(epoch, 1, STEPS))
    assert watched.read <= RATE_PARAMETERS | {"epochs"}


def test_the_parameters_left_out_are_all_declared_and_read_by_some_schedule() -> None:
    """Only parameters that the rates represent are left out of a key."""
    assert set(SHARED) >= RATE_PARAMETERS | LENGTH_PARAMETERS
    read: set[str] = set()
    for scheduler in SCHEDULES:
        watched = Watched(read_recipe({"scheduler": scheduler}))
        schedule: Callable[[Any, Position], float] = rate
        curve = tuple(Epoch(k, 0, 0, 0, 0.5, 0, 0, 0, 0, 0) for k in range(1, 9))
        schedule(watched, Position(9, curve=curve))
        read |= watched.read
    assert read >= RATE_PARAMETERS


def test_equal_keys_mean_equal_weights(blobs: Blobs) -> None:
    """Four settings with the same rates from different parameters are one training."""
    workbench = blobs.workbench()
    jobs = [
        blob_job(scheduler="constant"),
        blob_job(scheduler="step", step_size=7, decay=0.3, epochs=4),
        blob_job(scheduler="exponential", decay=1.0, patience=3),
        blob_job(scheduler="constant", step_size=3, decay=0.9),
    ]
    prints = set()
    for job in jobs:
        run = workbench.begin(job)
        assert len(list(islice(run.epochs(nothing), 3))) == 3
        prints.add(fingerprint(run.state().weights))
    assert len({workbench.path(job)[2] for job in jobs}) == 1
    assert len(prints) == 1


@pytest.mark.parametrize("scheduler", sorted(SCHEDULES))
def test_the_rates_hashed_are_the_rates_used(blobs: Blobs, scheduler: str) -> None:
    """The path computed without training is the one that the training takes."""
    job = blob_job(scheduler=scheduler, step_size=2, epochs=5)
    workbench = blobs.workbench()
    run = workbench.begin(job)
    key = root(workbench.base(job))
    foretold = workbench.path(job)
    recipe, steps = read_recipe(job.parameters), len(training_bounds(97, 32))
    assert len(foretold) == 5
    for epoch, expected in zip(run.epochs(nothing), foretold, strict=True):
        decided, rule = course(recipe, epoch.epoch, steps)
        assert rule or decided[0] == epoch.lr
        key = extend(key, decided, rule)
        assert key == expected


def test_a_default_left_out_is_the_default_written_down() -> None:
    """Filling in defaults does not change a key; a whole-number rate is a rate."""
    given_: dict[str, Value] = {"optimizer": "adam", "momentum": 0.9, "batch_size": 32}
    assert shaping({}) == shaping(given_)
    assert shaping({"weight_decay": 1}) == shaping({"weight_decay": 1.0})


def test_a_schedule_that_reads_the_curve_is_held_as_its_rule() -> None:
    """Equal rules share all epochs, for any length; another rule or schedule shares none."""
    one = replace(read_recipe({}), scheduler="plateau", epochs=10)
    assert common(path_of(one), path_of(replace(one, epochs=25))) == 10
    others = (
        replace(one, plateau_patience=3),
        replace(one, decay=0.5),
        replace(one, lr=0.5),
        replace(one, warmup_epochs=1),
        replace(one, scheduler="constant"),
    )
    for other in others:
        assert common(path_of(one), path_of(other)) == 0
    assert path_of(one) == path_of(replace(one, decay=0.1))


def test_a_warm_up_is_shared_whatever_follows_it() -> None:
    """Trainings with the same warm-up are one until their schedules differ."""
    short = replace(read_recipe({}), scheduler="cosine", warmup_epochs=3, epochs=10)
    assert common(path_of(short), path_of(replace(short, epochs=20))) == 4
    assert common(path_of(short), path_of(replace(short, scheduler="step"))) == 4
    assert common(path_of(short), path_of(replace(short, warmup_epochs=4))) == 0


def test_jobs_share_epochs_only_on_the_same_data_seed_and_objective() -> None:
    """Two jobs can be compared without torch, data and device."""
    short, long = blob_job(epochs=10), blob_job(epochs=20)
    assert shared_epochs_of_jobs(short, long) == 10
    for other in (
        blob_job(epochs=20, seed=1),
        blob_job(epochs=20, data={"contrast": 1.0}),
        blob_job(epochs=20, hidden=9),
        blob_job(epochs=20, metric="val_acc"),
        replace(long, objective="else"),
        blob_job(epochs=20, lr=0.5),
    ):
        assert shared_epochs_of_jobs(short, other) == 0


def test_a_model_cannot_depend_on_what_its_key_leaves_out(blobs: Blobs) -> None:
    """A builder that asks for the number of epochs is refused, not shared wrongly."""
    models = blobs.folder / "blobs" / "models.py"
    text = models.read_text()
    models.write_text(text.replace('parameters["hidden"]', 'parameters["epochs"]'))
    with pytest.raises(ObjectiveError, match="epochs"):
        blobs.workbench().begin(blob_job())


def test_code_that_is_edited_gets_other_keys(blobs: Blobs) -> None:
    """A changed model source changes the path; a process keeps the path of its loaded code."""
    old = blobs.workbench().path(blob_job())
    models = blobs.folder / "blobs" / "models.py"
    models.write_text(models.read_text() + "\n# another word\n")
    assert blobs.workbench().path(blob_job()) == old
    script = (
        "import json, sys; from pathlib import Path; from tests.train.blobs import Blobs, blob_job;"
        "bench = Blobs(Path(sys.argv[1]), Path(sys.argv[2])).workbench();"
        "print(json.dumps(bench.path(blob_job())))"
    )
    command = [sys.executable, "-c", script, str(blobs.folder), str(blobs.cache)]
    new = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(new) == len(old)
    assert set(new).isdisjoint(old)


def test_keys_trees_and_writers_are_used_without_torch() -> None:
    """A supervisor can compute paths and space without loading torch."""
    script = (
        "import sys; from tuner.train.checkpoints import keys, space, tree, writer;"
        "from tuner.train import schedules, recipe;"
        "t = tree.Tree(sys.argv[1]); assert t.listing() == [] and t.sweep() == [];"
        "assert not t.has('0' * 64); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, "nowhere"], check=True)
