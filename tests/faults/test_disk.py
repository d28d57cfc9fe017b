"""Checkpoints without space, folder or permission: training completes with equal results."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, own_database
from tests.faults.scenes import Scene, results_of, small_disk, states, told
from tests.store.specs import Bench
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.address import Address
from tuner.store.database import Database
from tuner.train.checkpoints.keys import marks

WARNED = "No checkpoints are written until this is fixed"
EPOCHS = (3, 6)
"""Two lengths of one training: the second would start from the first's checkpoints."""


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Scene:
    """Set up the scene of one test."""
    return Scene(settings, database, tmp_path)


def train(scene: Scene, place: str, fault: str = "none", **checkpoints: Any) -> Bench:
    """Train the same two settings with checkpoints at a given location, after every epoch."""
    bench = scene.launch(
        "disk",
        space={"epochs": list(EPOCHS)},
        fixed={"scheduler": "constant", "fault": fault, "hidden": 64},
        checkpoints={"every": 1, **checkpoints},
    )
    # Only a location that never answers makes this wait matter.
    timing = replace(scene.settings.timing, lookup=4.0)
    settings = replace(scene.settings, checkpoints=place, timing=timing)
    ended = scene.work("disk", settings=settings)
    assert ended.state == "complete", ended
    return bench


Results = dict[str, list[tuple[str, ...]]]


@pytest.fixture(scope="module")
def without(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Results]:
    """Return the results with checkpoints switched off."""
    folder = tmp_path_factory.mktemp("without")
    with own_database(server, template) as address:
        url = address.url(show_password=True)
        settings = Settings(folder / "home", database_url=url, timing=QUICK)
        with Database.open(settings) as database:
            yield results_of(train(Scene(settings, database, folder), "off"))


def assert_as_without(bench: Bench, without: Results) -> None:
    """Check that a study was trained at the first attempts, to the same results."""
    assert states(bench) == ["COMPLETE"] * len(EPOCHS)
    assert [one.failures for one in told(bench).values()] == [()] * len(EPOCHS)
    assert results_of(bench) == without


@contextmanager
def in_the_way(folder: Path) -> Iterator[Path]:
    """Return a path below a file: not even root can create a folder there."""
    folder.mkdir()
    (folder / "file").write_text("in the way")
    yield folder / "file" / "checkpoints"


@contextmanager
def without_permission(folder: Path) -> Iterator[Path]:
    """Return a read-only folder: by its mode, or for root by its file system."""
    folder.mkdir()
    folder.chmod(0o555)
    # For root a mode forbids nothing.
    holder = small_disk(folder, "1m", read_only=True) if os.geteuid() == 0 else nullcontext()
    with holder:
        yield folder


@contextmanager
def full(folder: Path) -> Iterator[Path]:
    """Return a folder on a disk with space for less than one checkpoint."""
    with small_disk(folder, "12k"):
        yield folder


@pytest.mark.parametrize(
    ("spoilt", "keep"),
    [(in_the_way, "auto"), (in_the_way, "none"), (without_permission, "none"), (full, "auto")],
)
def test_a_place_that_cannot_be_written_costs_no_result(
    scene: Scene, without: Results, spoilt: Any, keep: str
) -> None:
    """Training completes at the first attempt, reports the problem, and has the same results."""
    with spoilt(scene.folder / "disk") as place:
        bench = train(scene, str(place), keep=keep)
    assert WARNED in "".join(one.printed for one in told(bench).values())
    assert_as_without(bench, without)


def test_a_folder_that_goes_away_in_the_middle_costs_no_result(
    scene: Scene, without: Results
) -> None:
    """The folder is removed and a file put in its place during the second epoch of a trial."""
    place = scene.folder / "checkpoints"
    (scene.notes / "place").write_text(str(place))
    bench = train(scene, str(place), fault="no_folder:1")
    assert place.read_text() == "in the way"
    assert WARNED in "".join(one.printed for one in told(bench).values())
    assert_as_without(bench, without)


def test_a_place_that_refuses_to_be_opened_costs_no_result(scene: Scene, without: Results) -> None:
    """An unreachable FTP server is reported once, without its password."""
    with socket.socket() as closed:
        # Bound but not listening: connections are refused, and no one else takes the port.
        closed.bind(("127.0.0.1", 0))
        bench = train(scene, f"ftp://me:hunter2@127.0.0.1:{closed.getsockname()[1]}/kept")
    printed = "".join(one.printed for one in told(bench).values())
    assert printed.count("No checkpoints: checkpoints at ftp://***@127.0.0.1") == 1
    assert "hunter2" not in printed
    assert_as_without(bench, without)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("ftp://me:hunter2@127.0.0.1:{port}/kept", "cannot be opened: no answer within 4 s"),
        ("s3://bucket/kept", "s3://bucket/kept are not used: no answer within 4 s"),
    ],
    ids=["opening", "looking up"],
)
def test_a_place_that_never_answers_costs_no_result(
    scene: Scene, without: Results, place: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server accepts connections and never answers: FTP waits at opening, S3 at the look-up."""
    if place.startswith("s3"):
        pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for name, value in {
            "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "FSSPEC_S3_KEY": "me",
            "FSSPEC_S3_SECRET": "hunter2",
        }.items():
            monkeypatch.setenv(name, value)
        bench = train(scene, place.format(port=port))
    printed = "".join(one.printed for one in told(bench).values())
    assert printed.count(words) == 1
    assert "hunter2" not in printed
    assert_as_without(bench, without)


def test_with_a_sound_place_the_first_epochs_are_reused(scene: Scene, without: Results) -> None:
    """The scene works: if checkpoints can be written, they are used."""
    bench = train(scene, str(scene.folder / "checkpoints"))
    reused = sorted(row.epoch for row in bench.rows(t.epoch) if row.reused)
    assert reused == list(range(1, EPOCHS[0] + 1))
    assert scene.trained() == EPOCHS[1]
    assert_as_without(bench, without)


@pytest.mark.parametrize(("keep", "waits"), [("auto", True), ("none", False)])
def test_nothing_is_waited_for_where_nothing_is_kept(scene: Scene, keep: str, waits: bool) -> None:
    """If ended trials leave no checkpoint, no trial waits for a peer's epochs."""
    bench = scene.launch("kept", space={"epochs": list(EPOCHS)}, checkpoints={"keep": keep})
    one = replace(bench.worker(), marks=marks)
    assert (one.sharing is not None) is waits
