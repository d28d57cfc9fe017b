"""The process that reads a study's images and makes thumbnails of them for the dashboard.

It loads the data as a trainer does, and returns no pixel before it has checked that they are the
data that the trial was trained on. So people see what the network saw. It also means that a path
written into the database cannot be used to read files: images are shown only if their hash is
stored, and nobody can store the hash of data that they do not have.
"""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.questions import Body, Progress, serve
from tuner.store.identities import data_part
from tuner.text import storable_names
from tuner.train.identity import content, data_identity
from tuner.train.objective import Split, find

SIDE = 192
"""Maximum length of a thumbnail's longer side, in pixels."""


def png(pixels: NDArray[Any]) -> bytes:
    """Return an image as PNG: grey or in colour, no larger than a thumbnail, without metadata."""
    from PIL import Image

    planes = pixels if pixels.ndim == 3 else pixels[None]
    # With neither one nor three channels, the first is shown.
    shown = np.moveaxis(planes, 0, -1) if len(planes) == 3 else planes[0]
    image = Image.fromarray(_eight_bits(shown))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return uint8 pixels unchanged, others scaled: the lowest value black, the highest white."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)


def _work(body: Body, progress: Progress) -> Body:
    found = find(body["objective"], [Path(folder) for folder in body["folders"]])
    data = found.load_data(body["data"], Path(body["cache"]), progress)
    changed: dict[str, Any] = {"changed": True, "images": []}
    if data.fingerprint != body["fingerprint"]:
        return changed
    # An objective's own fingerprint may say anything, so the pixels are hashed as well.
    if body["contents"]:
        identity = data_identity(data, body["data"], content(data))
        if data_part(identity).fingerprint not in body["contents"]:
            return changed
    split = {"train": data.train, "val": data.val, "test": data.test}[body["split"]]
    # Pixels, labels and order are the trial's, but files may have been renamed.
    if split is None or not _are_there(split, data.classes, body["wanted"]):
        return changed
    pictures = (png(split.images[place]) for place, _, _ in body["wanted"])
    return {"changed": False, "images": [base64.b64encode(one).decode() for one in pictures]}


def _are_there(
    split: Split, classes: Sequence[str], wanted: Sequence[tuple[int, str, str]]
) -> bool:
    ids = storable_names([str(name) for name in split.ids])
    names = storable_names([str(name) for name in classes])
    return all(
        0 <= place < len(ids) and ids[place] == name and names[int(split.labels[place])] == label
        for place, name, label in wanted
    )


def main(_arguments: Sequence[str]) -> int:
    """Do the work that standard input describes."""
    # Training on this machine has priority.
    os.nice(5)
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))
