"""A study file as parsed from TOML, with values that a study cannot contain marked.

TOML allows dates, `nan`, `inf` and integers of any size; a study allows none of
them. They are replaced by an `Alien`, which every check rejects and which describes
the value in the message, so that the checks need not handle each of them.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import Fault, StudyFileError
from tuner.text import UNSTORABLE

_DEEPEST = 8
"""Nesting of tables: a study needs four levels, and much deeper ones would exhaust the stack."""
_LONG_NUMBER = re.compile(r"[0-9_]{1000,}")
_LARGEST = 2**63
"""The limit of integers in the database and in TOML itself."""


@dataclass(frozen=True)
class Alien:
    """A value that TOML allows but a study does not."""

    was: str

    def __repr__(self) -> str:
        return self.was


def read(path: Path) -> dict[str, Any]:
    """Read a study file; a syntax error is reported with its line and column."""
    if UNSTORABLE.search(str(path.absolute())):
        raise _unreadable(path, "is in a folder whose name is not UTF-8; rename that folder")
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"is not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, f"is not valid TOML: {error}") from None
    except ValueError:
        # Python converts no decimal number of more than sys.get_int_max_str_digits().
        raise _unreadable(path, _too_long(path)) from None
    except RecursionError:
        raise _unreadable(path, "is nested too deeply to be a study") from None


def _too_long(path: Path) -> str:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, 1):
        found = _LONG_NUMBER.search(line)
        if found:
            digits = sum(letter.isdigit() for letter in found[0])
            key = line.partition("=")[0].strip()[:40]
            return f"line {number}: {key}: a number of {digits:,} digits, beyond 64 bits"
    return "contains a number that is too long, beyond 64 bits"


def cleaned(value: Any, depth: int = 0) -> Any:
    """Return a copy with only texts, finite numbers, booleans, lists, tables and Aliens."""
    if depth > _DEEPEST and isinstance(value, dict | list):
        return Alien("a table nested too deeply")
    if isinstance(value, dict):
        return {key: cleaned(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [cleaned(inner, depth + 1) for inner in value]
    return _cleaned_value(value)


def _cleaned_value(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            return Alien("a text with a NUL character")
        return Alien("a text that is not UTF-8") if UNSTORABLE.search(value) else value
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_LARGEST <= value < _LARGEST else Alien("a number beyond 64 bits")
    if isinstance(value, float):
        return value if math.isfinite(value) else Alien(str(value))
    return Alien(f"the date or time {value} (quote it if a text is meant)")


def _unreadable(path: Path, message: str) -> StudyFileError:
    return StudyFileError(str(path), [Fault("", message)])


def named_by(path: Path) -> str:
    """Return the study's name in a file, or the file's own name if it cannot be read.

    The file may have faults, or be on another machine: only its study's name is needed.
    """
    try:
        study = read(path).get("study")
    except StudyFileError:
        return path.stem
    name = study.get("name") if isinstance(study, dict) else None
    return name if isinstance(name, str) else path.stem
