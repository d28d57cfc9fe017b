"""Paths as browsers ask for them: below the one that the dashboard is served under, if any.

Inside the dashboard every path begins at its own root. The guard takes the base off a request's
path and says here which one it was; whatever is written into a page, a header or a redirect gets it
back by `below`. Several dashboards may live in one program, hence a context variable: threads that
answer a request inherit it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import Scope

from tuner.errors import UserError

BASE = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._~-]*)+")
"""What needs no escaping anywhere; no `..`, which browsers take for the way up."""

_base: ContextVar[str] = ContextVar("base", default="")


def checked_base(text: str) -> str:
    """Return a base path as it is given on the command line; "" or "/" for none."""
    base = text.rstrip("/")
    if base and BASE.fullmatch(base) is None:
        raise UserError(
            f"--base-path {text} is not a path such as /tuner: use letters, digits and . _ ~ - "
            "after each slash."
        )
    return base


def below(path: str) -> str:
    """Return a path of the dashboard as a browser has to ask for it."""
    return _base.get() + path


@contextmanager
def serving_below(base: str) -> Iterator[None]:
    """Have paths written for requests that came below a base."""
    token = _base.set(base)
    try:
        yield
    finally:
        _base.reset(token)


def without_base(scope: Scope, base: str) -> Scope | None:
    """Return a request with its path below a base; None for one that is not below it."""
    if not base:
        return scope
    path: str = scope["path"]
    if not path.startswith(f"{base}/"):
        return None
    raw: bytes = scope.get("raw_path") or b""
    inside = {**scope, "path": path.removeprefix(base)}
    if raw.startswith(base.encode()):
        inside["raw_path"] = raw.removeprefix(base.encode())
    return inside
