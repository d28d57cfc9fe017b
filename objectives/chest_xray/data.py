"""The data of chest_xray: where the images come from, as the [data] keys say."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Data, Progress, Split
from tuner.train.sources.assemble import redivided
from tuner.train.sources.declared import KINDS
from tuner.train.sources.load import load as load_shared

from . import OBJECTIVE
from .phantom import CLASSES, Series, generate, worthwhile_threads
from .phantom_cache import DrawnImages, keep, name_of

PHANTOM_SIZE = 64
"""Default size of the phantom in pixels per side."""
SMALLEST, LARGEST = 32, 256


def load(data: Mapping[str, Value], cache: Path, progress: Progress) -> Data:
    """Return the splits for these [data] keys; generated images are stored in the cache."""
    keys = _checked(data)
    return SOURCES[str(keys["source"])](keys, cache, progress)


def load_phantom(keys: Mapping[str, Value], cache: Path, progress: Progress) -> Data:
    """Return the synthetic radiographs; `shift` affects only the test images."""
    size = int(keys["image_size"]) or PHANTOM_SIZE
    if not SMALLEST <= size <= LARGEST:
        raise DataError(
            f"the phantom is drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}; "
            "correct data.image_size"
        )
    digest = hashlib.sha256("/".join(CLASSES).encode())
    splits = {}
    for name in ("train", "val", "test"):
        series = Series(
            seed=int(keys["seed"]),
            split=name,
            count=int(keys[f"{name}_images"]),
            size=size,
            shift=float(keys["shift"]) if name == "test" else 0.0,
        )
        kept, labels = _kept(series, cache, progress), series.labels()
        splits[name] = Split(images=kept.images, labels=labels, ids=series.ids())
        digest.update(f"{name} {series.shape} {kept.digest}".encode())
        digest.update(labels.astype("<i8").tobytes())
    drawn = Data(splits["train"], splits["val"], splits["test"], CLASSES, digest.hexdigest())
    return redivided(drawn, keys)


SOURCES: Mapping[str, Callable[[Mapping[str, Value], Path, Progress], Data]] = {
    "phantom": load_phantom,
    **{kind: partial(load_shared, kind) for kind in KINDS},
}
"""The loader for each value of `source`; a new one needs a line here and in the declarations."""


def _kept(series: Series, cache: Path, progress: Progress) -> DrawnImages:
    name = name_of(f"{series.split}-{series.size}px", asdict(series), Path(__file__).parent)
    drawing = partial(progress, f"drawing {series.split} images")
    waiting = f"waiting for {series.split} images that another process draws"
    return keep(
        cache / "phantom" / name,
        series.shape,
        make=lambda: generate(
            series,
            step=lambda ready: drawing(ready, series.count),
            threads=worthwhile_threads(series.size),
        ),
        waiting=lambda: progress(waiting, 0, series.count),
    )


def _checked(data: Mapping[str, Value]) -> dict[str, Value]:
    declared = OBJECTIVE.declarations().data
    known = ", ".join(declared)
    faults = [f"{name} is unknown; known are {known}" for name in data if name not in declared]
    keys = {name: data.get(name, parameter.default) for name, parameter in declared.items()}
    for name, value in keys.items():
        if fault := declared[name].fault(value):
            faults.append(f"{name}: {fault}")
    if faults:
        raise DataError(f"the keys of [data] have faults: {'; '.join(faults)}")
    return keys
