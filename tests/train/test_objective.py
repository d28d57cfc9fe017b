"""Objectives are found by name, in order, without collisions and without torch."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.train.blobs import Blobs, write_objective
from tuner.errors import DataError, ObjectiveError
from tuner.train.objective import find, source_fingerprint
from tuner.train.places import shipped_folder

DECLARED = """
from tuner.spec.parameters import Parameter
from tuner.train.objective import Objective
from .naming import NAME
OBJECTIVE = Objective(parameters=[Parameter(NAME, "int", 1, "a test's parameter")])
"""


def place(folder: Path, name: str, parameter: str) -> Path:
    """Write an objective whose single parameter has the given name."""
    write_objective(folder / name, DECLARED, f"def load(*_):\n    raise OSError({parameter!r})\n")
    (folder / name / "naming.py").write_text(f"NAME = {parameter!r}\n")
    return folder


def test_the_first_folder_wins(tmp_path: Path) -> None:
    """Folders are searched in the order given."""
    first, second = place(tmp_path / "a", "same", "one"), place(tmp_path / "b", "same", "two")
    assert "one" in find("same", [first, second]).objective.declarations().parameters
    assert "two" in find("same", [second, first]).objective.declarations().parameters


def test_two_objectives_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Each keeps its own submodules, even those loaded later."""
    one = find("same", [place(tmp_path / "a", "same", "one")])
    two = find("same", [place(tmp_path / "b", "same", "two")])
    assert one.module != two.module
    for found, name in ((one, "one"), (two, "two")):
        with pytest.raises(
            ObjectiveError, match=f"load.. in .*data.py, line 2 failed: OSError: {name}"
        ):
            found.load_data({}, tmp_path, lambda *_: None)


def test_a_library_beside_the_objectives_is_imported_and_shadows_nothing(tmp_path: Path) -> None:
    """A library beside the folder `objectives` can be imported, but after everything else."""
    lines = "import library_of_this_test as lab\nOBJECTIVE = lab.OBJECTIVE\n"
    (tmp_path / "library_of_this_test.py").write_text(
        "import graphlib\n"
        + DECLARED.replace("from .naming import NAME", "NAME = 'mine'")
        + "assert hasattr(graphlib, 'TopologicalSorter'), 'a file beside it was taken'\n"
    )
    (tmp_path / "graphlib.py").write_text("")
    write_objective(tmp_path / "objectives" / "lab", lines)
    found = find("lab", [tmp_path / "objectives"])
    assert "mine" in found.objective.declarations().parameters
    assert sys.path[-1] == str(tmp_path)
    sys.path.remove(str(tmp_path))


def test_a_folder_s_objective_comes_before_the_shipped_one(tmp_path: Path) -> None:
    """A user's own chest_xray is used instead of the shipped one."""
    own = place(tmp_path, "chest_xray", "mine")
    assert find("chest_xray", [own]).folder == (own / "chest_xray").resolve()
    assert find("chest_xray", []).folder == shipped_folder() / "chest_xray"


def test_an_unknown_name_is_told_with_the_nearest_and_the_folders(tmp_path: Path) -> None:
    """The error suggests the nearest name and lists the folders searched."""
    with pytest.raises(ObjectiveError) as caught:
        find("chest_xrai", [tmp_path])
    assert "Did you mean chest_xray?" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ObjectiveError, match=r"Known: .*chest_xray"):
        find("zzz", [tmp_path])


@pytest.mark.parametrize("name", ["../evil", "/etc", "a.b", "", "a/b", "1st"])
def test_a_name_is_never_a_path(name: str, tmp_path: Path) -> None:
    """A name from a database cannot lead outside the folders."""
    place(tmp_path, "evil", "x")
    with pytest.raises(ObjectiveError, match="cannot be the name"):
        find(name, [tmp_path / "inner"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "does not define OBJECTIVE"),
        ("OBJECTIVE = 3", "has something else as OBJECTIVE"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("x = (", "SyntaxError"),
    ],
)
def test_a_broken_package_is_named(source: str, message: str, tmp_path: Path) -> None:
    """The error names the file and its error, at every look-up."""
    write_objective(tmp_path / "broken", source)
    for _ in range(2):
        with pytest.raises(ObjectiveError, match=message) as caught:
            find("broken", [tmp_path])
        assert str(tmp_path / "broken" / "__init__.py") in str(caught.value)


def test_a_mended_package_is_read_anew(tmp_path: Path) -> None:
    """A failed import leaves nothing behind that hides the fixed file."""
    write_objective(tmp_path / "half", "from . import naming\nraise ValueError('not yet')")
    (tmp_path / "half" / "naming.py").write_text("NAME = 'x'\n")
    with pytest.raises(ObjectiveError, match="not yet"):
        find("half", [tmp_path])
    (tmp_path / "half" / "__init__.py").write_text(DECLARED + "# mended\n")
    assert "x" in find("half", [tmp_path]).objective.declarations().parameters


def test_faults_of_the_submodules_are_the_objective_s(tmp_path: Path) -> None:
    """A missing function, a wrong return value and a missing file are distinguished."""
    declared = "from tuner.train.objective import Objective\nOBJECTIVE = Objective()"
    write_objective(tmp_path / "poor", declared, "def load(*_):\n    return 3\n", "x = 1")
    found = find("poor", [tmp_path])
    with pytest.raises(ObjectiveError, match=r"data.py returned int; it must return"):
        found.load_data({}, tmp_path, lambda *_: None)
    with pytest.raises(ObjectiveError, match=r"models.py has no build\(\)"):
        found.build_model({}, (1, 2, 2), 1)
    write_objective(tmp_path / "poorer", declared)
    (tmp_path / "poorer" / "data.py").unlink()
    with pytest.raises(ObjectiveError, match=r"cannot be imported from .*data.py"):
        find("poorer", [tmp_path]).load_data({}, tmp_path, lambda *_: None)


def test_an_error_names_the_line_of_the_objective(tmp_path: Path) -> None:
    """The error names the line in build()'s own files, however deep in a library it was raised."""
    declared = "from tuner.train.objective import Objective\nOBJECTIVE = Objective()"
    models = "from . import parts\n\n\ndef build(*_):\n    return parts.first(-1)\n"
    write_objective(tmp_path / "deep", declared, "", models)
    parts = "from torch import nn\n\n\ndef first(size):\n    return nn.Linear(size, 2)\n"
    (tmp_path / "deep" / "parts.py").write_text(parts)
    with pytest.raises(ObjectiveError) as told:
        find("deep", [tmp_path]).build_model({}, (1, 2, 2), 1)
    assert "models.py (parts.py, line 5) failed: RuntimeError" in str(told.value)


@pytest.mark.parametrize(
    ("models", "line", "mended"),
    [
        ("import os\nimport no_such_library.inner\n", 2, "Install no_such_library into"),
        ("import own_layers\n", 1, "write `from . import own_layers`"),
        ("from own_layers import first\n", 1, "write `from . import own_layers`"),
        ("from . import nothing\n", 1, "cannot import name 'nothing'"),
        ("\n1 / 0\n", 2, "ZeroDivisionError"),
    ],
)
def test_an_import_that_fails_says_where_and_how_to_mend_it(
    models: str, line: int, mended: str, tmp_path: Path
) -> None:
    """A library that is not installed, and a file beside it imported as if installed."""
    declared = "from tuner.train.objective import Objective\nOBJECTIVE = Objective()"
    write_objective(tmp_path / "objectives" / "lone", declared, "", models)
    (tmp_path / "objectives" / "lone" / "own_layers.py").write_text("first = 1\n")
    with pytest.raises(ObjectiveError) as told:
        find("lone", [tmp_path / "objectives"]).build_model({}, (1, 2, 2), 1)
    assert f"models.py, line {line}: " in str(told.value)
    assert mended in str(told.value)


def test_a_data_error_stays_a_data_error(tmp_path: Path) -> None:
    """A DataError raised by an objective is not wrapped."""
    declared = "from tuner.train.objective import Objective\nOBJECTIVE = Objective()"
    load = "from tuner.errors import DataError\ndef load(*_):\n    raise DataError('no images')\n"
    write_objective(tmp_path / "empty", declared, load)
    with pytest.raises(DataError, match="no images"):
        find("empty", [tmp_path]).load_data({}, tmp_path, lambda *_: None)


def test_installed_packages_offer_objectives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point of the group tuner.objectives is found, after all folders."""
    place(tmp_path, "offered_by_a_package", "offered")
    metadata = tmp_path / "offering-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[tuner.objectives]\noffer = offered_by_a_package\ngone = no_such_package_here\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert version("offering") == "1.0"
    assert "offered" in find("offer", []).objective.declarations().parameters
    with pytest.raises(ObjectiveError, match="reinstall it"):
        find("gone", [])


def test_finding_an_objective_loads_no_torch(blobs: Blobs) -> None:
    """The supervisor and the command line can import objectives without torch."""
    code = (
        "import sys; from pathlib import Path; from tuner.train.objective import find;"
        "find('blobs', [Path(sys.argv[1])]); find('chest_xray', []);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(blobs.folder)], check=False)
    assert done.returncode == 0


def test_the_fingerprint_follows_the_source(tmp_path: Path) -> None:
    """Editing, adding or renaming a source file changes the fingerprint; the path does not."""
    folders = [place(tmp_path / name, "same", "one") for name in "abcd"]
    (folders[2] / "same" / "naming.py").write_text("NAME = 'two'\n")
    (folders[3] / "same" / "further.py").write_text("")
    one, elsewhere, edited, added = (source_fingerprint(find("same", [it])) for it in folders)
    assert one == elsewhere
    assert len({one, edited, added}) == 3
