"""What is needed to train a trial again: its data, code, machines and launch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tuner.answers import words
from tuner.answers.table import Table
from tuner.answers.trial import OneTrial
from tuner.records import Value
from tuner.results import Results, trial_origin
from tuner.store import identities
from tuner.text import masked

__all__ = ["Provenance", "provenance"]


@dataclass(frozen=True)
class Provenance:
    """The origin of one trial."""

    data: Mapping[str, Value]
    """The keys of [data]."""
    fingerprint: str
    sizes: Mapping[str, int]
    hosts: tuple[str, ...]
    device: str
    notes: Mapping[str, str]
    """What the trainer recorded: versions, precision, how the data were read."""
    launched: Mapping[str, Any]
    """Versions, machine and git checkout of the launch."""
    changes: tuple[str, ...]
    """Accepted changes of code or data, in sentences."""

    JSON: ClassVar = (
        "data",
        "data_fingerprint=fingerprint",
        "images=sizes",
        "hosts",
        "device",
        "notes",
        "launched",
        "accepted_changes=changes",
    )

    @property
    def table(self) -> Table:
        """All of it as names and texts."""
        return Table(("", ""), tuple(self._rows()), left=(0, 1), wrapped=(1,))

    def _rows(self) -> Iterator[tuple[str, str]]:
        keys = {name: value for name, value in self.data.items() if value != ""}
        yield (
            "data",
            " ".join(f"{name}={masked(words.level_name(value))}" for name, value in keys.items()),
        )
        if self.fingerprint:
            yield "data fingerprint", self.fingerprint
        if self.sizes:
            yield "images", ", ".join(f"{name} {count:,}" for name, count in self.sizes.items())
        if self.hosts:
            device = f" ({self.device})" if self.device else ""
            yield "trained on", f"{', '.join(self.hosts)}{device}"
        yield from self.notes.items()
        launched = self.launched
        if launched:
            versions = {
                "Python": launched.get("python"),
                "tuner": launched.get("tuner"),
                **(launched.get("packages") or {}),
            }
            named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
            place = " ".join(str(launched.get(key) or "") for key in ("host", "platform")).strip()
            yield "launched", str(launched.get("launched") or "–")
            yield "launched on", place or "–"
            yield "versions at launch", named
            git = launched.get("git")
            if git:
                dirty = ", with uncommitted changes" if git.get("dirty") else ""
                yield "git commit at launch", f"{git.get('commit')}{dirty}"
            else:
                yield "git commit at launch", "launched outside a git checkout"
        yield from (("accepted change", sentence) for sentence in self.changes)


def provenance(results: Results, trial: OneTrial) -> Provenance:
    """Read the provenance of a trial."""
    origin = trial_origin(results, trial.row)
    marks = identities.marks(results.connection, results.study.study_id)
    return Provenance(
        data=origin.data,
        fingerprint=origin.fingerprint,
        sizes=origin.sizes,
        hosts=origin.hosts,
        device=str(trial.setup.get("device") or ""),
        notes={name: str(note) for name, note in (trial.setup.get("notes") or {}).items()},
        launched=results.study.provenance,
        changes=tuple(mark.sentence for mark in marks),
    )
