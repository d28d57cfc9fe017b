"""The building blocks of a report, independent of its format."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.answers.table import Table
from tuner.pictures import Picture


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Drawing:
    """A picture, and the command that draws it again."""

    picture: Picture
    command: str


@dataclass(frozen=True)
class CodeBlock:
    """Text to be copied: a file or commands."""

    text: str
    language: str


Block = Words | Table | Drawing | CodeBlock


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """The name that a link to it uses."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Report:
    """A study as a document: the question, the answer, and the evidence."""

    study: str
    question: str
    answer: tuple[str, ...]
    """The first sentence answers the question; the others qualify it."""
    glance: tuple[tuple[str, str], ...]
    """A few key figures by name."""
    sections: tuple[Section, ...]
    made: str
    """When, and by which version."""


def paragraphs(texts: Sequence[str]) -> tuple[Words, ...]:
    """Return texts as paragraphs, without the empty ones."""
    return tuple(Words(text) for text in texts if text)
