"""The engines by name, each loaded when it is first used."""

import importlib

from tuner.errors import UserError
from tuner.fleet.contract import Engine
from tuner.names import meant

ENGINES = {"local": "tuner.fleet.local"}
"""The module of each engine; its `ENGINE` implements the contract."""
EXTRAS = {"ray": "ray", "kubernetes": "kubernetes"}
"""The extra of tuner that installs what an engine imports."""


def load(name: str) -> Engine:
    """Return an engine; raise a UserError if there is none, or if its package is missing."""
    if name not in ENGINES:
        raise UserError(
            f"There is no engine {name!r}.{meant(name, ENGINES)} Engines: {', '.join(ENGINES)}."
        )
    try:
        module = importlib.import_module(ENGINES[name])
    except ModuleNotFoundError as error:
        # Only a package that an extra brings may be missing; anything else is a fault of ours.
        if name not in EXTRAS or (error.name or "").startswith("tuner"):
            raise
        raise UserError(
            f"The engine {name} needs the package {error.name}, which is not installed here. "
            f"Install it with:  pip install 'tuner[{EXTRAS[name]}]'"
        ) from None
    engine: Engine = module.ENGINE
    return engine
