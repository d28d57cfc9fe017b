"""Package faces: exported names are their modules', and no module hides a name."""

import ast
import importlib
from pathlib import Path

import pytest

import tuner


@pytest.mark.parametrize("room", ["pictures", "results", "statistics"])
def test_a_face_gives_what_it_declares(room: str) -> None:
    """Every exported name is its module's, and none is a module's name, which would hide it."""
    folder = Path(tuner.__file__).parent / room
    modules = {path.stem for path in folder.glob("*.py")}
    package = importlib.import_module(f"tuner.{room}")
    declared = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse((folder / "__init__.py").read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"tuner.{room}.")
        for alias in node.names
    ]
    assert declared
    for module, name in declared:
        assert name not in modules
        assert getattr(package, name) is getattr(importlib.import_module(str(module)), name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


ROOT = Path(tuner.__file__).parent
ANSWERS = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
    for path in (ROOT / "answers").rglob("*.py")
    if path.stem != "__init__"
}
"""The modules of answers by their names."""


def used(path: Path) -> set[tuple[str, str]]:
    """Return the names that a file imports from modules of answers, each with its module."""
    tree = ast.parse(path.read_text("utf-8"))
    found: set[tuple[str, str]] = set()
    called: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
            "tuner.answers"
        ):
            continue
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            if module in ANSWERS:
                called[alias.asname or alias.name] = module
            elif node.module in ANSWERS:
                found.add((str(node.module), alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = called.get(node.value.id, "")
            if module:
                found.add((module, node.attr))
    return found


def test_other_rooms_use_of_an_answer_what_it_lists() -> None:
    """Each module of answers is a face: its __all__ lists what other rooms may use."""
    listed = {
        (module, name)
        for module in ANSWERS
        for name in getattr(importlib.import_module(module), "__all__", ())
    }
    others = [path for path in ROOT.rglob("*.py") if ROOT / "answers" not in path.parents]
    taken = {pair for path in others for pair in used(path)}
    assert taken
    assert taken - listed == set(), "add these to the __all__ of their module, or use another name"
    # No unused name stays in a list; templates use words by their names, too.
    templates = "".join(path.read_text("utf-8") for path in ROOT.rglob("*.j2"))
    unused = {(module, name) for module, name in listed - taken if f"words.{name}" not in templates}
    assert unused == set()
