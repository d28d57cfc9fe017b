"""Who asks: a person with a session, a script with a token, or the user who started the server."""

import hashlib
import hmac
from dataclasses import dataclass, field

from tuner.store.accounts import Role


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request, once that is known."""

    who: str
    """As histories name them."""
    role: Role
    form_key: str = field(default="", repr=False)
    """What forms of theirs carry; "" for a token, which no browser sends by itself."""
    session: bool = False
    """Whether they logged in, and so can log out."""

    @property
    def acts(self) -> bool:
        """Whether they may change something."""
        return self.role == "operator"


def form_key(secret: str) -> str:
    """Return what the forms of a session carry, so that no other site can send them.

    It follows from the session's secret, so it needs no storage, ends with the session, and is
    another one in every session. The secret does not follow from it.
    """
    return hmac.new(secret.encode(), b"forms of the dashboard", hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Compare two secrets in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())
