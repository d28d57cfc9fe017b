"""Planted duplicates are found and counted; different images are not called duplicates."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.train.sources.image_files import chest
from tuner.check.duplicates import find_duplicates
from tuner.train.objective import Data, Split

Picture = NDArray[np.uint8]
PLANTED = 20


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Draw radiographs, which all look alike, as for a study."""
    counts = {"train_images": 800, "val_images": 200, "test_images": 200}
    return chest(tmp_path_factory.mktemp("cache"), image_size=64, **counts)


def added(split: Split, pictures: list[Picture], name: str) -> Split:
    """Return a split with additional images."""
    return Split(
        np.concatenate([split.images, np.stack(pictures)]),
        np.concatenate([split.labels, np.zeros(len(pictures), dtype=np.int64)]),
        (*split.ids, *(f"{name}{i}" for i in range(len(pictures)))),
    )


def planted(data: Data, change: Callable[[Picture], Picture]) -> Data:
    """Return data whose test split contains changed copies of training images."""
    assert data.test is not None
    copies = [change(np.array(data.train.images[7 * i])) for i in range(PLANTED)]
    return replace(data, test=added(data.test, copies, "planted"))


def compressed(picture: Picture) -> Picture:
    """Compress a picture as JPEG and read it back."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


def brightened(picture: Picture) -> Picture:
    """Make a picture brighter with more contrast."""
    return np.asarray(np.clip(picture * 1.05 + 5, 0, 255), dtype=np.uint8)


def resized(picture: Picture) -> Picture:
    """Shrink a picture and enlarge it again."""
    small = Image.fromarray(picture).resize((56, 56), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((64, 64), Image.Resampling.BILINEAR))


def test_different_radiographs_are_not_duplicates(phantom: Data) -> None:
    """No two of 1,200 similar phantoms are called duplicates."""
    assert find_duplicates(phantom).groups == ()


def test_copies_are_exact_duplicates(phantom: Data) -> None:
    """Every copy is listed with its original, in the order of the splits."""
    found = find_duplicates(planted(phantom, lambda picture: picture))
    assert found.count(exact=True, across=True) == PLANTED
    assert found.count(exact=False, across=True) == 0
    assert found.groups[0].images[0][0] == "train"
    named = {group.images for group in found.groups}
    assert (("train", phantom.train.ids[7]), ("test", "planted1")) in named


@pytest.mark.parametrize("change", [compressed, brightened, resized])
def test_the_same_picture_stored_anew_is_a_near_duplicate(
    phantom: Data, change: Callable[[Picture], Picture]
) -> None:
    """A compressed, brightened or resized picture is a near duplicate, not an exact one."""
    found = find_duplicates(planted(phantom, change))
    assert found.count(exact=True, across=True) == 0
    assert found.count(exact=False, across=True) >= PLANTED - 2


def test_counting_of_larger_groups(phantom: Data) -> None:
    """Copies are counted once per image of a later split; repeats within their own split."""
    assert phantom.test is not None
    one = np.array(phantom.train.images[3])
    data = replace(
        phantom,
        train=added(phantom.train, [one], "again"),
        val=added(phantom.val, [one], "copy"),
        test=added(phantom.test, [one, one], "copy"),
    )
    (group,) = find_duplicates(data).groups
    assert (len(group.images), group.across, group.within) == (5, 3, 2)
    assert group.exact


def test_blank_images_are_alike_only_exactly(phantom: Data) -> None:
    """Blank images of different grey are not near duplicates."""
    assert phantom.test is not None
    blank = [np.full((64, 64), grey, dtype=np.uint8) for grey in (0, 100, 255)]
    data = replace(phantom, test=added(phantom.test, blank, "blank"))
    assert find_duplicates(data).groups == ()


def test_few_small_colour_images_are_compared_too() -> None:
    """Duplicates are found in a handful of images of any size and number of channels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 3, 20, 12), dtype=np.uint8)
    train = Split(images, np.array([0, 1] * 3), tuple("abcdef"))
    val = Split(images[2:3], np.array([0]), ("copy",))
    found = find_duplicates(Data(train, val, None, ("x", "y"), "f"))
    assert [group.images for group in found.groups] == [(("train", "c"), ("val", "copy"))]
