"""Injected faults: death at every step of a write, full and read-only disks."""

import logging
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.train.blobs import blob_job, nothing, write_blobs
from tests.train.checkpoint_cases import MINE, Trained, state_text, train
from tuner.errors import MachineError
from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.parts import encode
from tuner.train.checkpoints.tree import PARTS_FOLDER, Tree
from tuner.train.checkpoints.writer import Offer, Writer

LONG = 60.0


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training of three epochs."""
    bench = write_blobs(tmp_path_factory.mktemp("blobs")).workbench()
    return train(bench, blob_job(epochs=3))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    if not mounted:
        pytest.skip("a disk can be mounted only by root, and not in every container")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def in_child(act: Callable[[], None]) -> int:
    """Run a function in a forked process and return its status from os.waitpid."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # nothing of a test may continue in the child
            os._exit(1)
    return os.waitpid(child, 0)[1]


def die_at(step: int) -> None:
    """Make this process kill itself at this step of writing: before each sync and rename."""
    left = [step]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        count()
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        count()
        return real_replace(self, target)

    os.fsync = fsync  # type: ignore[assignment]
    Path.replace = replace  # type: ignore[method-assign, assignment]


def test_a_writer_killed_at_any_step_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, trained: Trained
) -> None:
    """After kill -9 at any step a write is complete or invisible, and its remains are swept."""
    whole, step = False, 0
    while not whole:
        step += 1
        tree = Tree(str(tmp_path / str(step)))
        trained.store(tree, 1)
        beginning = len(tree._place.files(PARTS_FOLDER))

        def act(step: int = step, tree: Tree = tree) -> None:
            die_at(step)
            trained.store(tree, 3)

        killed = os.WIFSIGNALED(in_child(act))
        whole = tree.has(trained.path[2])
        stored = tree.longest(trained.path)
        assert stored is not None
        assert stored.epoch == (3 if whole else 1)
        assert state_text(stored.state) == state_text(trained.states[stored.epoch - 1])
        assert killed or whole
        assert len(tree.listing()) == (2 if whole else 1)
        if not whole:
            for path in (tmp_path / str(step)).rglob("*"):
                os.utime(path, (0, 0))
            tree.sweep()
            assert len(tree._place.files(PARTS_FOLDER)) == beginning
    # A sync, a rename and the folder's sync for two or three parts, then for the manifest.
    assert step >= 9


def test_writers_killed_at_random_leave_only_whole_checkpoints(
    tmp_path: Path, trained: Trained
) -> None:
    """Two processes write the same keys repeatedly and die: every listed checkpoint is complete."""
    for delay in (0.001, 0.004, 0.01, 0.02, 0.03, 0.05):
        children = [fork_writer(tmp_path, trained) for _ in range(2)]
        # The moment is random on purpose: nothing is waited for.
        signal.sigtimedwait([], delay)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        tree = Tree(str(tmp_path))
        for entry in tree.listing():
            assert trained.path[entry.epoch - 1] == entry.key
            stored = tree.longest(trained.path[: entry.epoch])
            assert stored is not None
            assert stored.epoch == entry.epoch
            assert state_text(stored.state) == state_text(trained.states[entry.epoch - 1])
    assert Tree(str(tmp_path)).listing()


def fork_writer(place: Path, trained: Trained) -> int:
    """Start a process that stores all states repeatedly until it is killed."""
    child = os.fork()
    if child == 0:
        try:
            tree = Tree(str(place))
            while True:
                trained.store(tree, 1, 2, 3)
        finally:
            os._exit(1)
    return child


def fill(filler: Path) -> None:
    """Write until the disk is full."""
    with filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_stops_checkpoints_and_nothing_else(
    small_disk: Path,
    trained: Trained,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A real ENOSPC is reported once, the run continues, and complete checkpoints stay complete."""
    place = small_disk / "checkpoints"
    tree = Tree(str(place))
    trained.store(tree, 1)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        fill(filler)
    bench, job = write_blobs(tmp_path).workbench(), blob_job(epochs=3)
    run, path, base = bench.begin(job), bench.path(job), bench.base(job)
    writer = Writer(tree)
    with caplog.at_level(logging.WARNING, "tuner"):
        for epoch in run.epochs(nothing):
            description = Description(base, "", MINE)
            writer.offer(Offer(path[epoch.epoch - 1], run.state(), description))
            assert writer.flush(LONG)
    assert len(run.curve) == 3
    assert caplog.text.count("No space left on device") == 1
    assert writer.close(LONG)
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 1
    assert not list(place.rglob(".tmp-*")), "what did not fit is not left lying in the way"
    filler.unlink()
    trained.store(tree, 3)
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 3


def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path, trained: Trained) -> None:
    """If a write is refused half-way, as by a quota, the parts already written are removed."""
    parts = encode(trained.states[0])
    limit = len(parts["weights"]) + 1
    assert limit < len(parts["optimizer"])

    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(MachineError, match=r"could not be written.*File too large"):
            trained.store(Tree(str(tmp_path)), 1)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    assert in_child(act) == 0


def test_a_disk_that_may_only_be_read_still_gives_its_checkpoints(
    small_disk: Path, trained: Trained
) -> None:
    """On a read-only disk nothing is written, which is reported; stored checkpoints are used."""
    tree = Tree(str(small_disk))
    trained.store(tree, 2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MachineError, match=r"could not be written.*Read-only"):
        trained.store(tree, 3)
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 2


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path, trained: Trained) -> None:
    """If all checkpoints were removed, a look-up finds nothing and writing continues."""
    tree = Tree(str(tmp_path / "checkpoints"))
    trained.store(tree, 1)
    subprocess.run(["rm", "-r", str(tmp_path / "checkpoints")], check=True)
    assert tree.longest(trained.path) is None
    assert tree.listing() == []
    trained.store(tree, 2)
    assert tree.longest(trained.path) is not None
