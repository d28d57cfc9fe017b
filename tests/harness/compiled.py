"""Statements that are compiled once for all databases of a test process.

SQLAlchemy keeps them per engine. Every test has its own database, so it makes an engine or two,
which would compile the same few hundred statements again, in a seventh of the test's time.
"""

import functools
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.util import LRUCache

MOST = 5000


def share() -> None:
    """From now on, all engines of this process share what they compile."""
    start: Callable[..., None] = sa.Engine.__init__
    statements: LRUCache[Any, Any] = LRUCache(MOST)

    @functools.wraps(start)
    def shared(self: sa.Engine, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        if self._compiled_cache is not None:
            self._compiled_cache = _Compiled(statements)  # type: ignore[assignment]

    sa.Engine.__init__ = shared  # type: ignore[method-assign]


class _Compiled:
    """An engine's cache, whose keys name its dialect by what it compiles, not by its object."""

    def __init__(self, statements: "LRUCache[Any, Any]") -> None:
        self._statements = statements

    def get(self, key: tuple[Any, ...]) -> Any:
        return self._statements.get((_manner(key[0]), *key[1:]))

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        self._statements[(_manner(key[0]), *key[1:])] = compiled


def _manner(dialect: Dialect) -> tuple[object, ...]:
    """Return what decides how a dialect compiles statements and reads results."""
    names = ("server_version_info", "executemany_mode", "_json_serializer", "_json_deserializer")
    return type(dialect), *(getattr(dialect, name, None) for name in names)
