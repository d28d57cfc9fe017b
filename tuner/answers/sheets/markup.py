"""Text of a study in Markdown, where none of its signs must be taken for markup."""

from collections.abc import Sequence


def cell(text: str) -> str:
    """Return a text as a cell of a table."""
    safe = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(safe.split())


def row(cells: Sequence[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cell(one) for one in cells)} |"


def prose(text: str) -> str:
    """Return a text as part of a paragraph; commands in backticks stay what they are."""
    safe = text.replace("\\", "\\\\").replace("<", "&lt;")
    for sign in "*[]#":
        safe = safe.replace(sign, f"\\{sign}")
    return " ".join(safe.split())


def fenced(text: str, language: str) -> str:
    """Return a block of code, whatever rows of backticks it has in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
