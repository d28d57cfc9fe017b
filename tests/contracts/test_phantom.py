"""The synthetic radiographs: what affects them, what does not, and how they are cached."""

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from objectives.chest_xray.data import load
from objectives.chest_xray.phantom import Series, generate, is_subtle, radiograph
from objectives.chest_xray.phantom_cache import DrawnImages, keep, name_of
from tuner.errors import DataError, MachineError
from tuner.records import Value
from tuner.train.objective import Data, Split

SMALL: Mapping[str, Value] = {
    "source": "phantom",
    "image_size": 32,
    "shift": 1.0,
    "seed": 0,
    "train_images": 40,
    "val_images": 20,
    "test_images": 20,
}


def nothing(*_: object) -> None:
    """Stand in for progress."""


def images_of(
    split: str = "test", count: int = 24, size: int = 32, **knobs: float
) -> NDArray[np.uint8]:
    """Draw a few images."""
    seed, shift = int(knobs.get("seed", 0)), knobs.get("shift", 0.0)
    return generate(Series(seed, split, count, size, shift), nothing, threads=2)


def load_small(cache: Path, **keys: Value) -> Data:
    """Load the small data with some keys changed."""
    return load({**SMALL, **keys}, cache, nothing)


def refuse(*_: object) -> None:
    """Be a progress callback that fails, so that nothing can be drawn."""
    raise AssertionError("images were drawn that should have been read")


def test_images_do_not_depend_on_the_number_of_threads() -> None:
    """One thread and five draw the same bytes."""
    series = Series(seed=3, split="val", count=24, size=48, shift=0.7)
    assert np.array_equal(generate(series, nothing, 1), generate(series, nothing, 5))


def digest_of_samples() -> str:
    """Return a hash of healthy and ill images of both machines, small and large."""
    digest = hashlib.sha256()
    for size, shift in ((33, 1.0), (64, 0.5), (256, 0.0)):
        digest.update(images_of(count=16, size=size, shift=shift).tobytes())
    return digest.hexdigest()


SAMPLES = "1417a4749ce80cb1c87224d6b3a8b92cccedbe1326176c29407171f4fcac8426"
"""The hash on every machine; a change of it changes the data of every phantom study."""


def test_images_are_the_same_bytes_on_every_machine() -> None:
    """The images have the same bytes on every machine, whatever its CPU and NumPy."""
    assert digest_of_samples() == SAMPLES


def test_images_do_not_depend_on_the_vector_instructions_of_the_cpu() -> None:
    """A CPU without AVX, as NumPy and the C library see it, draws the same bytes."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    code = "from tests.contracts.test_phantom import digest_of_samples as d; print(d())"
    plain = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-FMA,-FMA4",
    }
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **plain},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.strip() == SAMPLES


def test_equal_keys_give_equal_data(tmp_path: Path) -> None:
    """Drawn twice in different places, data have the same bytes and the same fingerprint."""
    one, other = load_small(tmp_path / "one"), load_small(tmp_path / "other")
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.train.images, other.train.images)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"image_size": 33}, {"shift": 0.5}, {"val_images": 18}]
)
def test_every_key_changes_the_fingerprint(tmp_path: Path, change: dict[str, Value]) -> None:
    """Data that differ in any key differ in their fingerprint."""
    assert load_small(tmp_path).fingerprint != load_small(tmp_path, **change).fingerprint


def test_another_seed_draws_other_patients() -> None:
    """No image of one seed is an image of another."""
    assert not (images_of(seed=0) == images_of(seed=1)).all(axis=(1, 2)).any()


def test_more_images_begin_with_the_fewer() -> None:
    """A larger split starts with the smaller one."""
    assert np.array_equal(images_of(count=30)[:10], images_of(count=10))


def test_no_image_is_in_two_splits_or_twice(tmp_path: Path) -> None:
    """All images of the three splits differ from one another, and so do their ids."""
    splits = splits_of(load_small(tmp_path, shift=0.0))
    images = np.concatenate([split.images for split in splits])
    assert len({image.tobytes() for image in images}) == 80
    assert len({name for split in splits for name in split.ids}) == 80


def splits_of(data: Data) -> tuple[Split, Split, Split]:
    """Return all three splits."""
    assert data.test is not None
    return data.train, data.val, data.test


def test_splits_have_the_shape_of_the_contract(tmp_path: Path) -> None:
    """Images are uint8, labels int64 and balanced, ids name seed, split and index."""
    data = load_small(tmp_path)
    assert data.classes == ("normal", "pneumonia")
    for split, count in zip(splits_of(data), (40, 20, 20), strict=True):
        assert split.images.shape == (count, 32, 32)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert int(split.labels.sum()) == count // 2
    assert data.train.ids[17] == "phantom-0-train-00017"


def test_shift_changes_the_test_images_only(tmp_path: Path) -> None:
    """Training and validation images are the same bytes at every shift; test images are not."""
    near, far = load_small(tmp_path, shift=0.0), load_small(tmp_path, shift=1.0)
    assert np.array_equal(near.train.images, far.train.images)
    assert np.array_equal(near.val.images, far.val.images)
    assert not (splits_of(near)[2].images == splits_of(far)[2].images).all(axis=(1, 2)).any()
    assert splits_of(near)[2].ids == splits_of(far)[2].ids


def test_another_machine_photographs_the_same_patients() -> None:
    """A test image at shift 1 resembles its own patient at shift 0 more than other patients."""
    near, far = (standard(images_of(count=40, shift=shift)) for shift in (0.0, 1.0))
    alike = far @ near.T
    ranks = (alike > np.diag(alike)[:, None]).sum(axis=1)
    assert ranks.mean() < 10  # 19.5 by chance


def standard(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return images as rows of norm one, without the mean image."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_without_shift_test_images_are_like_validation_images() -> None:
    """At shift 0 mean, contrast and sharpness agree within sampling error; at 1 they do not."""
    val = features(images_of("val", count=120))
    near = features(images_of("test", count=120))
    far = features(images_of("test", count=120, shift=1.0))
    assert np.abs(z_scores(val, near)).max() < 4
    assert np.abs(z_scores(val, far)).max() > 8


def features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return mean, contrast, and roughness of each image."""
    values = images.astype(np.float64)
    rough = np.abs(np.diff(values, axis=2)).mean(axis=(1, 2))
    return np.stack([values.mean(axis=(1, 2)), values.std(axis=(1, 2)), rough], axis=1)


def z_scores(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the differences of two samples' means in standard errors."""
    error = np.sqrt(one.var(axis=0, ddof=1) / len(one) + other.var(axis=0, ddof=1) / len(other))
    return np.asarray((one.mean(axis=0) - other.mean(axis=0)) / error)


@pytest.mark.parametrize("size", [32, 48, 96, 128, 256])
def test_a_patient_looks_the_same_at_every_size(size: int) -> None:
    """Reduced to 16 pixels, an image of any size agrees with the one drawn at 64."""
    for index in (0, 1):
        pair = [radiograph(Series(0, "train", 2, each, 0.0), index) for each in (64, size)]
        small, reference = (reduced(image) for image in pair)
        assert np.corrcoef(small.ravel(), reference.ravel())[0, 1] > 0.98


def reduced(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Average an image over a grid of 16 × 16."""
    rows = np.array_split(image.astype(np.float64), 16)
    return np.array([[c.mean() for c in np.array_split(row, 16, axis=1)] for row in rows])


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_grey_values_use_the_range_and_are_rarely_clipped(shift: float) -> None:
    """Images span dark to bright, and few pixels sit at the ends of the scale."""
    images = images_of(count=60, size=64, shift=shift)
    low, high = np.percentile(images, [2, 98], axis=(1, 2))
    assert np.median(high - low) > 100
    assert np.isin(images, (0, 255)).mean() < 0.05


def test_pneumonia_brightens_the_lungs_and_subtle_disease_less() -> None:
    """Ill lungs are brighter than healthy ones on average, most so if disease is plain."""
    images = images_of("train", count=280)[:, 10:22].astype(np.float64)
    lungs = np.concatenate([images[:, :, 5:10], images[:, :, 23:27]], axis=2).mean(axis=(1, 2))
    index = np.arange(280)
    subtle = np.array([is_subtle(each) for each in range(280)])
    healthy, hidden, plain = (
        float(lungs[group].mean()) for group in (index % 2 == 0, subtle, (index % 2 == 1) & ~subtle)
    )
    assert subtle.sum() == 20
    assert healthy < hidden < plain - 5


def test_kept_images_are_read_and_not_drawn_again(tmp_path: Path) -> None:
    """A second load reads the cache, draws nothing and gives the same data."""
    first = load_small(tmp_path)
    again = load(SMALL, tmp_path, refuse)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.val.images, first.val.images)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "grow"])
def test_a_damaged_file_is_noticed_and_made_again(tmp_path: Path, damage: str) -> None:
    """Whatever happened to a cached file, the images are those first drawn."""
    first = load_small(tmp_path)
    for path in (tmp_path / "phantom").glob("*.u8"):
        content = bytearray(path.read_bytes())
        content[100] ^= 1 if damage == "flip" else 0
        sizes = {"cut": content[:-7], "empty": content[:0], "flip": content, "grow": content + b"x"}
        path.write_bytes(sizes[damage])
    again = load_small(tmp_path)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.train.images, first.train.images)
    load(SMALL, tmp_path, refuse)


def test_processes_that_come_at_once_get_the_same_data(tmp_path: Path) -> None:
    """Two processes that start with an empty cache both succeed, and agree."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        one, other = pool.map(fingerprint_of, [tmp_path, tmp_path])
    assert one == other == load_small(tmp_path / "alone").fingerprint
    assert not list(tmp_path.glob("phantom/*.tmp"))


def fingerprint_of(cache: Path) -> str:
    """Load the small data, in its own process."""
    return load_small(cache).fingerprint


def test_the_second_to_come_waits_for_the_first(tmp_path: Path) -> None:
    """While one process draws, another waits and then reads the cache."""
    path, drawing, waiting = tmp_path / "images.u8", threading.Event(), threading.Event()
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)

    def draw() -> NDArray[np.uint8]:
        drawing.set()
        assert waiting.wait(30)
        return images

    found: list[DrawnImages] = []
    first = threading.Thread(target=lambda: found.append(keep(path, (2, 4, 4), draw, nothing)))
    first.start()
    assert drawing.wait(30)
    second = keep(path, (2, 4, 4), make=lambda: images + 1, waiting=waiting.set)
    first.join()
    assert second.digest == found[0].digest
    assert np.array_equal(second.images, images)


def test_a_changed_generator_does_not_meet_old_images(tmp_path: Path) -> None:
    """The name of a cached file depends on the generator's source and on every key."""
    (tmp_path / "phantom.py").write_text("a = 1")
    before = name_of("train", {"seed": 0}, tmp_path)
    assert name_of("train", {"seed": 0}, tmp_path) == before
    assert name_of("train", {"seed": 1}, tmp_path) != before
    (tmp_path / "phantom.py").write_text("a = 2")
    assert name_of("train", {"seed": 0}, tmp_path) != before


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file in place of the cache's folder is an error that names the path."""
    (tmp_path / "phantom").write_text("in the way")
    with pytest.raises(MachineError, match="phantom"):
        load_small(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shift", 1.5),
        ("shift", -0.1),
        ("shift", float("nan")),
        ("image_size", 16),
        ("image_size", 512),
        ("image_size", 64.5),
        ("seed", -1),
        ("train_images", 0),
        ("source", "camera"),
        ("exposure", 1.0),
    ],
)
def test_a_key_out_of_range_is_told(tmp_path: Path, key: str, value: Value) -> None:
    """A value out of range and an unknown key are reported by name; nothing is drawn."""
    with pytest.raises(DataError, match=key):
        load_small(tmp_path, **{key: value})
    assert not list(tmp_path.iterdir())


def test_progress_counts_the_images_of_each_split(tmp_path: Path) -> None:
    """Progress names what is drawn, and ends at the total."""
    told: list[tuple[str, int, int]] = []
    load(SMALL, tmp_path, lambda what, done, all_of_it: told.append((what, done, all_of_it)))
    assert ("drawing train images", 40, 40) in told
    assert ("drawing test images", 20, 20) in told
    assert len(told) == 80
