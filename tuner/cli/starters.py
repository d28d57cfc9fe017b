"""Starter files for an objective or a study, made from templates and written all or none."""

import contextlib
import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import MachineError, UserError

if TYPE_CHECKING:
    from tuner.spec.parameters import Declarations, Parameter

TEMPLATES = Path(__file__).parent / "templates"
OBJECTIVE, STUDY = "my_objective", "my_study"
"""The names in the templates, which are replaced."""
LINE = 100
"""The line width of the study file."""
MODULES = ("data.py", "models.py", "__init__.py")
"""The files of an objective; `__init__.py` is last, because it makes the objective visible."""


def objective_files(name: str) -> dict[Path, str]:
    """Return the files of an objective's package, by their path in the project's folder."""
    return {
        Path("objectives", name, module): _template("objective", module).replace(OBJECTIVE, name)
        for module in MODULES
    }


def study_file(name: str, objective: str, declared: "Declarations") -> dict[Path, str]:
    """Return a study file that lists everything that the objective lets a study set."""
    from tuner.spec.parameters import SHARED

    parameters = [
        parameter for parameter in declared.parameters.values() if parameter.name not in SHARED
    ]
    text = _template("study.toml").replace(STUDY, name).replace(OBJECTIVE, objective)
    text = text.replace("#: parameters\n", _listed(parameters))
    return {
        Path("studies", f"{name}.toml"): text.replace("#: data\n", _listed(declared.data.values()))
    }


def write_new(files: Mapping[Path, str]) -> None:
    """Write all files or none; existing files are never overwritten, but named in the error."""
    from tuner.files import write_output

    existing = [str(path) for path in files if path.exists() or path.is_symlink()]
    if existing:
        verb = "exists" if len(existing) == 1 else "exist"
        raise UserError(
            f"{', '.join(existing)} already {verb}; nothing was written. Choose another name, or "
            "move the existing files."
        )
    paths: list[Path] = []
    try:
        for path, text in files.items():
            paths.append(path)
            write_output(path, text)
    except UserError:
        # Somebody else created the last file after the check above; it is theirs.
        _take_back(paths[:-1])
        raise
    except (MachineError, KeyboardInterrupt):
        _take_back(paths)
        raise


def _take_back(paths: Iterable[Path]) -> None:
    for path in paths:
        # The file that failed does not exist; a folder that is not empty is not ours.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def _template(*parts: str) -> str:
    return TEMPLATES.joinpath(*parts).read_text(encoding="utf-8")


def _listed(parameters: "Iterable[Parameter]") -> str:
    listed: list[tuple[str, str]] = []
    for parameter in parameters:
        # JSON's strings, numbers and booleans are valid TOML.
        value = json.dumps(parameter.default, ensure_ascii=False)
        choices = f": {', '.join(parameter.choices)}" if parameter.kind == "choice" else ""
        listed.append((f"# {parameter.name} = {value}", parameter.meaning + choices))
    width = max((len(setting) for setting, _ in listed), default=0)
    lines: list[str] = []
    for setting, meaning in listed:
        wrapped = textwrap.wrap(meaning, LINE - width - len("  # "))
        lines.append(f"{setting:<{width}}  # {wrapped[0]}")
        lines += [f"{'#':<{width}}  # {rest}" for rest in wrapped[1:]]
    return "".join(f"{line}\n" for line in lines) or "# none\n"
