"""Messages and help texts are in plain English: phrases found odd do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tuner

ROOM = Path(tuner.__file__).parent
ODD = re.compile(
    r"\banew\b|\bwhat is no\b|\bmend(s|ed)?\b|\bwhom\b|\b(held|hold) .*against\b|\ball the same\b"
    r"|\bfor you to judge\b|\bfor want of\b|\bluck of\b|\bas often as wanted\b|\bis another than\b"
    r"|\bat hand\b|\bnone of ours\b|\bnone such\b|\bit is looked\b"
)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield a module's visible texts: all strings except docstrings, and --help."""
    tree = ast.parse(source)
    unseen: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            re.search(r"\b(command|group)\(", ast.unparse(one)) for one in node.decorator_list
        ):
            yield node.lineno, ast.get_docstring(node) or ""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            unseen.add(id(node.value))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in unseen
        ):
            yield node.lineno, node.value


def test_no_message_is_in_odd_english() -> None:
    """Messages say `again`, not `anew`; `fix`, not `mend`; `compare`, not `hold against`."""
    found = [
        f"{module.relative_to(ROOM)}, line {line}: {text}"
        for module in sorted(ROOM.rglob("*.py"))
        for line, text in texts(module.read_text(encoding="utf-8"))
        if ODD.search(text)
    ]
    assert found == []
