"""Render docs/benchmarks.md, the chart and the README's lines from the recorded figures.

    python -m benchmarks.tables                       # after `--record` of any benchmark
    python -m benchmarks.tables --check               # 1 if a page is not as recorded
    python -m benchmarks.tables --json                # the rendered parts by name

A page has a part between `<!-- NAME -->` and `<!-- /NAME -->` for each section of the
record; what is around is written by hand. A section that was not recorded stays as it is.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks import (
    answer,
    chart,
    coordination,
    dashboard,
    fleet,
    gpu,
    growth,
    packs,
    record,
    search,
    search_real,
    start,
    study,
    trainer,
)

DOCS = record.RECORD.parent
PAGES = (DOCS / "benchmarks.md", DOCS / "scale.md", DOCS / "search.md", DOCS.parent / "README.md")
LINES: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "study": study.lines,
    "trainer": trainer.lines,
    "packs": packs.lines,
    "gpu": gpu.lines,
    "start": start.lines,
    "coordination": coordination.lines,
    "answer": answer.lines,
    "dashboard": dashboard.lines,
    "fleet": fleet.lines,
    "search": search.lines,
    "search_real": search_real.lines,
    "growth": growth.lines,
}


def main() -> None:
    """Render the pages, or check them."""
    options = _options()
    body = record.read(options.record)
    made = parts(body)
    if options.json:
        print(json.dumps(made, ensure_ascii=False))
        return
    stale = [page for page in PAGES if rendered(page.read_text("utf-8"), made) != page.read_text()]
    if options.check:
        for page in stale:
            print(f"{page} is not as recorded: run python -m benchmarks.tables")
        sys.exit(bool(stale))
    for page in stale:
        page.write_text(rendered(page.read_text("utf-8"), made), encoding="utf-8")
    if "study" in body:
        chart.draw(body["study"], chart.CHART)
    if "fleet" in body:
        fleet.draw(body["fleet"]["figures"], DOCS / "scale.svg")
    if "search" in body:
        search.draw(body["search"]["figures"], search.PICTURE)


CHART_SHOWS = "Time to complete a study, in seconds, with tuner and the alternatives"


def parts(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts rendered from the record, by name."""
    made = {
        name: "\n".join([*lines(body[name]["figures"]), "", *_origin(body[name])]).strip()
        for name, lines in LINES.items()
        if name in body
    }
    if "study" in body:
        made["chart"] = f"![{CHART_SHOWS}]({chart.CHART.name})"
        made["readme"] = _readme(body["study"])
    return made


def rendered(page: str, made: Mapping[str, str]) -> str:
    """Return a page with its parts filled in."""
    for name, text in made.items():
        # A function, so that no backslash of the text is read as a group reference.
        page = re.sub(
            f"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, text=text: f"{found[1]}{text}\n{found[2]}",  # type: ignore[misc]
            page,
            flags=re.DOTALL,
        )
    return page


def _origin(section: Mapping[str, Any]) -> Iterable[str]:
    """Say when, with which command and on which machine a section was measured."""
    machine = dict(section["machine"])
    cores, processor = machine.pop("cores"), machine.pop("processor")
    system = machine.pop("system")
    versions = ", ".join(f"{name} {version}" for name, version in machine.items())
    yield f"`{section['command']}`, {section['measured']}, {cores} cores of {processor},"
    yield f"{system}; {versions}."


def _readme(section: Mapping[str, Any]) -> str:
    figures, cores = section["figures"], section["machine"]["cores"]
    # Ray Tune lowers its workers' priority, so any other load would flatter tuner.
    faster = {
        reference: " to ".join(f"{one:.1f}" for one in chart.span(figures, reference))
        for reference in ("loop", "lightning")
        if any(case["runs"].get(reference) for case in figures.values())
    }
    names = {"loop": "a notebook loop", "lightning": "Lightning with Optuna"}
    told = " and ".join(f"{times} times as fast as {names[one]}" for one, times in faster.items())
    return (
        f"![{CHART_SHOWS}](docs/{chart.CHART.name})\n\n"
        f"For complete studies of small networks, including start-up, on {cores} cores, tuner is "
        f"{told}\n"
        "([docs/benchmarks.md](docs/benchmarks.md), `make bench`)."
    )


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.set_defaults(record=record.RECORD)
    parser.add_argument("--check", action="store_true", help="write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
