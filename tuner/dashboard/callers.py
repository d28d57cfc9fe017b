"""Who sent a request: a person with a session, a script with a token, or the server's owner."""

import hashlib
import hmac
from dataclasses import dataclass, field

from tuner.store.accounts import Role


@dataclass(frozen=True)
class Caller:
    """The authenticated sender of a request."""

    who: str
    """The name in events."""
    role: Role
    form_key: str = field(default="", repr=False)
    """The CSRF token of their forms; "" with an API token, which no browser sends on its own."""
    session: bool = False
    """Whether they have a session, and so can log out."""

    @property
    def acts(self) -> bool:
        """Whether they may change anything."""
        return self.role == "operator"


def form_key(secret: str) -> str:
    """Return the CSRF token of a session's forms, which no other site can know.

    It is derived from the session's secret, so it needs no storage, ends with the session, and is
    different in every session. The secret cannot be derived from it.
    """
    return hmac.new(secret.encode(), b"forms of the dashboard", hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
