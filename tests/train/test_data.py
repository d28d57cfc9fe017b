"""Data are checked, standardised by the training split alone, and described."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from tuner.errors import DataError
from tuner.train.data import Feed, moments, prepare
from tuner.train.objective import Data, Images, Split

CPU = torch.device("cpu")


def split(images: Images) -> Split:
    """Return a split of these images with alternating labels."""
    count = len(images)
    return Split(images, np.arange(count, dtype=np.int64) % 2, tuple(str(i) for i in range(count)))


def data(dtype: type[np.uint8] | type[np.float32] = np.uint8, channels: int = 0) -> Data:
    """Return random data whose validation and test images are brighter than the training ones."""
    random = np.random.default_rng(0)
    shape = (channels, 5, 4) if channels else (5, 4)
    parts = [
        split(cast(Images, random.integers(low, low + 80, (count, *shape)).astype(dtype)))
        for count, low in ((150, 0), (20, 90), (10, 170))
    ]
    return Data(parts[0], parts[1], parts[2], classes=("a", "b"), fingerprint="f")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_batches_are_standardised_by_the_training_split(
    dtype: type[np.uint8] | type[np.float32], channels: int
) -> None:
    """Every split is shifted and scaled by the training pixels' mean and deviation by channel."""
    given = data(dtype, channels)
    assert given.test is not None
    prepared = prepare(given, CPU)
    assert prepared.inputs == (max(channels, 1), 5, 4)
    train = given.train.images.reshape(150, -1, 5, 4).astype(np.float64)
    mean = train.mean(axis=(0, 2, 3), keepdims=True)[0]
    deviation = train.std(axis=(0, 2, 3), keepdims=True)[0]
    assert prepared.test is not None
    batch = Feed(prepared, prepared.test, 4).gather(torch.tensor([3, 1, 7])).numpy()
    wanted = (given.test.images.reshape(10, -1, 5, 4)[[3, 1, 7]] - mean) / deviation
    np.testing.assert_allclose(batch, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(131, 1, 3, 5), (70, 3, 7, 4), (1, 2, 1, 1), (64, 1, 2, 2)])
def test_moments_of_bytes_are_those_of_all_pixels(shape: tuple[int, ...]) -> None:
    """Counted by value, also with an odd number of pixels at a time and in part of an array."""
    random = np.random.default_rng(1)
    wide = random.integers(0, 256, (shape[0] * 2, *shape[1:]), dtype=np.uint8)
    for images in (wide[::2], np.full(shape, 255, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)):
        mean, deviation = moments(images)
        exact = images.astype(np.float64)
        np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(deviation, exact.std(axis=(0, 2, 3)), rtol=1e-12)


def test_both_ways_to_a_batch_agree() -> None:
    """Batches in order and by index have the same images."""
    prepared = prepare(data(), CPU)
    feed = Feed(prepared, prepared.val, 8)
    in_order = feed.between(4, 10).clone()
    assert torch.equal(in_order, feed.gather(torch.arange(4, 10)))


def test_images_that_are_all_one_grey_stay_finite() -> None:
    """Without any deviation images are only centred."""
    flat = split(np.full((4, 2, 2), 7, dtype=np.uint8))
    prepared = prepare(Data(flat, flat, None, ("a", "b"), "f"), CPU)
    assert torch.equal(Feed(prepared, prepared.val, 4).between(0, 4), torch.zeros(4, 1, 2, 2))


def test_images_from_a_read_only_map_are_welcome(recwarn: pytest.WarningsRecorder) -> None:
    """A read-only array is used without a copy and without a warning."""
    given = data()
    given.train.images.flags.writeable = False
    prepared = prepare(given, CPU)
    assert np.shares_memory(prepared.train.images.numpy(), given.train.images)
    assert not recwarn.list


def test_the_store_is_told_the_true_classes_of_val_and_test() -> None:
    """The description has sizes of all splits, and labels and ids of the predicted ones."""
    given = data()
    described = prepare(given, CPU).describe()
    assert described.sizes == {"train": 150, "val": 20, "test": 10}
    assert [labels.split for labels in described.labels] == ["val", "test"]
    assert described.labels[0].ids == given.val.ids
    assert described.labels[0].labels.tolist() == given.val.labels.tolist()
    assert prepare(replace(given, test=None), CPU).describe().sizes == {"train": 150, "val": 20}


def test_patients_are_described_by_image() -> None:
    """Patients of validation and test are stored by image; data without patients have none."""
    given = data()
    assert [one.patients for one in prepare(given, CPU).describe().labels] == [(), ()]
    named = replace(given.val, patients=tuple(f"p{i // 2}" for i in range(20)))
    described = prepare(replace(given, val=named), CPU).describe()
    assert [one.patients for one in described.labels] == [named.patients, ()]


GOOD = data().val
FAULTS = [
    (replace(GOOD, images=GOOD.images[0]), r"expected images \(n, height"),
    (replace(GOOD, images=GOOD.images[:0]), r"expected images \(n, height"),
    (replace(GOOD, images=GOOD.images[:, :3]), "the training split's are"),
    (replace(GOOD, labels=GOOD.labels[:5]), "do not match"),
    (replace(GOOD, ids=GOOD.ids[:5]), "do not match"),
    (replace(GOOD, patients=("p",) * 19), "20 images and 19 patients do not match"),
    (replace(GOOD, labels=GOOD.labels + 1), "labels must be 0 to 1, got 1 to 2"),
    (replace(GOOD, labels=GOOD.labels - 1), "labels must be 0 to 1, got -1 to 0"),
    (
        replace(GOOD, images=cast(Images, GOOD.images.astype(np.int16))),
        "uint8 or float32 images, got int16",
    ),
    (replace(GOOD, images=np.full(GOOD.images.shape, np.nan, np.float32)), "NaN or infinite"),
]


@pytest.mark.parametrize(("bad", "message"), FAULTS)
def test_a_split_that_cannot_be_used_is_named(bad: Split, message: str) -> None:
    """The error names the split and what is wrong with it."""
    with pytest.raises(DataError, match=f"the validation split cannot be used: .*{message}"):
        prepare(replace(data(), val=bad), CPU)


def test_one_class_is_not_enough() -> None:
    """Data with one class are refused."""
    with pytest.raises(DataError, match="two or more"):
        prepare(replace(data(), classes=("a",)), CPU)
