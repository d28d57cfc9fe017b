"""Escapes a study's texts for Markdown."""

import re
from collections.abc import Sequence

__all__ = ["fenced", "prose", "row"]

_SIGNS = re.compile(r"([*\[\]#~]|(?<!\w)_|_(?!\w))")
"""Characters that are markup in Markdown; an underscore within a word is not."""


def cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return _escaped(text).replace("|", "\\|").replace("`", "\\`")


def row(cells: Sequence[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cell(one) for one in cells)} |"


def prose(text: str) -> str:
    """Return a text as part of a paragraph; commands in backticks are kept."""
    return _escaped(text)


def _escaped(text: str) -> str:
    safe = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(_SIGNS.sub(r"\\\1", safe).split())


def fenced(text: str, language: str) -> str:
    """Return a code block, whose fence is longer than any run of backticks in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
