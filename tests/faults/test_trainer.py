"""Real trainers that misbehave: the worker survives, and the trial's state and reason are right."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import QUICK, own_database
from tests.faults.scenes import Scene, Told, states, told
from tests.store.specs import Bench
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.address import Address
from tuner.store.database import Database

ORDER = (
    "none",
    "prints",
    "segfault",
    "raises",
    "cuda_memory",
    "greedy:1",
    "garbage:1",
    "raises:2",
    "nan",
    "inf",
)
"""The trials of the one study that most tests here look at, in the order of their numbers."""
MEMORY = "1400MB"


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Scene:
    """Set up the scene of one test."""
    return Scene(settings, database, tmp_path)


@pytest.fixture(scope="module")
def troubled(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Train one study on one worker; each trial misbehaves in a different way."""
    folder = tmp_path_factory.mktemp("troubled")
    with own_database(server, template) as address:
        url = address.url(show_password=True)
        settings = Settings(folder / "home", database_url=url, timing=QUICK)
        with Database.open(settings) as database:
            scene = Scene(settings, database, folder)
            limits = {"memory": MEMORY, "attempts": 3}
            bench = scene.launch("troubled", space={"fault": list(ORDER)}, limits=limits)
            ended = scene.work("troubled")
            assert ended.state == "complete", ended
            yield bench


def one_of(bench: Bench, fault: str) -> Told:
    """Return the stored state of the trial with a fault."""
    return told(bench)[ORDER.index(fault)]


def test_the_worker_outlives_every_trainer(troubled: Bench) -> None:
    """One worker survives all faults, and exits normally when nothing is left."""
    (only,) = troubled.rows(t.worker)
    assert only.ended is not None
    assert len(states(troubled)) == len(ORDER)
    assert one_of(troubled, "none").state == "COMPLETE"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("segfault", "the trainer crashed (SIGSEGV)"),
        ("raises", "ValueError: a shape does not fit"),
        ("cuda_memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_three_attempts_without_progress_are_enough(
    troubled: Bench, fault: str, reason: str
) -> None:
    """A trial that fails three times in a row at one epoch is FAILED for good, and says why."""
    seen = one_of(troubled, fault)
    assert (seen.state, seen.reason) == ("FAILED", reason)
    # The first attempt has stored an epoch: it is reported, but the count restarts after it.
    assert seen.failures == (reason,) * 3
    assert seen.curve == (1,)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("greedy:1", "the trainer used more memory than [limits] allows (1,400,000,000 bytes)"),
        ("garbage:1", "the trainer sent an invalid message"),
        ("raises:2", "ValueError: a shape does not fit"),
    ],
)
def test_fewer_attempts_cost_time_only(troubled: Bench, fault: str, reason: str) -> None:
    """A trial that fails once or twice and then continues is complete, and its curve has no gap."""
    seen = one_of(troubled, fault)
    assert (seen.state, seen.reason, seen.curve) == ("COMPLETE", "", (1, 2, 3, 4))
    assert seen.failures == (reason,) * int(fault[-1])


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_divergence_is_no_failure(troubled: Bench, fault: str) -> None:
    """A NaN loss ends the trial as PRUNED at that epoch, at the first attempt."""
    seen = one_of(troubled, fault)
    assert (seen.state, seen.reason) == ("PRUNED", "diverged at epoch 2")
    assert seen.failures == ()
    assert seen.curve == (1, 2)


def test_garbage_on_a_terminal_hurts_nobody(troubled: Bench) -> None:
    """Any bytes on standard output are logged as text, and the trial completes."""
    seen = one_of(troubled, "prints")
    assert seen.state == "COMPLETE"
    assert seen.failures == ()
    assert "nothing but noise" in seen.printed


def test_what_an_objective_raises_can_be_read(troubled: Bench) -> None:
    """The traceback of a failed attempt is stored with the trial, down to the objective's line."""
    printed = one_of(troubled, "raises").printed
    assert "Traceback" in printed
    assert 'raise ValueError("a shape does not fit")' in printed


def test_a_trainer_that_hangs_is_replaced(scene: Scene) -> None:
    """Silence beyond [limits] costs an attempt; the next trainer completes the trial."""
    bench = scene.launch(
        "hanging",
        space={"fault": ["none", "hangs:1"]},
        # Loading torch is silence too; on a busy machine it may cost an attempt.
        limits={"silence": "10s", "attempts": 50},
    )
    assert scene.work("hanging").state == "complete"
    assert states(bench) == ["COMPLETE", "COMPLETE"]
    seen = told(bench)[1]
    assert seen.curve == (1, 2, 3, 4)
    assert set(seen.failures) == {"the trainer did not respond for 10 s"}
