"""kill -9 at random moments: of supervisors, of trainers, of both, of everyone at once."""

import random
from dataclasses import replace

import pytest

from tests.faults.proof import (
    assert_as_undisturbed,
    assert_whole,
    events_of,
    kinds,
    resumptions,
)
from tests.faults.scenery import Scene, Sizes
from tests.harness.processes import is_alive, kill, trainers_of, until
from tests.harness.warm import Started
from tests.store.specs import Bench
from tuner.store import tables as t

# One attempt only: a kill from outside must not count as a fault of the trial.
SIZES = Sizes(rates=(1e-4, 1e-3, 1e-2), seeds=2, epochs=40, attempts=1)
WORKERS = 2
VICTIMS = ("supervisor", "trainer", "both", "all")


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again_a_study_ends_as_if_nothing_had_happened(
    scene: Scene, seed: int
) -> None:
    """Whichever process is killed, the study ends exact and complete, bit for bit, without help."""
    bench = scene.launch(SIZES)
    crew = [scene.start() for _ in range(WORKERS)]
    seen: set[int] = set()
    for moment, victims in plan(seed):
        until(lambda at=moment: len(bench.rows(t.epoch)) >= at, f"{moment} epochs")  # type: ignore[misc]
        seen |= {pid for process in crew for pid in trainers_of(process.pid)}
        crew = strike(scene, crew, victims, random.Random(moment))
    assert [process.wait(120) for process in crew] == [0] * WORKERS, scene.said()
    assert_whole(bench)
    assert_as_undisturbed(bench, scene.blobs)
    assert kinds(bench)["lost"] >= 1
    assert_resumed(bench, every=5)
    until(lambda: not any(map(is_alive, seen)), "no trainer outlives its supervisor")


def plan(seed: int) -> list[tuple[int, str]]:
    """Return who is killed at which number of stored epochs."""
    chance = random.Random(seed)
    victims = [*VICTIMS, *VICTIMS[:3]]
    chance.shuffle(victims)
    total = len(SIZES.rates) * SIZES.seeds * SIZES.epochs
    moments = sorted(chance.sample(range(10, total - 60), len(victims)))
    return list(zip(moments, victims, strict=True))


def strike(scene: Scene, crew: list[Started], victims: str, chance: random.Random) -> list[Started]:
    """Kill, and start a worker in place of each supervisor that died."""
    unlucky = list(crew) if victims == "all" else [chance.choice(crew)]
    for process in unlucky:
        trainers = trainers_of(process.pid) if victims != "supervisor" else []
        supervisors = [process.pid] if victims != "trainer" else []
        kill(*supervisors, *trainers)
    if victims == "trainer":
        return crew
    for process in unlucky:
        process.wait()
    return [scene.start() if process in unlucky else process for process in crew]


def assert_resumed(bench: Bench, *, every: int) -> None:
    """Check that adopters resumed from checkpoints wherever one must have been written."""
    for stored, at in resumptions(bench):
        # The newest may have been in the middle of being written.
        assert at >= min(1, stored // (2 * every)), (stored, at, events_of(bench))


def test_a_trainer_alone_may_die_without_losing_the_lease(scene: Scene) -> None:
    """A killed trainer is an interruption; its worker resumes from the checkpoint on its own."""
    bench = scene.launch(replace(SIZES, rates=(1e-3,), seeds=1))
    process = scene.start()
    until(lambda: len(bench.rows(t.epoch)) >= 12, "12 epochs")
    kill(*trainers_of(process.pid))
    assert process.wait(60) == 0, scene.said()
    assert_whole(bench)
    assert_as_undisturbed(bench, scene.blobs)
    assert kinds(bench)["interrupted"] == 1
    assert kinds(bench)["attempt failed"] == 0
    assert kinds(bench)["lost"] == 0
    ((stored, at),) = resumptions(bench)
    assert at >= 5, "a checkpoint was written every 5 epochs"
    assert at <= stored + SIZES.epochs // 2
