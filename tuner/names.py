"""Finds the valid names nearest to a misspelt one."""

import difflib
from collections.abc import Iterable

LIKE = 0.5
"""Similarity above which one name may be a misspelling of the other; 1 means equal."""


def nearest(name: str, valid: Iterable[str], most: int = 3, cutoff: float = LIKE) -> list[str]:
    """Return the valid names that a wrong one may have meant, the nearest first."""
    return difflib.get_close_matches(name, list(valid), n=most, cutoff=cutoff)


def suggest(name: str, valid: Iterable[str]) -> str:
    """Return a hint from a wrong name to the right one."""
    names = list(valid)
    near = nearest(name, names, most=1)
    if near:
        return f"did you mean {near[0]}?"
    return "valid: " + ", ".join(names) if names else "nothing can be set here"


def meant(name: str, valid: Iterable[str]) -> str:
    """Return a question to append to a message, or an empty text if no name is near."""
    near = nearest(name, valid)
    return f" Did you mean {' or '.join(near)}?" if near else ""
