"""Paths as browsers request them: below the base path of the dashboard, if any.

Inside the dashboard, every path starts at its own root. The guard strips the base from a request's
path and stores it here; `below` adds it to every path in a page, a header or a redirect. It is a
context variable because one process may serve several dashboards; threads that handle a request
inherit it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import Scope

from tuner.errors import UserError

BASE = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._~-]*)+")
"""Characters that need no escaping; no `..`, which browsers resolve."""

_base: ContextVar[str] = ContextVar("base", default="")


def checked_base(text: str) -> str:
    """Check a base path from the command line; "" or "/" for none."""
    base = text.rstrip("/")
    if base and BASE.fullmatch(base) is None:
        raise UserError(
            f"--base-path {text} is not a path such as /tuner: use letters, digits and . _ ~ - "
            "after each slash."
        )
    return base


def below(path: str) -> str:
    """Return a path of the dashboard as a browser must request it."""
    return _base.get() + path


@contextmanager
def serving_below(base: str) -> Iterator[None]:
    """Make `below` use this base."""
    token = _base.set(base)
    try:
        yield
    finally:
        _base.reset(token)


def without_base(scope: Scope, base: str) -> Scope | None:
    """Return a request with the base stripped from its path; None if it is not below the base."""
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
