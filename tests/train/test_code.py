"""Which code trains: determined in a lab's own library, as real processes load it."""

import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.train.blobs import DATA, DECLARATIONS, Blobs, blob_job, write_objective
from tuner.train.objective import source_fingerprint

REPOSITORY = Path(__file__).resolve().parents[2]

MODELS = """
{imports}

def build(parameters, inputs, outputs):
    {lazily}
    return {network}
"""

NETS = """
from .blocks import activation


class TinyNet:
    def __init__(self, pixels, hidden, outputs):
        self.layers = [(pixels, hidden), activation(), (hidden, outputs)]
"""

BLOCKS = """
def activation():
    return "ReLU"
"""

TINY = "TinyNet(inputs[0] * inputs[1] * inputs[2], parameters['hidden'], outputs)"


class Lab:
    """An objective, and a library `mylab` beside it that is not installed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.library = place / "lib"
        write(self.library / "mylab" / "__init__.py", "")
        write(self.library / "mylab" / "nets.py", NETS)
        write(self.library / "mylab" / "blocks.py", BLOCKS)
        write(self.library / "mylab" / "plots.py", "COLOUR = 'red'\n")
        self.write_models(imports="from mylab.nets import TinyNet")

    def write_models(self, imports: str = "", lazily: str = "", network: str = TINY) -> None:
        """Write the objective with a model that imports the library in some way."""
        shutil.rmtree(self.place / "objectives", ignore_errors=True)
        models = MODELS.format(imports=imports, lazily=lazily or "pass", network=network)
        write_objective(self.place / "objectives" / "blobs", DECLARATIONS, DATA, models)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file of the library."""
        path = self.library / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def run(self, *steps: str, **environ: str) -> list[dict[str, Any]]:
        """Take steps in a separate process; return the report after each trial."""
        path = os.pathsep.join([str(self.library), str(REPOSITORY)])
        done = subprocess.run(
            [sys.executable, "-m", "tests.train.code_process", str(self.place), *steps],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": path, **environ},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def begin(self, **environ: str) -> dict[str, Any]:
        """Begin one trial in a fresh process."""
        return self.run("begin:8", **environ)[0]


def write(path: Path, text: str) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Make a lab."""
    return Lab(tmp_path / "here")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """Return the files in which two trials differ."""
    return {name for name, _ in {*one["files"].items()} ^ {*other["files"].items()}}


def test_a_library_that_is_imported_is_part_of_the_key(lab: Lab) -> None:
    """A change two imports away gives other keys; one in a file that is not imported does not."""
    before = lab.begin()
    assert {"mylab/__init__.py", "mylab/nets.py", "mylab/blocks.py"} < set(before["files"])
    assert "mylab/plots.py" not in before["files"]
    assert before["doubts"] == []
    lab.edit("mylab/plots.py", "red", "blue")
    assert lab.begin() == before
    lab.edit("mylab/blocks.py", "ReLU", "Sigmoid")
    after = lab.begin()
    assert differing(before, after) == {"mylab/blocks.py"}
    assert after["key"] != before["key"]


def test_equal_code_elsewhere_is_equal(lab: Lab, tmp_path: Path) -> None:
    """Paths do not identify code: another machine with the same files agrees."""
    shutil.copytree(lab.place, tmp_path / "there", ignore=shutil.ignore_patterns("__pycache__"))
    other = Lab.__new__(Lab)
    other.place, other.library = tmp_path / "there", tmp_path / "there" / "lib"
    assert other.begin() == lab.begin()


WAYS = {
    "inside build": ("", "from mylab.nets import TinyNet", TINY),
    "the package": ("import mylab", "import mylab.nets", f"mylab.nets.{TINY}"),
    "by a computed name": (
        "import importlib",
        "kind = 'nets'; nets = importlib.import_module(f'mylab.{kind}')",
        f"nets.{TINY}",
    ),
    "after a change of sys.path": (
        "import os, sys; sys.path.insert(0, os.environ['LIBRARY']); from mylab.nets import TinyNet",
        "",
        TINY,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_of_importing_does_not_matter(lab: Lab, way: str) -> None:
    """Imports may be lazy, by a computed name, or from a folder that the objective adds."""
    imports, lazily, network = WAYS[way]
    lab.write_models(imports, lazily, network)
    hidden = lab.place / "hidden"
    if "LIBRARY" in imports:
        lab.library = lab.library.rename(hidden)
    environ = {
        "LIBRARY": str(hidden),
        **({"PYTHONPATH": str(REPOSITORY)} if hidden.exists() else {}),
    }
    before = lab.begin(**environ)
    assert "mylab/blocks.py" in before["files"]
    assert before["doubts"] == []
    lab.edit("mylab/blocks.py", "ReLU", "Sigmoid")
    assert lab.begin(**environ)["key"] != before["key"]


def test_what_a_process_trained_before_does_not_matter(lab: Lab) -> None:
    """A warm trainer identifies a trial's code like a fresh one."""
    lab.write_models(
        "",
        "from importlib import import_module\n"
        "    name = 'nets' if parameters['hidden'] > 4 else 'small'\n"
        "    TinyNet = import_module(f'mylab.{name}').TinyNet",
    )
    write(lab.library / "mylab" / "small.py", NETS)
    warm = lab.run("begin:2", "begin:8", "begin:2")
    assert warm[1] == lab.begin()
    assert warm[0] == warm[2]


def test_code_edited_under_a_running_process_is_what_was_loaded(lab: Lab) -> None:
    """A warm process runs and identifies its loaded code; files loaded later count as of then."""
    edit = "edit:lib/mylab/blocks.py:ReLU:Sigmoid"
    before, after = lab.run("begin:8", edit, "begin:8")
    assert after == before
    assert lab.begin() != before
    lab.write_models("", "from mylab.nets import TinyNet")
    lab.edit("mylab/blocks.py", "Sigmoid", "ReLU")
    lazily = lab.run("begin:8", edit, "begin:8", "edit:lib/mylab/blocks.py:Sigmoid:ReLU", "begin:8")
    assert [differing(lazily[0], one) for one in lazily] == [set(), set(), set()]


def test_a_stale_pyc_is_not_taken_for_its_source(lab: Lab) -> None:
    """A .pyc of equal size and date is loaded unchecked, so the code counts as unknown."""
    lab.begin()
    path = lab.library / "mylab" / "blocks.py"
    dated = path.stat()
    lab.edit("mylab/blocks.py", "ReLU", "GELU")
    os.utime(path, ns=(dated.st_atime_ns, dated.st_mtime_ns))
    assert lab.begin()["doubts"] == ["mylab/blocks.py is not what was loaded from it"]


def test_code_without_its_source_is_a_doubt(lab: Lab) -> None:
    """A module from a .pyc, an archive, a text or a path counts as unknown."""
    path = lab.library / "mylab" / "blocks.py"
    py_compile.compile(str(path), cfile=str(path.with_suffix(".pyc")), doraise=True)
    source = path.read_text()
    path.unlink()
    (told,) = lab.begin()["doubts"]
    assert "mylab.blocks has no source file" in told
    path.with_suffix(".pyc").unlink()
    write(path, source)
    lab.write_models(f"TEXT = {NETS.replace('from .', 'from mylab.')!r}", "exec(TEXT, globals())")
    assert "blobs/models.py executes a text as code" in lab.begin()["doubts"]
    write(lab.place / "loose.py", NETS.replace("from .", "from mylab."))
    lab.write_models(
        "import importlib.util as util",
        f"spec = util.spec_from_file_location('loose', {str(lab.place / 'loose.py')!r})\n"
        "    loose = util.module_from_spec(spec); spec.loader.exec_module(loose)",
        f"loose.{TINY}",
    )
    assert "here/loose.py is loaded by a name that is computed" in lab.begin()["doubts"]
    archive = lab.place / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("packed/__init__.py", "NAME = 1\n")
    lab.write_models(
        f"import sys; sys.path.append({str(archive)!r})\nimport packed\n"
        "from mylab.nets import TinyNet"
    )
    (told,) = lab.begin()["doubts"]
    assert "packed has no source file" in told


def test_compiled_modules_outside_installed_packages_are_a_doubt(lab: Lab) -> None:
    """The source of a lab's own compiled module is unknown."""
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    found = [it for at in sys.path for it in Path(at).glob("numpy/_core/_multiarray_umath*.so")]
    if not found:
        pytest.skip("no extension module at hand to copy")
    shutil.copy(found[0], lab.library / "mylab" / f"fast{suffix}")
    lab.write_models(
        "from mylab.nets import TinyNet\ntry:\n    import mylab.fast\nexcept ImportError:\n    pass"
    )
    assert any("mylab.fast" in told for told in lab.begin()["doubts"])


def test_an_installed_package_counts_by_its_version(lab: Lab) -> None:
    """Another version of an installed package that is imported gives other keys."""
    site = lab.place / "site-packages"
    lab.library.rename(site)
    lab.library = site
    info = site / "mylab-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
    before = lab.begin()
    assert before["packages"] == {"mylab": "1.0"}
    assert all(name.startswith("blobs/") for name in before["files"])
    write(info / "METADATA", "Metadata-Version: 2.1\nName: mylab\nVersion: 1.1\n")
    after = lab.begin()
    assert after["packages"] == {"mylab": "1.1"}
    assert after["key"] != before["key"]
    shutil.rmtree(info)
    assert "mylab/blocks.py" in lab.begin()["files"], "a copy that nothing describes: its source"


def test_the_checkpoint_key_is_of_this_code(blobs: Blobs) -> None:
    """The code in a checkpoint's key is the code identified here."""
    bench, job = blobs.workbench(), blob_job()
    assert bench.base(job).source == source_fingerprint(bench.found(job))
    assert set(bench.code(job).files) == {"blobs/__init__.py", "blobs/data.py", "blobs/models.py"}
