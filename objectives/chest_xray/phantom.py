"""Synthetic chest radiographs: each image is a function of (seed, split, index, size, shift).

Each image has its own random streams, one each for the patient, the disease, the machine and the
noise. So the number of threads does not matter, a larger data set begins with the smaller one, a
patient is the same at every size, and another shift shows the same patients on another machine.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import draw_patient
from .anatomy_shadow import body_of, cast_shadow
from .phantom_arithmetic import Draws
from .phantom_machine import draw_machine, expose
from .phantom_opacity import draw_disease, fill

CLASSES = ("normal", "pneumonia")
SPLITS = ("train", "val", "test")
SUBTLE_EVERY = 7

Step = Callable[[int], None]
"""Called with the number of images that are ready."""


@dataclass(frozen=True)
class Series:
    """The first `count` images of a split: everything that determines them, and nothing else."""

    seed: int
    split: str
    count: int
    size: int
    """Height and width in pixels."""
    shift: float
    """0 for the machine that made the training images, 1 for the mobile one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape of the array of images."""
        return (self.count, self.size, self.size)

    def labels(self) -> NDArray[np.int64]:
        """Return the labels: every second patient is ill."""
        return np.arange(self.count, dtype=np.int64) % 2

    def ids(self) -> tuple[str, ...]:
        """Return a name for each patient, the same for every size and shift."""
        return tuple(f"phantom-{self.seed}-{self.split}-{i:05d}" for i in range(self.count))


def is_subtle(index: int) -> bool:
    """Return whether the disease is hardly visible, as in every seventh patient who is ill.

    The share is fixed rather than random, because it limits the accuracy that can be reached, and a
    split of a few hundred images must not be easier than another.
    """
    return index % 2 == 1 and index // 2 % SUBTLE_EVERY == SUBTLE_EVERY - 1


def radiograph(series: Series, index: int) -> NDArray[np.uint8]:
    """Draw one image, `(size, size)`."""
    patients, diseases, machines, noise = _streams(series, index)
    patient = draw_patient(patients)
    machine = draw_machine(machines, series.shift)
    frame = machine.frame(series.size)
    shadow = cast_shadow(patient, frame)
    attenuation = shadow.attenuation
    if index % 2:
        disease = draw_disease(diseases, is_subtle(index))
        opacities = fill(disease, body_of(patient, frame), frame, shadow.lungs)
        attenuation = attenuation + opacities * (patient.air * patient.girth)
    grey = expose(attenuation, machine, frame, noise)
    pixels: NDArray[np.uint8] = np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
    return pixels


def generate(series: Series, step: Step, threads: int) -> NDArray[np.uint8]:
    """Draw all images of a series, `(count, size, size)`, on this many threads."""
    images = np.empty(series.shape, dtype=np.uint8)

    def draw(index: int) -> None:
        images[index] = radiograph(series, index)

    # Threads, not processes: NumPy releases the interpreter's lock while it works, and a trainer,
    # itself a child process, need not start others.
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for ready, _ in enumerate(pool.map(draw, range(series.count)), start=1):
            step(ready)
    return images


def worthwhile_threads(size: int) -> int:
    """Return the number of threads with which images of a size are drawn fastest."""
    # Measured on 2 cores: below 160 pixels, threads mostly wait for the interpreter's lock, and two
    # are slower than one (64 px: 1.6 and 1.2 ms per image).
    if size < 160:
        return 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(allowed or 1, 4)


def _streams(series: Series, index: int) -> list[Draws]:
    place = SPLITS.index(series.split)
    keys = (np.random.SeedSequence(series.seed, spawn_key=(place, index, k)) for k in range(4))
    return [Draws(key) for key in keys]
