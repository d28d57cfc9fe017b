r"""Text that UTF-8 and PostgreSQL can hold, made of text that they cannot.

Python keeps the bytes of a file name that is no UTF-8 as lone surrogates
(U+DC80 to U+DCFF), and an objective may put a NUL into any text. Neither can be
stored, encoded or printed. Such characters are written as an escape: `\xe9` for
the byte E9 of a file name, `\x00` for NUL, `\ud800` for any other surrogate. A
terminal is shown control characters the same way.
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
    """Return a text with the credentials in its addresses made `***`.

    A password may itself have slashes and at-signs that were not escaped: what
    begins as `user:` is hidden up to the last at-sign.
    """
    return _SECRET.sub(r"\1***", _USER_INFO.sub("***@", text))


def storable(text: str) -> str:
    """Write what cannot be stored as an escape; any other text stays as it is."""
    return UNSTORABLE.sub(escape, text)


def storable_name(name: str) -> str:
    """Return a file name or an id as text that can be stored; different names stay different.

    `file_name` gets the name back. Only names with a backslash or an unstorable
    character change.
    """
    return storable(_AMBIGUOUS.sub(r"\\\\", name))


def file_name(name: str) -> str:
    """Return the name that `storable_name` was given."""
    return _ESCAPE.sub(_unescape, name)


def storable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that can be stored as they are, or all of them as `storable_name` writes them.

    All and not only those that need it, so that no two become one.
    """
    if any(UNSTORABLE.search(name) for name in names):
        return tuple(storable_name(name) for name in names)
    return tuple(names)


def storable_json(value: Any) -> Any:
    """Return a JSON value with every text in it storable, keys included."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable_json(key): storable_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(one) for one in value]
    return value


def escape(match: re.Match[str]) -> str:
    r"""Return the escape of the one character that was matched, such as \x1b or \u202e."""
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        # A surrogate that stands for a byte of a file name is shown as that byte.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _unescape(match: re.Match[str]) -> str:
    byte, code, backslash = match.groups()
    if backslash:
        return "\\"
    return os.fsdecode(bytes.fromhex(byte)) if byte else chr(int(code, 16))
