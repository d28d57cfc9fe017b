"""`tuner delete` and `tuner clean` if the checkpoint server never answers."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.specs import Bench, make_spec
from tuner.cli import main
from tuner.errors import EXIT_MACHINE, UnknownStudyError
from tuner.settings import Settings
from tuner.spec.study import Checkpoints
from tuner.store import studies
from tuner.store.database import Database


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"ftp://me:hunter2@127.0.0.1:{server.getsockname()[1]}/kept"


def run(patch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> int:
    """Run a command with a timeout of one second for checkpoints; return its exit code."""
    hasty = replace(settings, timing=replace(settings.timing, lookup=1.0))
    patch.setattr(main, "from_environment", lambda _: hasty)
    return main.run(list(arguments))


@pytest.mark.parametrize("own", [False, True], ids=["everybody's", "its own"])
def test_a_study_is_deleted_though_its_checkpoints_cannot_be(
    settings: Settings,
    database: Database,
    silent: str,
    own: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The study is deleted; the message names the checkpoints that stay and how to remove them."""
    spec = make_spec()
    if own:
        spec = replace(spec, checkpoints=Checkpoints(location=silent))
    else:
        settings = replace(settings, checkpoints=silent)
    bench = Bench.launch(database, spec)
    assert run(monkeypatch, settings, "delete", "small", "--yes") == EXIT_MACHINE
    out, err = capsys.readouterr()
    assert out == "small is deleted.\n"
    shown = silent.replace("me:hunter2", "***")
    assert f"checkpoints at {shown} cannot be reached: no answer within 1 s" in err
    place = f"TUNER_CHECKPOINTS='{shown}' " if own else ""
    assert f"with:  {place}tuner clean --foreign\n" in err
    with database.transaction() as connection, pytest.raises(UnknownStudyError):
        studies.find(connection, bench.study.ref)


def test_cleaning_goes_on_past_a_place_that_is_silent(
    settings: Settings,
    database: Database,
    silent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Reachable checkpoints are cleaned, the silent server is named, and the exit code is not 0."""
    near = tmp_path / "near"
    for name, place in (("far", silent), ("near", str(near))):
        spec = replace(make_spec(name), checkpoints=Checkpoints(location=place))
        Bench.launch(database, spec)
    assert run(monkeypatch, settings, "clean") == EXIT_MACHINE
    out, err = capsys.readouterr()
    assert f"{near}: freed 0 B" in out
    assert f"{settings.home / 'checkpoints'}: freed 0 B" in out
    assert err.startswith("Not cleaned: checkpoints at ftp://***@127.0.0.1:")
    assert "hunter2" not in out + err
