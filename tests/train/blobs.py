"""A tiny learnable objective, written to disk as by a user, and jobs on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.records import Epoch, Job, Value
from tuner.train.workbench import Workbench

DECLARATIONS = '''
"""Bright blobs on noise: class 1 is bright on the right, class 0 on the left."""

from tuner.spec.parameters import Parameter
from tuner.train.objective import Objective

OBJECTIVE = Objective(
    parameters=[
        Parameter("hidden", "int", 8, "hidden units", low=1),
        Parameter("batch_norm", "bool", True, "normalise the hidden layer"),
        Parameter("plain", "bool", False, "known layers alone, which may train as a pack"),
    ],
    data=[
        Parameter("train_images", "int", 97, "images to train on"),
        Parameter("classes", "int", 2, "how many kinds of blob"),
        Parameter("contrast", "float", 40.0, "brightness of a blob"),
        Parameter("floats", "bool", False, "float32 images in place of uint8"),
        Parameter("each", "int", 0, "images of a patient; 0 where patients are not named"),
    ],
)
'''

PAUSE = "BLOBS_PAUSE_SECONDS"
"""A variable that makes each training step wait, so that a test can act during a training. Waiting
leaves the CPU to other tests, and results do not depend on it.
"""

DATA = '''
"""Noise with one bright column a class; each load leaves a line in the cache."""

import numpy as np

from tuner.train.objective import Data, Split

SIGNATURE = 250


def load(data, cache, progress):
    """Generate the three splits; test images carry a signature in their first pixel."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "loads").open("a") as log:
        log.write("load\\n")
    progress("blobs", 1, 1)
    classes = data["classes"]
    splits = [
        _split(seed, count, data)
        for seed, count in enumerate((data["train_images"], data.get("val_images", 40), 30))
    ]
    splits[2].images[:, 0, 0] = SIGNATURE
    names = tuple(f"class{k}" for k in range(classes))
    return Data(*splits, classes=names, fingerprint=f"blobs-{sorted(data.items())}")


def _split(seed, count, data):
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % data["classes"]
    images = random.normal(100, 40, (count, 6, 6))
    images[np.arange(count), :, 1 + labels] += data["contrast"]
    images[:, 0, 0] = 100
    images = images.clip(0, 240).astype(np.float32 if data["floats"] else np.uint8)
    each = data.get("each", 0)
    patients = tuple(f"{seed}-{i // each}" for i in range(count)) if each else ()
    return Split(images, labels, tuple(f"{seed}-{i}" for i in range(count)), patients)
'''

MODELS = '''
"""One hidden layer with dropout, which counts the test images it is shown."""

import os
import time

from torch import nn

PAUSE_SECONDS = float(os.environ.get("BLOBS_PAUSE_SECONDS", "0"))
SEEN = {"test": 0, "images": 0}


class Counting(nn.Module):
    """Let images pass, counting those with the test split's signature."""

    def forward(self, images):
        """Return the images flattened; in training after the pause that was asked for."""
        if self.training and PAUSE_SECONDS:
            time.sleep(PAUSE_SECONDS)
        flat = images.flatten(1)
        SEEN["images"] += len(flat)
        SEEN["test"] += int((flat[:, 0] > flat[:, 1:].amax(dim=1)).sum())
        return flat


def build(parameters, inputs, outputs):
    """Build a network with one hidden layer."""
    channels, height, width = inputs
    hidden = parameters["hidden"]
    norm = [nn.BatchNorm1d(hidden)] if parameters["batch_norm"] else []
    first = nn.Linear(channels * height * width, hidden)
    tail = [nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, outputs)]
    if parameters.get("plain"):
        return nn.Sequential(nn.Flatten(), first, *norm, *tail)
    return nn.Sequential(Counting(), first, *norm, *tail)
'''


OWN_MODELS = '''
"""A network of its own: a way around, batch norm, dropout. A "plain" one reads what it computes."""

import torch
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    def __init__(self, parameters, inputs, outputs):
        super().__init__()
        channels, height, width = inputs
        hidden = parameters["hidden"]
        self.first = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.dropout = nn.Dropout(parameters["dropout"])
        self.last = nn.Linear(hidden, outputs)
        self.reads = parameters["plain"]

    def forward(self, images):
        found = functional.relu(images + self.dropout(self.norm(self.first(images))))
        if self.reads and found.max() > 1e9:
            raise ValueError("too bright")
        return self.last(found.mean((2, 3)))


def build(parameters, inputs, outputs):
    return Network({"dropout": 0.2, **parameters}, inputs, outputs)
'''


@dataclass(frozen=True)
class Blobs:
    """The folder of the blobs objective, with jobs and workbenches for it."""

    folder: Path
    cache: Path

    def workbench(self) -> Workbench:
        """Return a fresh workbench on the CPU with one thread."""
        return Workbench("cpu", 1, self.cache, [self.folder], lambda *_: None)

    def loads(self) -> int:
        """Return how often the data were loaded."""
        return len((self.cache / "loads").read_text().splitlines())


def write_blobs(place: Path) -> Blobs:
    """Write the blobs objective below a folder."""
    write_objective(place / "objectives" / "blobs", DECLARATIONS, DATA, MODELS)
    return Blobs(place / "objectives", place / "cache")


def write_own_blobs(place: Path) -> Blobs:
    """Write the blobs objective with a network that is not a stack of layers."""
    write_objective(place / "objectives" / "blobs", DECLARATIONS, DATA, OWN_MODELS)
    return Blobs(place / "objectives", place / "cache")


def write_objective(package: Path, declarations: str, data: str = "", models: str = "") -> None:
    """Write an objective package."""
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(declarations)
    (package / "data.py").write_text(data)
    (package / "models.py").write_text(models)


def blob_job(
    seed: int = 0,
    metric: str = "val_loss",
    data: Mapping[str, Value] | None = None,
    **parameters: Value,
) -> Job:
    """Return a job on the blobs, three epochs long unless said otherwise."""
    chosen: dict[str, Value] = {"hidden": 8, "batch_norm": True, "epochs": 3, "lr": 1e-2}
    keys: dict[str, Value] = {"train_images": 97, "classes": 2, "contrast": 40.0, "floats": False}
    return Job("blobs", {**chosen, **parameters}, {**keys, **(data or {})}, seed, metric)


def untimed(epoch: Epoch) -> tuple[object, ...]:
    """Return an epoch's figures without its durations, which may differ between runs."""
    durations = ("seconds", "val_seconds")
    return tuple(value for name, value in vars(epoch).items() if name not in durations)


def nothing() -> None:
    """Stand in for `alive`."""
