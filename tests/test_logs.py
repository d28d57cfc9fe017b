"""Log records as JSON: one object per line, with study and trial, and without secrets."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tuner import logs
from tuner.cli.terminal import ReadableFormatter

logger = logging.getLogger("tuner.test_logs")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Return the logger's output as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logs._secrets.clear()


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    """Return the records."""
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_record_is_one_object_on_one_line(written: io.StringIO) -> None:
    """Any message gives one line, without control characters for a terminal."""
    with logs.about("lr@1", 7):
        logger.info("trial %d\n\x1b[31m ü\u2028", 3, extra=logs.trial(3))
    logger.warning("free")
    first, second = lines(written)
    assert first["message"] == "trial 3\n\x1b[31m ü"
    assert (first["level"], first["study"], first["worker"]) == ("info", "lr@1", 7)
    assert (first["trial"], first["logger"]) == (3, "tuner.test_logs")
    assert first["time"].endswith("Z")
    assert {"host", "pid"} <= set(first)
    assert set(second) == {"time", "level", "message", "host", "pid", "logger"}
    assert written.getvalue().isascii()
    assert "\x1b" not in written.getvalue()


def test_an_exception_is_a_field(written: io.StringIO) -> None:
    """It has its traceback as one text."""
    try:
        raise ValueError("no \x9b")
    except ValueError:
        logger.exception("failed")
    (record,) = lines(written)
    assert record["level"] == "error"
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith("ValueError: no \x9b")


def test_secrets_are_hidden_in_both_formats(written: io.StringIO) -> None:
    """In messages and in tracebacks, also if JSON escapes them."""
    logs.hide('https://host/"s3cret')
    try:
        raise ValueError('https://host/"s3cret')
    except ValueError as error:
        logger.exception("not sent to %s", error)  # noqa: TRY401
        record = logger.makeRecord("tuner", 40, "", 0, 'to https://host/"s3cret', (), None)
    assert "s3cret" not in written.getvalue()
    assert lines(written)[0]["message"] == "not sent to ***"
    assert "s3cret" not in ReadableFormatter().format(record)
