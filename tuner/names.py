"""Names that were misspelt: the nearest of those that are known."""

import difflib
from collections.abc import Iterable

LIKE = 0.5
"""How alike two names are that may be mistaken for each other; 1 is the same."""


def nearest(name: str, known: Iterable[str], most: int = 3, cutoff: float = LIKE) -> list[str]:
    """Return the known names that a wrong one may have meant, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)


def suggest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that leads from a wrong name to the right one."""
    names = list(valid)
    near = nearest(name, names, most=1)
    if near:
        return f"did you mean {near[0]}?"
    return "valid: " + ", ".join(names) if names else "nothing can be set here"


def meant(name: str, known: Iterable[str]) -> str:
    """Return a question to end a message with, or nothing where no name is near."""
    near = nearest(name, known)
    return f" Did you mean {' or '.join(near)}?" if near else ""
