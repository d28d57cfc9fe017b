"""Faces of packages: what other rooms may use, loaded when it is first used."""

from collections.abc import Callable, Mapping
from importlib import import_module


def face(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__` for the names that its modules give to other rooms.

    `names` has a text of names for each module. A command that prints rows then need not load what
    draws pictures or judges a race.
    """
    modules = {name: module for module, text in names.items() for name in text.split()}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return load
