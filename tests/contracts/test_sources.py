"""One contract for every source of images: phantom, NPY, folder, NPZ and manifest."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.train.sources.image_files import (
    CLASSES,
    Steps,
    chest,
    write_folder,
    write_manifest,
    write_npy,
    write_npz,
)
from tuner.records import Value
from tuner.train.data import prepare
from tuner.train.device import open_device
from tuner.train.objective import Data, Split

Keys = dict[str, Value]


def phantom(_folder: Path) -> Keys:
    """Return the keys of a small phantom."""
    counts = {"train_images": 32, "val_images": 8, "test_images": 16}
    return {"source": "phantom", "image_size": 32, **counts}


def dicom_folder(folder: Path) -> Keys:
    """Write a folder of DICOM files."""
    return {"source": "folder", "path": str(write_folder(folder / "data", ".dcm"))}


MAKERS: Mapping[str, Callable[[Path], Keys]] = {
    "phantom": phantom,
    "npy": lambda folder: {"source": "npy", "path": str(write_npy(folder / "data"))},
    "npz": lambda folder: {"source": "npz", "path": str(write_npz(folder / "data.npz"))},
    "folder": lambda folder: {"source": "folder", "path": str(write_folder(folder / "data"))},
    "dicom": dicom_folder,
    "manifest": lambda folder: {
        "source": "manifest",
        "path": str(write_manifest(folder / "data")),
    },
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each source in turn."""
    return str(request.param)


@pytest.fixture
def keys(kind: str, tmp_path: Path) -> Keys:
    """Write the source's files and return the keys of [data] for them."""
    return MAKERS[kind](tmp_path)


def splits(data: Data) -> list[Split]:
    """Return the splits that exist."""
    return [split for split in (data.train, data.val, data.test) if split is not None]


def content(split: Split | None) -> tuple[bytes, bytes, tuple[str, ...]]:
    """Return a split's images, labels and ids."""
    assert split is not None
    return split.images.tobytes(), split.labels.tobytes(), split.ids


def test_a_source_gives_what_a_trainer_takes(keys: Keys, tmp_path: Path) -> None:
    """Three splits of uint8 in one shape, every class in each, labels by sorted class name."""
    data = chest(tmp_path / "cache", **keys)
    assert data.classes == (CLASSES if keys["source"] != "npz" else ("0", "1"))
    assert len(splits(data)) == 3
    for split in splits(data):
        assert split.images.dtype == np.uint8
        assert split.images.shape[1:] == data.train.images.shape[1:]
        assert set(split.labels.tolist()) == {0, 1}
        assert len(split.ids) == len(split.images) == len(split.labels)
    prepare(data, open_device("cpu", 1).torch)
    assert len(data.train.ids) == 32
    assert len(data.val.ids) == 8


def test_class_one_is_the_brighter_one(keys: Keys, tmp_path: Path) -> None:
    """Labels stay with their images through reading, dividing and windowing."""
    if keys["source"] == "phantom":
        pytest.skip("the phantom's classes differ in more than brightness")
    found = splits(chest(tmp_path / "cache", **keys))
    assert len(found) == 3
    for split in found:
        assert set(split.labels.tolist()) == {0, 1}
        right = split.images[:, :, 8:].mean(axis=(1, 2)) - split.images[:, :, :8].mean(axis=(1, 2))
        assert ((right > 30) == (split.labels == 1)).all()


def test_the_same_keys_give_the_same_data(keys: Keys, tmp_path: Path) -> None:
    """Read again or from the cache, every byte is the same."""
    first = chest(tmp_path / "a", **keys)
    for cache in ("a", "b"):
        again = chest(tmp_path / cache, **keys)
        assert again.fingerprint == first.fingerprint
        assert list(map(content, splits(again))) == list(map(content, splits(first)))
        assert again.notes == first.notes


def test_the_fingerprint_is_of_the_content(keys: Keys, tmp_path: Path) -> None:
    """Moved images keep their fingerprint; another division changes it."""
    first = chest(tmp_path / "cache", **keys)
    if keys["source"] != "phantom":
        there = Path(str(keys["path"]))
        root = there if there.is_dir() else there.parent
        moved = tmp_path / "else" / "where"
        shutil.copytree(root, moved, ignore=shutil.ignore_patterns("cache"))
        path = moved if there.is_dir() else moved / there.name
        assert chest(tmp_path / "cache2", **{**keys, "path": str(path)}).fingerprint == (
            first.fingerprint
        )
    other = chest(tmp_path / "cache", **{**keys, "split_seed": 1})
    assert other.fingerprint != first.fingerprint


def test_a_division_is_a_function_of_its_seed(keys: Keys, tmp_path: Path) -> None:
    """Another seed has another stratified validation split, and the same test set."""
    first, second = (chest(tmp_path / "cache", **{**keys, "split_seed": seed}) for seed in (1, 2))
    again = chest(tmp_path / "cache", **{**keys, "split_seed": 1})
    assert content(again.val) == content(first.val)
    assert set(first.val.ids) != set(second.val.ids)
    assert content(first.test) == content(second.test)
    for data in (first, second):
        ids = [name for split in splits(data) for name in split.ids]
        assert len(set(ids)) == len(ids)
        assert np.bincount(data.val.labels).tolist() == [4, 4]
        assert set(data.train.ids) | set(data.val.ids) == {*first.train.ids, *first.val.ids}


def test_folds_are_all_images_once(keys: Keys, tmp_path: Path) -> None:
    """Four folds validate on every training image once; the next four divide differently."""
    found = [
        chest(tmp_path / "cache", **{**keys, "folds": 4, "split_seed": seed}) for seed in range(5)
    ]
    validated = [name for data in found[:4] for name in data.val.ids]
    assert len(set(validated)) == len(validated) == 40
    assert all(set(data.train.ids).isdisjoint(data.val.ids) for data in found)
    assert set(found[4].val.ids) not in [set(data.val.ids) for data in found[:4]]
    assert "fold 2 of 4" in " ".join(found[1].notes)


def test_images_are_decoded_once(keys: Keys, tmp_path: Path) -> None:
    """Whatever the division, a second load decodes and draws nothing."""
    first, second = Steps(), Steps()
    chest(tmp_path / "cache", first, **keys)
    chest(tmp_path / "cache", second, **{**keys, "split_seed": 3})
    if keys["source"] in ("folder", "manifest", "phantom"):
        assert any("decoding" in told or "drawing" in told for told in first.told)
    assert not any("decoding" in told or "drawing" in told for told in second.told)


def test_images_can_be_resized(kind: str, keys: Keys, tmp_path: Path) -> None:
    """image_size makes every image square and of that size."""
    data = chest(tmp_path / "cache", **{**keys, "image_size": 40})
    assert {split.images.shape[-2:] for split in splits(data)} == {(40, 40)}


def test_what_memory_has_no_room_for_is_mapped(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little memory, the same images are mapped from a file, and a note says so."""
    plain = chest(tmp_path / "cache", **keys)
    from tuner.train.sources import assemble

    monkeypatch.setattr(assemble, "MEMORY_SHARE", 0.0)
    mapped = chest(tmp_path / "cache", **keys)
    assert list(map(content, splits(mapped))) == list(map(content, splits(plain)))
    assert mapped.fingerprint == plain.fingerprint
    if keys["source"] != "phantom":
        assert isinstance(mapped.train.images, np.memmap)
        assert "are mapped from a file" in " ".join(mapped.notes)
