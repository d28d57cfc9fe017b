"""The tables of docs/study-file.md, generated from the declarations.

    python -m tuner.spec.reference docs/study-file.md objectives.chest_xray objectives.digits

The text between `<!-- begin NAME -->` and `<!-- end NAME -->` in a page is replaced
by the table of that name. An objective's tables are named `OBJECTIVE parameters` and
`OBJECTIVE data`.
"""

import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tuner.errors import UserError
from tuner.records import BUILT_IN, READY
from tuner.spec.keys import DeclaredKey, entries
from tuner.spec.parameters import SHARED, Declarations, Parameter
from tuner.spec.search import ALLOCATORS, PRUNERS, SAMPLERS, Method
from tuner.spec.study import SECTIONS

_BLOCK = re.compile(r"(<!-- begin (.+?) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def blocks(objectives: Mapping[str, Declarations]) -> dict[str, str]:
    """Return all generated tables by the name of their block."""
    own: dict[str, str] = {}
    for name, declarations in objectives.items():
        parameters = declarations.parameters.items()
        own[f"{name} parameters"] = _parameters({k: v for k, v in parameters if k not in SHARED})
    data = {
        f"{name} data": _parameters(declarations.data) for name, declarations in objectives.items()
    }
    return {
        **{f"section {name}": _section(section) for name, section in SECTIONS.items()},
        "metrics": _metrics(),
        "samplers": _methods(SAMPLERS),
        "pruners": _methods(PRUNERS),
        "allocators": _methods(ALLOCATORS),
        "shared parameters": _parameters(SHARED),
        **own,
        **data,
    }


def update(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with every block replaced by its table."""

    def fill(block: re.Match[str]) -> str:
        if block[2] not in tables:
            raise UserError(f"No table is named {block[2]!r}; there are {', '.join(tables)}.")
        return f"{block[1]}{tables[block[2]]}{block[3]}"

    return _BLOCK.sub(fill, page)


def declarations(modules: Iterable[str]) -> dict[str, Declarations]:
    """Return the declarations of the objectives in these modules, by their last name."""
    return {
        module.rpartition(".")[2]: importlib.import_module(module).OBJECTIVE.declarations()
        for module in modules
    }


def _section(section: type) -> str:
    rows = [
        [f"`{name}`", entry.takes, _default(entry), entry.key.meaning]
        for name, entry in entries(section).items()
    ]
    return _table(["key", "accepts", "default", "meaning"], rows)


def _default(entry: DeclaredKey) -> str:
    if entry.required:
        return "required"
    return "none" if entry.default in (None, {}, ()) else _value(entry.write(entry.default))


def _metrics() -> str:
    rows = [
        [f"`val_{metric.name}`", f"{metric.better} is better", metric.meaning]
        for metric in (*BUILT_IN, *READY.values())
    ]
    return _table(["metric", "direction", "meaning"], rows)


def _methods(methods: Mapping[str, Method]) -> str:
    rows = []
    for method in methods.values():
        rows.append([f"**{method.name}**", "", "", method.meaning])
        rows += [_option(method, name) for name in method.options]
    return _table(["option", "accepts", "default", "meaning"], rows)


def _option(method: Method, name: str) -> list[str]:
    option, default = method.options[name], method.default(name)
    absent = "required" if name in method.required else "none"
    shown = absent if default is None else _value(default)
    return [f"`{name}`", option.expected(), shown, option.meaning]


def _parameters(parameters: Mapping[str, Parameter]) -> str:
    rows = [
        [f"`{name}`", parameter.expected(), _value(parameter.default), parameter.meaning]
        for name, parameter in parameters.items()
    ]
    return _table(["name", "accepts", "default", "meaning"], rows)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    shown = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in shown)


def main(page: Path, modules: Sequence[str]) -> None:
    """Rewrite the tables of a page."""
    tables = blocks(declarations(modules))
    page.write_text(update(page.read_text("utf-8"), tables), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
