"""Which study a person means: the text that they typed, parsed once."""

from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UnknownStudyError
from tuner.spec.document import named_by


@dataclass(frozen=True)
class StudyRef:
    """A study by its name (then its newest version), by name and version, or by its file."""

    name: str
    version: int | None = None
    path: Path | None = None
    """The study file, where a path was given; `name` is what the file calls its study."""

    @classmethod
    def parse(cls, text: str) -> "StudyRef":
        """Read NAME, NAME@VERSION, or a path that ends in .toml."""
        if text.endswith(".toml"):
            path = Path(text)
            return cls(named_by(path), path=path)
        return cls.stored(text)

    @classmethod
    def stored(cls, text: str) -> "StudyRef":
        """Read NAME or NAME@VERSION; no file is looked at."""
        name, _, version = text.partition("@")
        if version and not version.isdecimal():
            raise UnknownStudyError(
                f"{text!r} is not a study: the version after @ must be a number, as in lr@2."
            )
        return cls(name, int(version) if version else None)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return self.name if self.version is None else f"{self.name}@{self.version}"
