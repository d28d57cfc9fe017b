"""The subject of a picture: a study, and which of its factors, figures and trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.answers import words
from tuner.records import SplitName
from tuner.results import Results

LONGEST = 28
"""The longest name, in characters, that fits into a legend."""


@dataclass(frozen=True)
class Subject:
    """A study with the options of a picture."""

    results: Results
    by: str | None = None
    metric: str | None = None
    trial: int | None = None
    split: SplitName | None = None

    @property
    def title(self) -> str:
        """The study's name."""
        return self.results.title


def level_label(level: object) -> str:
    """Return a level's name, shortened for a legend."""
    return shortened(words.level_name(level))  # type: ignore[arg-type]


def shortened(name: str) -> str:
    """Return a name, without its middle if it is too long for a picture."""
    if len(name) <= LONGEST:
        return name
    half = LONGEST // 2
    return f"{name[: half - 1]}…{name[-half:]}"


_WORDS = {
    "val": "validation", "train": "training", "acc": "accuracy", "nll": "loss", "auc": "AUC",
}  # fmt: skip


def named(metric: str) -> str:
    """Return a figure's name in words: validation loss, test accuracy."""
    return " ".join(_WORDS.get(part, part) for part in metric.split("_"))


def sentence(parts: Sequence[str]) -> str:
    """Return parts as sentences, each ending with a full stop."""
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)
