"""Faces of packages: what a type checker sees is what is loaded, and no module hides a name."""

import ast
import importlib
from pathlib import Path

import pytest

import tuner


@pytest.mark.parametrize("room", ["pictures", "results", "statistics"])
def test_a_face_gives_what_it_declares(room: str) -> None:
    """Every declared name is its module's; none is a module's name, which would hide it."""
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
