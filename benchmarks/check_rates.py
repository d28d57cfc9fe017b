"""How often `tuner check` is wrong: false alarms and misses of its duplicates and its probe.

    python -m benchmarks.check_rates

Everything is drawn by the phantom, so the figures can be reproduced anywhere.
"""

import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuner.check.duplicates import find_duplicates
from tuner.check.probe import probe
from tuner.records import Value
from tuner.train.objective import Data, Split, find

Picture = NDArray[np.uint8]
DIVISIONS = 200
"""Random divisions of one distribution for the probe."""


def main() -> None:
    """Print all rates."""
    with tempfile.TemporaryDirectory() as folder:
        for size in (64, 128):
            data = draw(Path(folder), size, 0.0)
            print(
                f"{size} px: {len(find_duplicates(data).groups)} false duplicates in 2,400 images"
            )
            for name, change in CHANGES.items():
                print(f"  {name:28s} found {found(data, change)} of 80")
        coverage(draw(Path(folder), 64, 0.0))
        for shift in (0.0, 0.25, 0.5, 1.0):
            data = draw(Path(folder), 64, shift)
            assert data.test is not None
            print(f"shift {shift}: {probe(('train', data.train), ('test', data.test))}")


def draw(cache: Path, size: int, shift: float) -> Data:
    """Draw the phantom."""
    objective = find("chest_xray", [])
    declared = objective.objective.declarations().data
    keys: dict[str, Value] = {name: one.default for name, one in declared.items()}
    return objective.load_data({**keys, "image_size": size, "shift": shift}, cache, nothing)


def nothing(*_: object) -> None:
    """Stand in for progress."""


def coverage(data: Data) -> None:
    """Print how often the probe's interval contains 0.5 if there is no difference."""
    images = np.concatenate([data.train.images, data.val.images])
    labels = np.concatenate([data.train.labels, data.val.labels])
    random = np.random.default_rng(0)
    for one, other in ((1000, 400), (400, 400), (160, 80)):
        covered = told = 0
        for _ in range(DIVISIONS):
            places = random.permutation(len(images))
            parts = [
                Split(images[some], labels[some], ())
                for some in (places[:one], places[one : one + other])
            ]
            seen = probe(("a", parts[0]), ("b", parts[1]))
            assert seen is not None
            covered += seen.low <= 0.5 <= seen.high
            told += seen.tells_apart
        print(
            f"probe, {one} and {other} images of one distribution: interval holds 0.5 in "
            f"{covered / DIVISIONS:.1%}, false alarm in {told / DIVISIONS:.1%} of {DIVISIONS}"
        )


def found(data: Data, change: Callable[[Picture], Any]) -> int:
    """Return how many of 80 changed copies of training images in the test set are found."""
    assert data.test is not None
    copies = [np.asarray(change(np.array(data.train.images[20 * k])), np.uint8) for k in range(80)]
    test = Split(
        np.concatenate([data.test.images, np.stack(copies)]),
        np.concatenate([data.test.labels, np.zeros(80, dtype=np.int64)]),
        (*data.test.ids, *(f"copy{k}" for k in range(80))),
    )
    seen = find_duplicates(replace(data, test=test))
    return seen.count(exact=True, across=True) + seen.count(exact=False, across=True)


def _jpeg(picture: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _resized(picture: Picture) -> Picture:
    side = picture.shape[0]
    small = Image.fromarray(picture).resize((side * 3 // 4,) * 2, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))


def _moved(picture: Picture) -> Picture:
    return np.pad(picture, 1, mode="edge")[:-2, 1:-1]


def _noisy(picture: Picture) -> Any:
    return np.clip(picture + np.random.default_rng(0).normal(0, 3, picture.shape), 0, 255)


CHANGES: Mapping[str, Callable[[Picture], Any]] = {
    "copied": lambda picture: picture,
    "JPEG, quality 90": lambda picture: _jpeg(picture, 90),
    "JPEG, quality 60": lambda picture: _jpeg(picture, 60),
    "5 grey values brighter": lambda picture: np.clip(picture + 5.0, 0, 255),
    "10% more contrast": lambda picture: np.clip((picture - 128.0) * 1.1 + 128, 0, 255),
    "three quarters and back": _resized,
    "noise of 3 grey values": _noisy,
    "moved by one pixel": _moved,
}


if __name__ == "__main__":
    main()
