r"""Makes any text storable in UTF-8 and PostgreSQL, by escapes.

Python represents the bytes of a file name that is not UTF-8 as lone surrogates
(U+DC80 to U+DCFF), and an objective may put a NUL into any text. Neither can be
stored, encoded or printed. Such characters are written as escapes: `\xe9` for the
byte E9 of a file name, `\x00` for NUL, `\ud800` for any other surrogate. Control
characters are shown in a terminal in the same way.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

_USER_INFO = re.compile(r"(?<=://)(?:[^/\s:@\"']+:[^\s\"']*|[^/\s\"']*)@")
_SECRET = re.compile(
    r"(?i)([?&;][^=&;\s]*(?:secret|password|passwd|token|key|sig|signature|credential)[^=&;\s]*=)"
    r"[^&;\s\"']+"
)

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# In a name, a backslash before any of these could be taken for the start of an escape.
_AMBIGUOUS = re.compile(r"\\(?=[xu\\]|[\x00\ud800-\udfff])")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(\\))")


def masked(text: str) -> str:
    """Return a text with the credentials in its addresses replaced by `***`.

    A password may contain unescaped slashes and at-signs, so everything from `user:`
    to the last at-sign is hidden.
    """
    return _SECRET.sub(r"\1***", _USER_INFO.sub("***@", text))


def storable(text: str) -> str:
    """Replace characters that cannot be stored by escapes; any other text is unchanged."""
    return UNSTORABLE.sub(escape, text)


def storable_name(name: str) -> str:
    """Return a file name or an id as text that can be stored; different names stay different.

    `file_name` gets the name back. Only names with a backslash or an unstorable
    character change.
    """
    return storable(_AMBIGUOUS.sub(r"\\\\", name))


def file_name(name: str) -> str:
    """Undo `storable_name`."""
    return _ESCAPE.sub(_unescape, name)


def storable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names unchanged if all can be stored, else all escaped by `storable_name`.

    Escaping only those that need it could make two names equal.
    """
    if any(UNSTORABLE.search(name) for name in names):
        return tuple(storable_name(name) for name in names)
    return tuple(names)


def storable_json(value: Any) -> Any:
    """Return a JSON value with all its texts storable, including keys."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable_json(key): storable_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(one) for one in value]
    return value


def escape(match: re.Match[str]) -> str:
    r"""Return the escape of the matched character, such as \x1b or \u202e."""
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        # A surrogate that represents a byte of a file name is shown as that byte.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _unescape(match: re.Match[str]) -> str:
    byte, code, backslash = match.groups()
    if backslash:
        return "\\"
    return os.fsdecode(bytes.fromhex(byte)) if byte else chr(int(code, 16))
