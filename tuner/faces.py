"""Faces of packages: the names that other rooms may use, loaded on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module


def face(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__` for the names of its modules that other rooms may use.

    `names` maps each module to its names, separated by spaces. So a command that prints rows does
    not load the modules that draw pictures or judge a race.
    """
    modules = {name: module for module, text in names.items() for name in text.split()}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return load
