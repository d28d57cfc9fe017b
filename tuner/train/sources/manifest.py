"""A table of images: a CSV with path and label, and perhaps split and patient."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Progress
from tuner.train.sources.decoding import File, decode
from tuner.train.sources.folder import pooled
from tuner.train.sources.pool import PARTS, Part, Pool, listed, number_classes

NEEDED = ("path", "label")
KNOWN = (*NEEDED, "split", "patient")


def read_manifest(path: Path, keys: Mapping[str, Value], cache: Path, progress: Progress) -> Pool:
    """Return all images that a CSV lists; their paths start where it lies."""
    found = sorted(_rows(path), key=lambda one: one.id)
    names = {part: {one.name for one in found if one.part == part} for part in PARTS}
    classes = number_classes(names, path)
    return pooled(found, decode(found, keys, cache, progress), classes, _notes(found))


def _rows(path: Path) -> list[File]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            _check_columns(path, table.fieldnames or ())
            read = list(_read(table, path.parent))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct data.path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8: {error}") from None
    faults = [f"line {line}: {one}" for line, one in read if isinstance(one, str)]
    files = [(line, one) for line, one in read if isinstance(one, File)]
    faults += _twice(files)
    if faults:
        raise DataError(f"{path} has {len(faults)} faults: {listed(faults, most=10)}")
    if not files:
        raise DataError(f"{path} lists no image")
    return [one for _, one in files]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}; its first line names "
            f"{', '.join(columns) or 'nothing'}; known are {', '.join(KNOWN)}"
        )


def _read(table: "csv.DictReader[str]", folder: Path) -> Iterator[tuple[int, File | str]]:
    for row in table:
        cell = {name: (row.get(name) or "").strip() for name in KNOWN}
        line = table.line_num
        split = cell["split"].lower() or "train"
        if not cell["path"] or not cell["label"]:
            yield line, f"{'label' if cell['path'] else 'path'} is empty"
        elif split not in PARTS:
            yield line, f"split is {cell['split']!r}; expected train, val or test"
        elif not (folder / cell["path"]).is_file():
            yield line, f"there is no file {folder / cell['path']}"
        else:
            part: Part = next(known for known in PARTS if known == split)
            place = folder / cell["path"]
            yield line, File(place, cell["path"], cell["label"], part, cell["patient"])


def _twice(files: list[tuple[int, File]]) -> list[str]:
    first: dict[Path, int] = {}
    faults = []
    for line, one in files:
        place = one.path.resolve()
        if place in first:
            faults.append(f"line {line}: {one.id} is listed in line {first[place]} already")
        first.setdefault(place, line)
    return faults


def _notes(found: list[File]) -> list[str]:
    """Tell patients whom the file itself puts on both sides; what it says is done."""
    parts: dict[str, set[Part]] = {}
    for one in found:
        if one.patient:
            parts.setdefault(one.patient, set()).add(one.part)
    torn = sorted(name for name, held in parts.items() if len(held) > 1)
    if not torn:
        return []
    return [f"{len(torn)} patients are in more than one split, as listed: {listed(torn)}."]
