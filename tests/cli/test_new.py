"""`tuner new`: its files run unchanged, and nothing that exists is overwritten."""

import py_compile
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.conftest import Project
from tuner.cli import starters
from tuner.cli.main import cli, run
from tuner.cli.options import StudyFile
from tuner.errors import MachineError
from tuner.spec.study_ref import StudyRef

TEMPLATES = sorted(
    path for path in starters.TEMPLATES.rglob("*.*") if path.parent.name != "__pycache__"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def new(*words: str, code: int = 0) -> str:
    """Run `tuner new`, check its exit code, and return its output or its error."""
    result: Result = CliRunner().invoke(cli, ["new", *words])
    told = f"{result.output}{result.exception or ''}"
    assert (result.exit_code == 0) == (code == 0), told
    return told


def files(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its text."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in found}


def test_a_new_objective_runs_as_it_is(project: Project) -> None:
    """Two commands after `new objective`, its study is complete and has learnt something."""
    out = project.run("new", "objective", "leaves")
    commands = [line.split("#")[0].split()[1:] for line in out.splitlines() if "  tuner" in line]
    assert commands == [["run", "leaves"], ["launch", "leaves"]]
    assert "test acc" in project.run(*commands[0])
    project.run(*commands[1], "--workers", "1")
    best = project.json("table", "leaves", "--json")["best"]
    assert len(best) == 9
    assert best[0]["test_acc"] > 0.7


def test_a_new_study_runs_as_it_is(project: Project) -> None:
    """A new study of an existing objective is valid and trains."""
    out = project.run("new", "study", "second-one", "--objective", "blobs")
    assert "tuner launch second-one" in out
    assert "9 trials" in project.run("validate", "second-one")
    assert "test acc" in project.run("run", "second-one", "--device", "cpu")


def test_a_study_file_lists_what_may_be_set(folder: Path) -> None:
    """A new study file lists each key of the objective as a comment that can be enabled."""
    new("study", "mine", "--objective", "digits")
    path = folder / "studies" / "mine.toml"
    text = path.read_text("utf-8")
    assert max(map(len, text.splitlines())) <= 100
    taken = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# split_")]
    assert len(taken) == 1
    path.write_text(text + taken[0].replace("= 0", "= 4") + "\n", "utf-8")
    assert StudyFile.find(StudyRef("mine")).read().data["split_seed"] == 4
    for name in ("depth", "dropout", "model", "val_fraction"):
        assert f"# {name} = " in text


def test_what_exists_is_never_overwritten(folder: Path) -> None:
    """If one file exists, none is written; all existing files are named."""
    (folder / "studies").mkdir()
    (folder / "studies" / "leaves.toml").write_text("mine")
    told = new("objective", "leaves", code=2)
    assert "studies/leaves.toml already exists" in told
    assert files(folder) == {"studies/leaves.toml": "mine"}
    (folder / "studies" / "leaves.toml").unlink()
    new("objective", "leaves")
    before = files(folder)
    told = new("objective", "leaves", code=2)
    assert all(name in told for name in before)
    assert "studies/leaves.toml" in new("study", "leaves", code=2)
    assert files(folder) == before


def test_all_files_are_written_or_none(folder: Path) -> None:
    """If the last file cannot be written, the first ones are removed again."""
    (folder / "studies").write_text("a file where a folder should be")
    with pytest.raises(MachineError, match="cannot be written"):
        starters.write_new({Path("objectives/leaves/data.py"): "", Path("studies/leaves.toml"): ""})
    assert files(folder) == {"studies": "a file where a folder should be"}
    assert not (folder / "objectives" / "leaves").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("objective", "Leaves"), "a lower-case letter, then lower-case letters, digits and _"),
        (("objective", "two-words"), "cannot be the name of an objective"),
        (("objective", "../up"), "cannot be the name of an objective"),
        (("objective", "a" * 64), "at most 63"),
        (("study", "lr@2"), "cannot be the name of a study"),
        (("study", "lr_sched"), "comes with tuner"),
        (("objective", "digits"), "comes with tuner"),
        (("study", "mine", "--objective", "chest_xry"), "Did you mean chest_xray"),
        (("study", "mine", "--objective", "../up"), "cannot be the name of an objective"),
    ],
    ids=str,
)
def test_names_that_will_not_do_are_told(folder: Path, words: tuple[str, ...], told: str) -> None:
    """An unusable name is refused with what is allowed; nothing is written."""
    assert told in new(*words, code=2)
    assert files(folder) == {}


def test_a_refusal_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad name is the user's error: exit code 2, no traceback."""
    assert run(["new", "objective", "No"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_are_whole_files(path: Path, tmp_path: Path) -> None:
    """Each template compiles or parses unchanged."""
    if path.suffix == ".py":
        py_compile.compile(str(path), str(tmp_path / "compiled"), doraise=True)
    else:
        assert tomllib.loads(path.read_text("utf-8"))["study"]["name"] == starters.STUDY


def test_templates_are_where_the_package_is() -> None:
    """The templates are part of the installed package."""
    names = {path.relative_to(starters.TEMPLATES).as_posix() for path in TEMPLATES}
    assert names >= {"study.toml", *(f"objective/{name}" for name in starters.MODULES)}
    assert starters.TEMPLATES.is_relative_to(Path(starters.__file__).parents[1])


def test_no_name_of_a_template_is_left(folder: Path) -> None:
    """Written files contain the given name, and none of the template's."""
    new("objective", "leaves")
    text = "".join(files(folder).values())
    assert starters.OBJECTIVE not in text
    assert starters.STUDY not in text
    assert "#:" not in text
