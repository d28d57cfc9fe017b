"""The engines by name, each loaded when it is first used."""

import importlib

from tuner.errors import UserError
from tuner.fleet.contract import Engine
from tuner.names import meant
from tuner.settings import Settings

ENGINES = {
    "kubernetes": "tuner.fleet.kubernetes",
    "local": "tuner.fleet.local",
    "ray": "tuner.fleet.ray",
    "slurm": "tuner.fleet.slurm",
}
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
        # Only an extra's package may be missing; any other failed import is a bug of ours.
        if name not in EXTRAS or (error.name or "").startswith("tuner"):
            raise
        raise UserError(
            f"The engine {name} needs the package {error.name}, which is not installed here. "
            f"Install it with:  pip install 'tuner[{EXTRAS[name]}]'"
        ) from None
    engine: Engine = module.ENGINE
    return engine


def refuse_embedded(settings: Settings, name: str) -> None:
    """Refuse an engine on other machines for a database that only this one can reach."""
    if name == "local" or not settings.embedded:
        return
    raise UserError(
        f"Workers on {name} cannot reach the embedded database in {settings.home}: it serves this "
        "machine only. There are three ways out:\n"
        "  1. Use a PostgreSQL server that the workers reach: --database URL, or "
        "TUNER_DATABASE_URL.\n"
        "  2. Move the stored studies to one: `tuner db dump` here, then `tuner db restore` with "
        "--database URL.\n"
        "  3. Train on this machine: leave out --on."
    )
