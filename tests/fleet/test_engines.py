"""Engines by name."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.scenery import Scene, Sizes
from tuner.cli.options import StudyFile
from tuner.errors import UserError
from tuner.fleet import engines
from tuner.settings import Settings


def test_every_engine_loads_and_bears_its_name() -> None:
    """Each engine in the registry can be loaded."""
    assert {engines.load(name).name for name in engines.ENGINES} == set(engines.ENGINES)


def test_an_unknown_engine_is_told_with_the_nearest() -> None:
    """An unknown engine is refused with the nearest name."""
    with pytest.raises(UserError, match="Did you mean local"):
        engines.load("locl")


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose package is not installed names the command that installs it."""
    monkeypatch.setitem(engines.ENGINES, "ray", "a_package_that_is_not_there")
    with pytest.raises(UserError, match=r"pip install 'tuner\[ray\]'"):
        engines.load("ray")


def test_the_embedded_database_serves_this_machine_only(tmp_path: Path) -> None:
    """Other engines are refused with three ways out; a server's database is not."""
    embedded = Settings(home=tmp_path)
    with pytest.raises(UserError, match=r"(?s)three ways out.*--database URL.*db dump.*--on"):
        engines.refuse_embedded(embedded, "slurm")
    engines.refuse_embedded(embedded, "local")
    engines.refuse_embedded(replace(embedded, database_url="postgresql://me@there/x"), "slurm")


def test_the_table_of_an_engine_is_no_part_of_the_study(scene: Scene) -> None:
    """[fleet.slurm] is passed to Slurm, and does not change the study."""
    plain = scene.spec(Sizes())
    path = scene.folder / "studies" / "small.toml"
    path.write_text(path.read_text() + '\n[fleet.slurm]\npartition = "gpu"\ngpus = 1\n')
    assert scene.read(path) == plain
    file = StudyFile(path, ())
    assert file.engine_options("slurm") == {"partition": "gpu", "gpus": 1}
    assert file.engine_options("local") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fleet.slrum]", "no engine 'slrum'. Did you mean slurm"),
        ("fleet = 3", r"expected \[fleet.local\]"),
        ("[fleet]\nslurm = 3", r"expected \[fleet.slurm\]"),
    ],
)
def test_a_table_of_no_engine_is_told(tmp_path: Path, text: str, words: str) -> None:
    """A table of a misspelt engine is refused."""
    path = tmp_path / "small.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        StudyFile(path, ()).engine_options("local")
