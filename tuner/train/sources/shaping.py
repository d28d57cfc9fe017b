"""Brings images to one size and one type, by the keys `fit` and `depths` of [data].

Training and prediction use the same functions, so that a new file gives exactly the pixels
that it would have been trained on.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.sources.files import DEPTH, FileImage, Fit, Kind, UnreadableError
from tuner.train.sources.pool import Pixels

SMALLEST = 8
"""Smallest side in pixels that images may be resized to."""
DISTORTED = 0.01
"""Change of the aspect ratio above which an image counts as distorted."""
MIXED = "mixed"
"""The kind of files if files of any kind are accepted."""

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Shape:
    """The settings of [data] for sizes and depths."""

    size: int
    """Pixels per side; 0 for the commonest size of the training images."""
    fit: Fit
    depths: str

    @classmethod
    def read(cls, keys: Mapping[str, Value]) -> "Shape":
        """Read the keys; `fit` and `depths` are optional in an objective."""
        size = int(keys["image_size"])
        if 0 < size < SMALLEST:
            raise DataError(f"image_size = {size} is too small; use at least {SMALLEST}, or 0")
        fit = cast(Fit, str(keys.get("fit", "stretch")))
        return cls(size, fit, str(keys.get("depths", "same")))

    def target(self, training: Sequence[Size]) -> Size:
        """Return the height and width that all images are resized to."""
        return (self.size, self.size) if self.size else commonest(training)

    def words(self, sizes: Sequence[Size], height: int, width: int) -> list[str]:
        """Return notes on how many images were resized, and how that changed them."""
        others = [size for size in sizes if size != (height, width)]
        if not others:
            return []
        shared = ", the commonest of the training images (height × width)" if not self.size else ""
        how = {"stretch": "stretched", "pad": "padded with black", "crop": "cropped"}[self.fit]
        count = len(set(others))
        note = (
            f"{len(others)} of {len(sizes)} images have another size"
            f"{f' ({count} sizes)' if count > 1 else ''}; all were "
            f"{'stretched' if self.fit == 'stretch' else 'resized and ' + how} to "
            f"{height}×{width}{shared}."
        )
        ratios = [abs(math.log(w / h * height / width)) for h, w in others]
        bent = [ratio for ratio in ratios if ratio > DISTORTED]
        if bent and self.fit == "stretch":
            note += (
                f" That changed the proportions of {len(bent)}, by up to "
                f"{math.expm1(max(bent)):.0%}; fit = 'pad' or 'crop' keeps them."
            )
        elif bent:
            note += f" {len(bent)} of them have other proportions, and were {how}."
        return [note]


def commonest(sizes: Iterable[Size]) -> Size:
    """Return the height and width that most images have; in a tie the larger."""
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size))


def common_depth(kinds: Iterable[Kind], depths: str) -> type[np.generic]:
    """Return the type that images of these kinds are converted to."""
    found = set(kinds)
    if depths == "window":
        return np.float32
    if depths == "range":
        # Images deeper than 8 bits stay deep; the same window is applied to all later.
        return np.uint8 if found == {"8-bit"} else np.uint16
    (kind,) = found
    return DEPTH[kind]


def deepened(image: FileImage, depth: str, depths: str) -> Pixels:
    """Return an image's pixels in the common type, as `depths` says."""
    if depths == "range":
        if image.range is None:
            raise UnreadableError(
                "its values are floats, which have no fixed range; depths = 'window' takes "
                "all values as they are"
            )
        return ranged(image.pixels, image.range, depth)
    return image.pixels.astype(depth) if depths == "window" else image.pixels


def ranged(pixels: Pixels, limits: tuple[float, float], depth: str) -> Pixels:
    """Scale pixels from the range of their type to that of another."""
    top = 255 if depth == "uint8" else 65535
    low, high = limits
    if (low, high) == (0, top) and str(pixels.dtype) == depth:
        return pixels
    scaled = (pixels.astype(np.float64) - low) * (top / (high - low))
    found: Pixels = np.rint(np.clip(scaled, 0, top)).astype(depth)
    return found


def fitted(pixels: Pixels, height: int, width: int, fit: Fit = "stretch") -> Pixels:
    """Return an image in this size: stretched, or padded or cropped with its aspect ratio kept.

    Padding is black: 0, or the image's lowest value for floats.
    """
    own_height, own_width = pixels.shape
    if fit == "pad" and pixels.shape != (height, width):
        ratio = min(height / own_height, width / own_width)
        inner = (
            min(height, max(1, round(own_height * ratio))),
            min(width, max(1, round(own_width * ratio))),
        )
        black = pixels.min() if pixels.dtype.kind == "f" else 0
        padded = np.full((height, width), black, dtype=pixels.dtype)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        padded[top : top + inner[0], left : left + inner[1]] = resize(pixels, *inner)
        return padded
    if fit == "crop" and pixels.shape != (height, width):
        # Crop before resizing, so that only the cropped part is resized.
        ratio = max(height / own_height, width / own_width)
        kept = (
            min(own_height, max(1, round(height / ratio))),
            min(own_width, max(1, round(width / ratio))),
        )
        top, left = (own_height - kept[0]) // 2, (own_width - kept[1]) // 2
        pixels = np.ascontiguousarray(pixels[top : top + kept[0], left : left + kept[1]])
    return resize(pixels, height, width)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return an image stretched to a size by area averaging."""
    if pixels.shape == (height, width):
        return pixels
    deep = pixels.dtype != np.uint8
    image = Image.fromarray(pixels.astype(np.float32) if deep else pixels)
    found: Pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if pixels.dtype == np.uint16:
        found = np.rint(np.clip(found, 0, 65535))
    return found.astype(pixels.dtype)
