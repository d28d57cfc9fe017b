"""Rendering pages: as HTML by templates that escape every text, or as JSON."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from tuner.answers import words
from tuner.answers.columns import unit_of
from tuner.answers.plain import plain
from tuner.dashboard.assets import asset, modules
from tuner.dashboard.paths import below
from tuner.records import Metric
from tuner.report.record import span
from tuner.version import version

HAVE = "have"
"""The header with the hash of a part that a page shows; an equal part is not sent again."""

environment = Environment(
    loader=PackageLoader("tuner.dashboard"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def page(request: Request, name: str, data: Any, **more: Any) -> Response:
    """Return a page, one part of it, or its data as JSON, depending on the address."""
    if request.url.path.endswith(".json"):
        return JSONResponse(plain(data))
    part = request.query_params.get("part")
    study = more.get("study")
    if part is not None and study is not None:
        shown = request.query_params.get("id", "")
        if shown and shown != str(study.study_id):
            # The name refers to another study now: a newer version, or one launched in its place.
            return Response(headers={"HX-Refresh": "true"})
    context = {"data": data, "request": request, "at": PageAddress(request), **more}
    if part is None:
        return HTMLResponse(environment.get_template(f"{name}.html.j2").render(context))
    template = environment.get_template(f"{name}.html.j2")
    if f"part_{part}" not in template.blocks:
        return HTMLResponse("There is no such part of this page.", 404)
    block = template.blocks[f"part_{part}"]
    text = "".join(block(template.new_context(context)))
    # An unchanged part is not sent: the page keeps its own.
    if request.headers.get(HAVE) == mark(text):
        return Response(status_code=204)
    return HTMLResponse(text, headers={HAVE: mark(text)})


def message(request: Request, code: int, text: str, *, again: bool = False) -> Response:
    """Return a message instead of a page, in the requested format."""
    if request.url.path.endswith(".json"):
        return JSONResponse({"error": text}, code)
    if "part" in request.query_params:
        # A part that cannot be rendered now stays as it is on the page.
        return Response(text, code, media_type="text/plain")
    page = environment.get_template("message.html.j2")
    return HTMLResponse(page.render(text=text, again=again, request=request), code)


def mark(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def number_in(text: str) -> int | None:
    """Parse a number in an address; None if it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


class PageAddress:
    """The address of a page, with its filter, order and other choices."""

    def __init__(self, request: Request) -> None:
        self._inside = request.url.path
        self.path = below(self._inside)
        self._query = dict(request.query_params)
        for name in ("part", "id", "done"):
            self._query.pop(name, None)

    def but(self, **changes: Any) -> str:
        """Return this address with some choices changed; None removes one."""
        query = {**self._query, **changes}
        kept = {name: value for name, value in query.items() if value not in (None, "")}
        return f"{self.path}?{urlencode(kept)}" if kept else self.path

    def as_json(self) -> str:
        """Return the address of the same data as JSON."""
        query = f"?{urlencode(self._query)}" if self._query else ""
        return below(f"{self._inside.rstrip('/') or '/studies'}.json{query}")

    def __getitem__(self, name: str) -> str:
        """Return a choice in the address, or ""."""
        return self._query.get(name, "")


def study_path(title: str, *rest: object) -> str:
    """Return the path of a study's page, or of one below it."""
    return below("/".join(["/studies", *(quote(str(part), safe="@") for part in (title, *rest))]))


def age(moment: datetime) -> str:
    """Return how long ago this was."""
    return span(max(0.0, (datetime.now(UTC) - moment).total_seconds()))


def cell(value: Any, column: str = "", metrics: Sequence[Metric] = ()) -> str:
    """Format a cell of a table of trials.

    `metrics` are the study's metrics in addition to the built-in ones.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        unit = unit_of(column, metrics)
        return words.minus(f"{value:.5g}") if unit is None else words.figure(unit, value)
    if isinstance(value, int) and column not in ("trial", "seed"):
        return words.minus(f"{value:,}")
    return words.minus(str(value)) if isinstance(value, int) else str(value)


def compact(values: Mapping[str, Any]) -> str:
    """Format values as one line: "lr=0.001 scheduler=step"."""
    return " ".join(f"{name}={words.level_name(value)}" for name, value in values.items())


environment.globals |= {
    "version": version(),
    "study_path": study_path,
    "age": age,
    "asset": asset,
    "modules": modules,
    "below": below,
    "cell": cell,
    "compact": compact,
    "words": words,
    "mark": mark,
    "span": span,
}
environment.globals["ui"] = environment.get_template("ui.html.j2").module
"""The macros, also for parts that are rendered alone."""
