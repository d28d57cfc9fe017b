"""A study file as TOML gives it, with everything that no study can hold made visible.

TOML allows dates, `nan`, `inf` and whole numbers of any size; a study allows
none of them. They are replaced by an `Alien`, which no check accepts and which
says in a message what it was, so that the checks need not think of each.
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
"""Tables in tables: a study needs four, and deeper ones would exhaust the stack."""
_LONG_NUMBER = re.compile(r"[0-9_]{1000,}")
_LARGEST = 2**63
"""The database and TOML itself end here."""


@dataclass(frozen=True)
class Alien:
    """A value that TOML has and a study has not."""

    was: str

    def __repr__(self) -> str:
        return self.was


def read(path: Path) -> dict[str, Any]:
    """Read a study file; what is not TOML is told with its line and column."""
    if UNSTORABLE.search(str(path.absolute())):
        raise _unreadable(path, "lies in a folder whose name is not UTF-8; rename that folder")
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
    return "holds a number that is too long to be read, beyond 64 bits"


def cleaned(value: Any, depth: int = 0) -> Any:
    """Return a copy in which only texts, finite numbers, booleans, lists and tables remain."""
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
    """Return the name of the study that a file asks: the file's own, where nothing is to be read.

    The file may have faults, or lie on another machine: only its study's name is wanted.
    """
    try:
        study = read(path).get("study")
    except StudyFileError:
        return path.stem
    name = study.get("name") if isinstance(study, dict) else None
    return name if isinstance(name, str) else path.stem
