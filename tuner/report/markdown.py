"""A report as Markdown: the same words and tables, and the command that draws each picture."""

from collections.abc import Iterator

from tuner.answers.sheets import markup
from tuner.answers.table import Table
from tuner.report.document import Block, CodeBlock, Drawing, Report


def as_markdown(report: Report) -> str:
    """Return the text; nothing of the study is taken for Markdown's own signs."""
    return "\n\n".join(_parts(report)) + "\n"


def _parts(report: Report) -> Iterator[str]:
    yield f"# {markup.prose(report.question)}"
    yield f"Study `{report.study}`"
    answer = [markup.prose(sentence) for sentence in report.answer]
    yield "\n>\n".join(f"> **{one}**" if at == 0 else f"> {one}" for at, one in enumerate(answer))
    yield "\n".join(f"- {name}: **{markup.prose(figure)}**" for name, figure in report.glance)
    for section in report.sections:
        yield f"## {section.title}"
        for block in section.blocks:
            yield from _block(block)
    yield f"Made by {report.made}."


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        if block.title:
            yield f"*{markup.prose(block.title)}*"
        yield "\n".join(
            [
                markup.row(block.head),
                markup.row(["---"] * len(block.head)),
                *(markup.row(row) for row in block.rows),
            ]
        )
    elif isinstance(block, Drawing):
        title = markup.prose(block.picture.title)
        yield f"**{title}.** {markup.prose(block.picture.note)} (`{block.command}` draws it.)"
    elif isinstance(block, CodeBlock):
        yield markup.fenced(block.text, block.language)
    else:
        yield markup.prose(block.text)
