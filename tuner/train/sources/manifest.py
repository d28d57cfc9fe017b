"""A table of images: a CSV with path and label, and optionally split and patient."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import DataError
from tuner.names import nearest
from tuner.records import Value
from tuner.train.objective import Progress
from tuner.train.sources.decoding import ImageFile, decode
from tuner.train.sources.folder import pooled
from tuner.train.sources.pool import PARTS, Part, Pool, alike, listed, number_classes

NEEDED = ("path", "label")
COLUMNS = (*NEEDED, "split", "patient")

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "paths", "file", "files", "filename", "filepath", "image", "images"),
    "label": ("label", "labels", "class", "target", "diagnosis", "finding"),
    "split": ("split", "splits", "subset", "set", "partition"),
    "patient": ("patient", "patients", "subject", "subjects", "person", "patientid", "pid", "mrn"),
}
"""Other names for our columns."""
FILLERS = {
    "id", "ids", "no", "nr", "number", "name", "key", "code", "index", "uid", "hash", "data",
    "train", "val", "valid", "test", "tvt", "new",
}  # fmt: skip
"""Words that do not change the meaning of a header: `patient_id`, `train_test_split`."""
MISSPELT = 0.8
"""Similarity above which a header is a misspelt column: `lable` is, `date` and `path` are not."""


@dataclass
class _Table:
    """The content of a CSV, with notes on how it was read."""

    files: list[ImageFile] = field(default_factory=list)
    columns: Mapping[str, str] = field(default_factory=dict)
    """The table's header for each of our columns that it has."""
    notes: list[str] = field(default_factory=list)
    blank_cells: int = 0
    """How many cells of our columns have blanks around them."""


def read_manifest(path: Path, keys: Mapping[str, Value], cache: Path, progress: Progress) -> Pool:
    """Return all images that a CSV lists; their paths are relative to its folder."""
    table = _read_table(path)
    found = sorted(table.files, key=lambda one: one.id)
    names = {part: {one.name for one in found if one.part == part} for part in PARTS}
    classes = number_classes(names, path)
    notes = [*table.notes, *_patient_notes(found, table)]
    return pooled(found, decode(found, keys, cache, progress), classes, notes)


def _read_table(path: Path) -> _Table:
    table = _Table()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            headers = next(rows, [])
            table.columns = _columns(path, headers, table.notes)
            read = list(_rows(rows, headers, table, path.parent))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct data.path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8: {error}") from None
    faults = [f"line {line}: {one}" for line, one in read if isinstance(one, str)]
    files = [(line, one) for line, one in read if isinstance(one, ImageFile)]
    faults += _twice(files)
    if faults:
        raise DataError(f"{path} has {len(faults)} faults: {listed(faults, most=10)}")
    if not files:
        raise DataError(f"{path} lists no images")
    if table.blank_cells:
        table.notes.append(f"Blanks around {table.blank_cells} cells of the table were removed.")
    table.files = [one for _, one in files]
    return table


def _columns(path: Path, headers: Sequence[str], notes: list[str]) -> dict[str, str]:
    """Return the header of each of our columns, or raise if a header is wrong.

    Case and blanks do not matter and are noted. A header that means one of our
    columns by another name is an error: ignoring it could silently train on the
    test set, or split a patient's images. Unrelated columns are ignored and noted.
    """
    columns: dict[str, str] = {}
    faults = []
    for header in headers:
        name = header.strip().lower()
        if name in COLUMNS and name in columns:
            faults.append(f"the columns {columns[name]!r} and {header!r} are both {name}")
        elif name in COLUMNS:
            columns[name] = header
    others = [header for header in headers if header.strip().lower() not in COLUMNS]
    missing = [name for name in COLUMNS if name not in columns]
    hints = {header: name for header in others for name in missing if _means(header, name)}
    faults += [
        f"the column {header!r} is unknown; did you mean {name}? Rename it, or remove it"
        for header, name in hints.items()
    ]
    lost = [name for name in NEEDED if name not in columns]
    if lost:
        sign = next((s for s in ";\t|" if len(headers) == 1 and s in headers[0]), None)
        separated = f" (is it separated by {sign!r}? write commas)" if sign else ""
        faults.insert(
            0,
            f"has no column {' and no column '.join(lost)}; its first line names "
            f"{', '.join(headers) or 'nothing'}{separated}; the columns are {', '.join(COLUMNS)}",
        )
    if faults:
        raise DataError(f"{path}: {'; '.join(faults)}")
    changed = [f"{header!r} as {name}" for name, header in columns.items() if header != name]
    if changed:
        notes.append(f"Columns were read without regard to case and blanks: {listed(changed)}.")
    if others:
        notes.append(f"Columns of the table that were ignored: {listed(others, most=10)}.")
    return columns


def _means(header: str, name: str) -> bool:
    """Return whether a header means one of our columns by another name, or misspells it."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", header)
    words = re.sub(r"[^a-z]+", " ", spaced.lower()).split()
    telling = [word for word in words if word not in FILLERS]
    if len(telling) != 1:
        return False
    # `patientage` is as similar to `patient` as `patinet` is, but longer.
    (word,) = telling
    near = abs(len(word) - len(name)) <= 1 and nearest(word, [name], cutoff=MISSPELT)
    return bool(near) or word in SYNONYMS[name]


def _rows(
    rows: Any, headers: Sequence[str], table: _Table, folder: Path
) -> Iterator[tuple[int, ImageFile | str]]:
    """Yield each row's line number with its file, or with what is wrong with it."""
    places = {name: headers.index(header) for name, header in table.columns.items()}
    line = rows.line_num
    for row in rows:
        # The line on which the row begins: a quoted cell may span several lines.
        line, begun = rows.line_num, line + 1
        if not row:
            continue
        written = {name: row[at] if at < len(row) else "" for name, at in places.items()}
        cell = {name: written.get(name, "").strip() for name in COLUMNS}
        table.blank_cells += sum(cell[name] != text for name, text in written.items())
        split = cell["split"].lower() or "train"
        if len(row) > len(headers):
            yield begun, f"it has {len(row)} cells, and the first line names {len(headers)}"
        elif not cell["path"] or not cell["label"]:
            yield begun, f"{'label' if cell['path'] else 'path'} is empty"
        elif split not in PARTS:
            yield begun, f"split is {cell['split']!r}; expected train, val or test"
        elif not (folder / cell["path"]).is_file():
            yield begun, f"there is no file {folder / cell['path']}"
        else:
            part: Part = next(known for known in PARTS if known == split)
            place = folder / cell["path"]
            yield begun, ImageFile(place, cell["path"], cell["label"], part, cell["patient"])


def _twice(files: list[tuple[int, ImageFile]]) -> list[str]:
    first: dict[Path, int] = {}
    faults = []
    for line, one in files:
        place = one.path.resolve()
        if place in first:
            faults.append(f"line {line}: {one.id} is listed in line {first[place]} already")
        first.setdefault(place, line)
    return faults


def _patient_notes(found: Sequence[ImageFile], table: _Table) -> list[str]:
    """Return notes on patients: images without one, similar names, patients in several splits."""
    if "patient" not in table.columns:
        return []
    notes = []
    unnamed = sum(not one.patient for one in found)
    if unnamed:
        notes.append(
            f"{unnamed} of {len(found)} images have no patient in the table; each counts as a "
            "patient of its own."
        )
    parts: dict[str, set[Part]] = {}
    for one in found:
        if one.patient:
            parts.setdefault(one.patient, set()).add(one.part)
    twins = [f"{one} and {other}" for one, other in alike(parts)]
    if twins:
        notes.append(
            f"Patients whose names differ only in case or blanks count as different patients: "
            f"{listed(twins)}."
        )
    torn = sorted(name for name, held in parts.items() if len(held) > 1)
    if torn:
        notes.append(f"{len(torn)} patients are in more than one split: {listed(torn)}.")
    return notes
