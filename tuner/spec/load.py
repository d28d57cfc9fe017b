"""Reads a study file into a `Spec`, or reports all its faults at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import StudyFileError, UserError
from tuner.names import nearest
from tuner.spec.document import cleaned, read
from tuner.spec.overrides import Overrides
from tuner.spec.reader import Declared, Reader
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef


def load(path: Path, overrides: Sequence[str], declared: Declared) -> Spec:
    """Read, override and check a study file; all its faults are in one StudyFileError."""
    return check(read(path), overrides, declared, path)


def check(
    document: Mapping[str, Any], overrides: Sequence[str], declared: Declared, path: Path
) -> Spec:
    """Check a parsed study; its data and objective are looked up relative to `path`."""
    changed = Overrides(cleaned(document))
    changed.apply(overrides)
    reader = Reader(changed.document, changed.origins, tuple(overrides), path)
    spec = reader.read(declared)
    faults = (*changed.faults, *reader.faults.ordered())
    if spec is None or faults:
        raise StudyFileError(str(path), faults)
    return spec


def find(ref: StudyRef, folders: Sequence[Path]) -> Path:
    """Return the file of a study, given by its name in one of the folders or by its path."""
    if ref.path is not None:
        return ref.path
    name = str(ref)
    known = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.toml")}
    if name in known:
        return known[name]
    near = nearest(name, known)
    if near:
        names = f"did you mean {' or '.join(near)}?"
    else:
        names = f"available: {', '.join(sorted(known))}." if known else "none was found."
    places = ", ".join(str(folder) for folder in folders) or "no folder"
    raise UserError(
        f"There is no study {name!r}; {names} Looked for {name}.toml in {places}; "
        "a path that ends in .toml is taken as it is."
    )
