"""Settings of a study file that its data, this machine or its objective do not allow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.errors import Fault, StudyFileError
from tuner.records import Value
from tuner.spec.space import Choice
from tuner.spec.study import DATA, WEIGHTS, Spec
from tuner.train.sources.declared import KINDS

SplitContents = Mapping[str, Any]
"""A split as in `Examination.to_json`: its number of images, in total and per class."""


def check_paths(spec: Spec, source: str) -> None:
    """Refuse a study whose data or starting weights do not exist."""
    faults = [*_missing(spec, "path", spec.data, DATA), *_missing(spec, WEIGHTS, spec.fixed, "")]
    kinds = [kind for _, kind in _values(spec, "source", spec.data, spec.data_defaults, DATA)]
    paths = [path for _, path in _values(spec, "path", spec.data, spec.data_defaults, DATA)]
    without = [str(kind) for kind in kinds if kind in KINDS]
    if without and "" in paths:
        faults.append(Fault("data.path", f"source = {without[0]!r} needs the path of the images"))
    if faults:
        raise StudyFileError(source, faults)


def check_data(spec: Spec, contents: Mapping[str, SplitContents]) -> None:
    """Refuse settings that cannot be trained on such data."""
    classes = list(contents["train"]["classes"])
    faults = [
        Fault(
            key,
            f"'bce' has one output and separates two classes, but the data have {len(classes)} "
            f"({', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}); use 'ce' or 'focal'",
        )
        for key, value in _values(spec, "loss", spec.fixed, spec.defaults, "")
        if value == "bce" and len(classes) != 2
    ]
    if faults:
        raise StudyFileError(spec.name, faults)


def remarks(spec: Spec, contents: Mapping[str, SplitContents]) -> Iterator[str]:
    """Yield a sentence for every setting that such data make less effective than it looks."""
    images = contents["train"]["images"]
    sizes = [value for _, value in _values(spec, "batch_size", spec.fixed, spec.defaults, "")]
    large = max((int(size) for size in sizes), default=0)
    if large > images:
        yield (
            f"batch_size = {large} is more than the {images} training images: an epoch is a single "
            "step on all of them, as with any larger size."
        )


def _missing(spec: Spec, name: str, written: Mapping[str, Value], prefix: str) -> Iterator[Fault]:
    for key, value in _values(spec, name, written, {}, prefix):
        if not isinstance(value, str) or not value or "://" in value:
            continue
        place = Path(spec.folder, value)
        if not place.exists():
            yield Fault(key, f"there is no file or folder {place.resolve()}")


def _values(
    spec: Spec,
    name: str,
    written: Mapping[str, Value],
    defaults: Mapping[str, Value],
    prefix: str,
) -> list[tuple[str, Value]]:
    """Return every value that a key may have in a trial, with its place in the file."""
    section = "data" if prefix else "fixed"
    if name in written:
        return [(f"{section}.{name}", written[name])]
    values_by_key: list[tuple[str, Value]] = []
    for dimension in spec.space.dimensions:
        if dimension.name == f"{prefix}{name}":
            values = (
                dimension.values
                if isinstance(dimension, Choice)
                else (dimension.low, dimension.high)
            )
            values_by_key += [(f"space.{dimension.name}", value) for value in values]
    # Trials in which the dimension is inactive get the default.
    return values_by_key + ([(f"{section}.{name}", defaults[name])] if name in defaults else [])
