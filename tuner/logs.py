"""Log records as JSON, with their context; keeping secrets out of logs."""

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")

_subject: dict[str, Any] = {}
"""What this process is working on. Not a context variable, because the threads that renew leases
and free disk space log about the same study."""
_secrets: set[str] = set()


@contextmanager
def about(study: str, worker: int) -> Iterator[None]:
    """Add a study and a worker to this process's records while it works on them."""
    _subject.update(study=study, worker=worker)
    try:
        yield
    finally:
        _subject.clear()


def hide(secret: str) -> None:
    """Replace this text by *** in logs."""
    if secret:
        _secrets.add(secret)


def without_secrets(text: str) -> str:
    """Return a log message without this process's secrets."""
    for secret in tuple(_secrets):
        text = text.replace(secret, "***")
    return text


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line, in ASCII."""

    def __init__(self) -> None:
        super().__init__()
        self._host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON; keys without a value are left out."""
        fields: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage().strip(),
            **_subject,
            "trial": getattr(record, "trial", None),
            "host": self._host,
            "pid": os.getpid(),
            "logger": record.name,
            "exception": _exception(self, record),
        }
        kept = {key: value for key, value in fields.items() if value not in (None, "")}
        # Remove secrets before conversion to JSON: escaped, they would not be found.
        shown = {
            key: without_secrets(value) if isinstance(value, str) else value
            for key, value in kept.items()
        }
        # ASCII, so that all control characters are escaped.
        return json.dumps(shown)


def trial(number: int) -> Mapping[str, int]:
    """Return the `extra` argument for a record about one trial."""
    return {"trial": number}


def _moment(created: float) -> str:
    moment = datetime.fromtimestamp(created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text
