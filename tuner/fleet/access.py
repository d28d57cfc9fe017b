"""How workers on other machines reach the database: public variables, and the password."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.errors import UserError
from tuner.settings import Settings, portable_environment
from tuner.store.address import SECRET_OPTIONS, Address, of_server


@dataclass(frozen=True)
class DatabaseAccess:
    """What a worker needs to connect; the engine decides how to transfer the password."""

    environment: Mapping[str, str]
    """Without secrets, because batch scripts, manifests and engines' web pages may show it."""
    password: str | None = field(default=None, repr=False)
    """None if the server asks for none, or if libpq's password file has it."""


def access(settings: Settings) -> DatabaseAccess:
    """Return how to reach the database of these settings from another machine."""
    portable = portable_environment(settings)
    address = of_server(settings)
    password = address.parameters.get("password", portable.libpq_password)
    others = sorted(SECRET_OPTIONS & address.parameters.keys() - {"password"})
    if others:
        raise UserError(
            f"The database address contains {', '.join(others)}, which cannot be sent to other "
            "machines without being seen there. Use a password or a client key without one."
        )
    environment = dict(portable.variables)
    if settings.database_url is not None:
        kept = {key: value for key, value in address.parameters.items() if key != "password"}
        environment["TUNER_DATABASE_URL"] = Address(kept).url(show_password=True)
    return DatabaseAccess(environment, password)
