"""Faults of data are reported exactly: how many, which, and what it means."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.train.sources.image_files import chest, draw, save, write_npy, write_table
from tuner.check.examination import Examination, examine
from tuner.check.findings import warnings
from tuner.train.objective import Data, Split

KEYS = {"source": "manifest"}


def write_planted(place: Path) -> Path:
    """Write 120 images in three splits with 7 copies across splits and 3 shared patients."""
    rows = []

    def add(name: str, label: int, split: str, patient: str, number: int) -> None:
        save(place / name, draw(split, label, number, size=32))
        rows.append({"path": name, "label": "ab"[label], "split": split, "patient": patient})

    for split, count in (("train", 60), ("val", 30), ("test", 30)):
        for n in range(count):
            add(f"{split}/{n}.png", n % 2, split, f"{split}-{n}", n)
    copies = [("train", "test", k) for k in (0, 1, 2, 3)]
    copies += [("train", "val", k) for k in (10, 11)] + [("val", "test", 4)]
    for source, target, n in copies:
        name = f"{target}/copy-{source}-{n}.png"
        (place / name).write_bytes((place / source / f"{n}.png").read_bytes())
        rows.append({"path": name, "label": "ab"[n % 2], "split": target, "patient": f"copy-{n}"})
    for k, (one, other) in enumerate((("train", "val"), ("train", "test"), ("val", "test"))):
        for split in (one, other):
            add(f"{split}/shared{k}.png", 0, split, f"shared-{k}", 500 + k)
    return write_table(place / "images.csv", rows, ("path", "label", "split", "patient"))


def test_planted_faults_are_told_exactly(tmp_path: Path) -> None:
    """7 duplicates across splits and 3 shared patients are reported by name, no more, no fewer."""
    data = chest(tmp_path / "c", source="manifest", path=str(write_planted(tmp_path / "m")))
    found = examine(data, KEYS, quick=True)
    counts = found.to_json()["duplicates"]
    assert counts["exact_across_splits"] == 7
    assert (counts["near_across_splits"], counts["exact_within_splits"]) == (0, 0)
    assert [patient for patient, _ in found.patients] == ["shared-0", "shared-1", "shared-2"]
    assert found.patients[1][1] == ("train", "test")
    told = " ".join(warnings(found))
    assert "7 images have a copy in an earlier split (7 exact duplicates)" in told
    assert "3 patients are in more than one split" in told
    assert "train: train/0.png = test: test/copy-train-0.png" in told


def test_a_picture_under_two_labels_is_a_finding(tmp_path: Path) -> None:
    """A picture with two labels is reported, within or across splits; equal labels are fine."""
    data = clean(tmp_path)
    assert "more than one label" not in told(data)
    images, labels = data.train.images.copy(), data.train.labels
    one, other = (int(np.flatnonzero(labels == label)[0]) for label in (0, 1))
    same = int(np.flatnonzero(labels == 0)[1])
    images[other] = images[one]
    doubled = replace(data, train=replace(data.train, images=images))
    assert "1 image has more than one label (1 exact, 0 near duplicates)" in told(doubled)
    assert f"train: {data.train.ids[other]} ({data.classes[1]})" in told(doubled)
    images = data.train.images.copy()
    images[same] = images[one]
    assert "more than one label" not in told(
        replace(data, train=replace(data.train, images=images))
    )
    assert data.test is not None
    pictures = data.test.images.copy()
    place = int(np.flatnonzero(data.test.labels == 1)[0])
    pictures[place] = data.train.images[one]
    across = replace(data, test=replace(data.test, images=pictures))
    assert f"= test: {data.test.ids[place]} ({data.classes[1]})" in told(across)


def clean(tmp_path: Path) -> Data:
    """Load arrays without faults."""
    return chest(tmp_path / "c", source="npy", path=str(write_npy(tmp_path / "n")))


def told(data: Data) -> str:
    """Return all warnings about data."""
    return " ".join(warnings(examine(data, {}, quick=True)))


def test_clean_data_are_not_warned_of(tmp_path: Path) -> None:
    """Equal splits of good images have no findings."""
    assert told(clean(tmp_path)) == ""


def changed(split: Split, images: np.ndarray) -> Split:
    """Return a split with other images."""
    return replace(split, images=images)


def test_blank_and_clipped_images_are_told(tmp_path: Path) -> None:
    """A blank image, and one that is mostly black or white, are named."""
    data = clean(tmp_path)
    images = data.train.images.copy()
    images[3] = 90
    images[4, :12] = 255
    found = told(replace(data, train=changed(data.train, images)))
    assert f"1 train image is blank. {data.train.ids[3]}" in found
    assert f"1 train image is mostly clipped to black or white. {data.train.ids[4]}" in found


def test_uneven_classes_are_told(tmp_path: Path) -> None:
    """A rare class, and shares that differ between splits, are reported with their numbers."""
    data = clean(tmp_path)
    places = [*np.flatnonzero(data.train.labels == 0), *np.flatnonzero(data.train.labels == 1)[:1]]
    train = Split(
        data.train.images[places],
        data.train.labels[places],
        tuple(data.train.ids[i] for i in places),
    )
    found = told(replace(data, train=train))
    assert "class pneumonia is rare: 1 of 17 training images" in found
    assert "class pneumonia is 6% of the training images but 50% of test" in found


def test_equal_shares_of_many_classes_are_not_rare(tmp_path: Path) -> None:
    """Eleven classes with equal shares of about 9% are not called rare."""
    data = clean(tmp_path)

    def many(split: Split) -> Split:
        return replace(split, labels=np.arange(len(split.labels)) % 11)

    assert data.test is not None
    names = tuple(f"class{place}" for place in range(11))
    found = told(
        replace(
            data,
            train=many(data.train),
            val=many(data.val),
            test=many(data.test),
            classes=names,
        )
    )
    assert "is rare" not in found


def test_few_patients_are_told(tmp_path: Path) -> None:
    """A validation split of 5 patients is warned about, however many images it has."""
    data = clean(tmp_path)
    count = len(data.val.ids)
    few = replace(data.val, patients=tuple(f"p{at % 5}" for at in range(count)))
    assert "val has images of 5 patients: too few to judge any setting by." in told(
        replace(data, val=few)
    )
    found = examine(replace(data, val=few), {}, quick=True)
    assert (found.contents["val"].patients, found.contents["train"].patients) == (5, 0)
    many = replace(data.val, patients=data.val.ids)
    assert ("too few to judge" in told(replace(data, val=many))) == (count < 10)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_different_distribution_is_told(shift: float, tmp_path: Path) -> None:
    """Test images from another machine are warned about, with what to expect; others are not."""
    data = chest(tmp_path, image_size=64, train_images=400, val_images=200, shift=shift)
    found: Examination = examine(data, {}, quick=True)
    assert ("different distributions" in " ".join(warnings(found))) == (shift == 1.0)
