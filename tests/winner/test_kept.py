"""Stored predictions in a file: read back exactly, found by pixels, and checked."""

import numpy as np
import pytest

from tuner.errors import UserError
from tuner.winner.agreement import compare, joined, words
from tuner.winner.kept import PredictedSplit, SeenAt, StoredPredictions, digest, digests, read


def images(count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Return this many different images."""
    return list(np.random.default_rng(0).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8))


def split(name: str, count: int) -> PredictedSplit:
    """Return a split whose numbers use every bit."""
    logs = -np.random.default_rng(1).random((count, 2)).astype(np.float32)
    ids = tuple(f"{name}/{number}.png" for number in range(count))
    return PredictedSplit(ids, np.arange(count) % 2, logs)


def kept() -> StoredPredictions:
    """Return two splits and a training split, with duplicates within test and across splits."""
    test = images(3)
    test[2] = test[1]
    pixels = {"test": digests(test), "val": digests(images(6)[4:]), "train": digests(test[:1])}
    return StoredPredictions({"test": split("test", 3), "val": split("val", 2)}, pixels)  # type: ignore[arg-type]  # names of splits


def test_it_is_read_back_to_the_bit() -> None:
    """Ids, labels, log-probabilities and hashes equal what was written."""
    one = kept()
    two = read(one.content(), "file", 2)
    assert set(two.splits) == {"test", "val"}
    for name, wanted in one.splits.items():
        found = two.splits[name]
        assert found.ids == wanted.ids
        assert np.array_equal(found.labels, wanted.labels)
        assert np.array_equal(found.log_probabilities, wanted.log_probabilities)
    assert all(np.array_equal(two.pixels[name], one.pixels[name]) for name in one.pixels)


def test_an_image_is_known_by_its_pixels() -> None:
    """In whichever split; of two places the one with the file's name comes first."""
    known = kept().known()
    first, twice, *_ = images(6)
    assert set(known.of(digest(first), "x.png")) == {SeenAt("test", 0), SeenAt("train", 0)}
    assert known.of(digest(twice), "/data/test/1.png")[0] == SeenAt("test", 1)
    assert known.of(digest(twice), "/data/test/2.png")[0] == SeenAt("test", 2)
    assert known.of(digest(first.astype(np.float32)), "x.png") == ()
    assert known.of(digest(first.reshape(1, 2, 8)), "x.png") == ()


@pytest.mark.parametrize("at", [0, 4, 40, 200])
def test_damage_never_passes_for_predictions(at: int) -> None:
    """A truncated file, one with other classes and a missing one are user errors."""
    content = kept().content()
    with pytest.raises(UserError, match="damaged"):
        read(content[:at], "file", 2)
    with pytest.raises(UserError, match="damaged"):
        read(content, "file", 3)


def test_predictions_match_within_the_tolerance() -> None:
    """Rounding matches, and its size is reported; more, another class or a NaN does not."""
    stored = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], np.float32))
    stored[0] = np.nan
    assert compare(stored.copy(), stored).exact
    assert words(compare(stored, stored), "val").endswith("match the stored ones exactly.")
    found = stored.copy()
    found[1, 1] += np.float32(3e-6)
    told = compare(found, stored)
    assert (told.images, told.equal, told.exact, told.matches) == (3, 2, False, True)
    # Relative above 1 nat: the stored log-probability is ln 0.1.
    said = "All 3 test predictions match the stored ones (largest difference 1e-6 nats)."
    assert words(told, "test") == said
    found[1, 0] += np.float32(1.1e-4)
    assert not compare(found, stored).matches
    found[2] = found[2, ::-1]
    told = compare(found, stored)
    assert (told.equal, told.changed_classes, told.matches) == (1, 1, False)
    assert np.isclose(told.largest_difference, np.log(4))
    said = words(told, "test")
    assert "differ from the stored ones by up to 1.4 nats, more than the tolerance of 1e-4" in said
    assert "1 image changes class" in said
    assert joined([told, told]).images == 6
    assert not joined([told, compare(stored, stored)]).matches
    found[1] = np.nan
    assert not compare(found, stored).matches
    assert compare(found, stored).largest_difference > 1e300
