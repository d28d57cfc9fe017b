"""A report as one self-contained HTML file that prints well."""

import base64
import re
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from tuner.answers.table import Table
from tuner.report.document import Block, CodeBlock, Drawing, Report


def as_html(report: Report) -> str:
    """Return the page; every text from the study is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["picture"] = _picture
    environment.filters["commands"] = _commands
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "drawing": lambda block: isinstance(block, Drawing),
        "code": lambda block: isinstance(block, CodeBlock),
    }
    template = resources.files("tuner.report").joinpath("page.html.j2").read_text("utf-8")
    return environment.from_string(template).render(report=report)


def _picture(block: Block) -> str:
    """Return a picture as a data URL; in an <img>, an SVG cannot run scripts."""
    assert isinstance(block, Drawing)
    drawn = block.picture.render("svg", bare=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"


def _commands(text: str) -> Markup:
    """Turn text in backticks into <code>; everything is escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
