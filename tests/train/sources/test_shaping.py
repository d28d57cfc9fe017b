"""Sizes and depths are unified by `fit` and `depths`; new files are read in the same way."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.sources.image_files import (
    Pixels,
    chest,
    deepen,
    draw,
    save,
    save_dicom,
    series,
    write_folder,
    write_npy,
)
from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Data, find
from tuner.train.sources.shaping import fitted
from tuner.winner.document import Model, Preprocessing
from tuner.winner.pictures import ImageReader

WIDE = np.tile(np.arange(10, 250, 6, dtype=np.uint8), (20, 1))
"""20×40 pixels that get brighter to the right."""


def test_padding_keeps_the_proportions() -> None:
    """An image twice as wide as high fills the middle half, with black above and below."""
    found = fitted(WIDE, 20, 20, "pad")
    assert (found[:5] == 0).all()
    assert (found[15:] == 0).all()
    assert (found[5:15, 1:-1] > 0).all()
    assert (np.diff(found[10].astype(int)) >= 0).all()
    assert found[10, 0] < 30
    assert found[10, -1] > 230


def test_cropping_takes_the_middle() -> None:
    """Of an image twice as wide as high the left and right quarters are cut off."""
    assert (fitted(WIDE, 20, 20, "crop") == WIDE[:, 10:30]).all()
    smaller = fitted(WIDE, 10, 10, "crop")
    assert np.abs(smaller.astype(int) - WIDE[::2, 10:30:2]).max() <= 8


def test_padding_of_floats_is_their_darkest() -> None:
    """For floats the padding is the image's lowest value: 0 Hounsfield units would be water."""
    found = fitted(WIDE.astype(np.float32) - 1000, 20, 20, "pad")
    assert (found[:5] == -990).all()
    assert found.min() == -990


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (7, 300), (20, 20), (21, 19)])
def test_every_shape_comes_to_the_size(fit: Any, shape: tuple[int, int]) -> None:
    """Any shape, even a line, gets the size and keeps its type."""
    for dtype in (np.uint8, np.uint16, np.float32):
        found = fitted(np.full(shape, 9, dtype), 20, 24, fit)
        assert found.shape == (20, 24)
        assert found.dtype == dtype
        assert found.max() == 9


def of_many_sizes(place: Path) -> dict[str, Value]:
    """Write a folder in which some images have other sizes and proportions."""
    folder = write_folder(place / "f")
    for number, (height, width) in enumerate(((20, 40), (33, 16), (16, 17), (48, 48))):
        image = np.resize(draw("train", 1, number, size=64)[:, :width], (height, width))
        save(folder / "train" / "pneumonia" / f"other{number}.png", image)
        save(folder / "test" / "pneumonia" / f"other{number}.png", image)
    return {"source": "folder", "path": str(folder)}


def of_many_depths(place: Path) -> dict[str, Value]:
    """Write a folder of 8 and 16 bits and of DICOM files, in both classes."""
    folder = write_folder(place / "f")
    for part in ("train", "test"):
        for label, name in enumerate(("normal", "pneumonia")):
            deep = (draw(part, label, 60).astype(np.uint16) * 257).astype(np.uint16)
            save(folder / part / name / "deep.png", deep)
            save_dicom(
                folder / part / name / "detector.dcm",
                deepen(draw(part, label, 61)), BitsStored=12, HighBit=11,
            )  # fmt: skip
    return {"source": "folder", "path": str(folder)}


def test_a_check_tells_how_many_were_distorted(tmp_path: Path) -> None:
    """The check counts sizes and changed proportions, by how much, and lists the options."""
    keys = of_many_sizes(tmp_path)
    told = " ".join(chest(tmp_path / "c", **keys).notes)
    assert "8 of 64 images have another size (4 sizes); all were stretched to 16×16" in told
    assert "changed the proportions of 6, by up to 106%" in told
    assert "fit = 'pad' or 'crop'" in told
    sized = " ".join(chest(tmp_path / "c", **keys, image_size=24).notes)
    assert "64 of 64 images have another size (5 sizes); all were stretched to 24×24." in sized
    padded = " ".join(chest(tmp_path / "c", **keys, fit="pad").notes)
    assert "resized and padded with black to 16×16" in padded
    assert "6 of them have other proportions, and were padded with black" in padded


def test_arrays_are_fitted_alike(tmp_path: Path) -> None:
    """An array of images twice as wide gives the same pixels as such files."""
    folder = write_npy(tmp_path / "n")
    wide = np.stack([np.hstack([image, image]) for image in series("test", 0)])
    np.save(folder / "test_normal.npy", wide)
    data = chest(tmp_path / "c", source="npy", path=str(folder), fit="crop")
    assert data.test is not None
    assert (data.test.images[:8] == wide[:, :, 8:24]).all()
    assert any("cropped" in note for note in data.notes)


def test_each_type_has_its_own_range(tmp_path: Path) -> None:
    """With `range` a white of 8, of 12 and of 16 bits is the same white."""
    keys = of_many_depths(tmp_path)
    with pytest.raises(DataError, match=r"data\.depths = 'range'"):
        chest(tmp_path / "c", **keys)
    data = chest(tmp_path / "c", **keys, depths="range")
    plain = chest(tmp_path / "c", source="folder", path=str(write_folder(tmp_path / "p")))
    assert data.reading is not None
    assert (data.reading.depth, data.reading.kind) == ("uint16", "mixed")
    means = {name: image.mean() for name, image in zip(data.train.ids, data.train.images)}  # noqa: B905
    assert max(means.values()) < 3 * min(means.values())
    # 8-bit images keep their order and contrast under the common window.
    for split, other in ((data.test, plain.test),):
        assert split is not None
        assert other is not None
        mine = {n: i for n, i in zip(split.ids, split.images, strict=True) if n in other.ids}
        for name, image in zip(other.ids, other.images, strict=True):
            assert np.corrcoef(mine[name].reshape(-1), image.reshape(-1))[0, 1] > 0.99
    (note,) = [note for note in data.notes if "different depths were joined" in note]
    assert "56 8-bit, 4 16-bit, 4 DICOM" in note
    assert "the range of its own type" in note


def test_one_window_takes_values_as_they_are(tmp_path: Path) -> None:
    """With `window` a value means the same in every file: 200 of 8 bits is 200 of 16."""
    folder = write_folder(tmp_path / "f")
    image = draw("test", 0, 60)
    save(folder / "test" / "normal" / "a8.png", image)
    save(folder / "test" / "normal" / "a16.png", image.astype(np.uint16))
    data = chest(tmp_path / "c", source="folder", path=str(folder), depths="window")
    assert data.test is not None
    at = {name: n for n, name in enumerate(data.test.ids)}
    eight, sixteen = (data.test.images[at[f"test/normal/a{n}.png"]] for n in (8, 16))
    assert (eight == sixteen).all()
    assert any("with the same window" in note for note in data.notes)


def test_floats_have_no_range(tmp_path: Path) -> None:
    """A float TIFF among others is refused by name; so are arrays of floats."""
    folder = write_folder(tmp_path / "f")
    save(folder / "train" / "normal" / "f.tif", draw("train", 0, 60).astype(np.float32))
    with pytest.raises(DataError, match=r"f\.tif .*floats"):
        chest(tmp_path / "c", source="folder", path=str(folder), depths="range")
    arrays = write_npy(tmp_path / "n")
    np.save(arrays / "normal.npy", series("train", 0).astype(np.float32))
    with pytest.raises(DataError, match="no fixed range"):
        chest(tmp_path / "c", source="npy", path=str(arrays), depths="range")
    with pytest.raises(DataError, match=r"different types.*data\.depths"):
        chest(tmp_path / "c", source="npy", path=str(arrays))
    joined = chest(tmp_path / "c", source="npy", path=str(arrays), depths="window")
    assert any("Arrays of different types were joined" in note for note in joined.notes)


def reader_of(data: Data) -> ImageReader:
    """Return the reader that `tuner predict` uses for a network trained on these data."""
    told = data.reading
    assert told is not None
    reading = Preprocessing(
        depth=told.depth,  # type: ignore[arg-type]
        kind=told.kind,  # type: ignore[arg-type]
        fit=told.fit,  # type: ignore[arg-type]
        depths=told.depths,  # type: ignore[arg-type]
        window=list(told.window) if told.window else None,
        pixels="uint8",
        mean=[0.0],
        scale=[1.0],
        files="alike",
    )
    document = Model.model_construct(
        reading=reading, inputs=[1, *data.train.images.shape[1:]], objective="chest_xray", data={}
    )
    return ImageReader(document, find("chest_xray", []))


READ: Mapping[str, tuple[Callable[[Path], dict[str, Value]], dict[str, Value]]] = {
    "pad": (of_many_sizes, {"fit": "pad"}),
    "crop": (of_many_sizes, {"fit": "crop", "image_size": 24}),
    "stretch": (of_many_sizes, {}),
    "range": (of_many_depths, {"depths": "range", "fit": "pad", "image_size": 24}),
    "window": (of_many_depths, {"depths": "window"}),
    "range of 8 bits": (of_many_sizes, {"depths": "range", "fit": "crop"}),
}


@pytest.mark.parametrize("case", READ)
def test_a_new_file_is_read_as_in_training(case: str, tmp_path: Path) -> None:
    """A saved network's reader gives every file exactly the pixels of training."""
    make, more = READ[case]
    keys = {**make(tmp_path), **more}
    data = chest(tmp_path / "c", **keys)
    reader = reader_of(data)
    for split in (data.train, data.val, data.test):
        assert split is not None
        for name, image in zip(split.ids, split.images, strict=True):
            (read,) = reader.read(f"{keys['path']}/{name}")
            assert read.pixels is not None, read.fault
            assert (read.pixels[0] == image).all(), name


def test_an_array_is_read_as_in_training(tmp_path: Path) -> None:
    """An NPY array is read in the same way, even with another type than the study's."""
    folder = write_npy(tmp_path / "n")
    deep: Pixels = (series("test", 0).astype(np.uint16) * 257).astype(np.uint16)
    np.save(folder / "test_normal.npy", deep)
    data = chest(tmp_path / "c", source="npy", path=str(folder), depths="range", image_size=24)
    assert data.test is not None
    reader = reader_of(data)
    read = reader.read(str(folder / "test_normal.npy"))
    read += reader.read(str(folder / "test_pneumonia.npy"))
    for one, image in zip(read, data.test.images, strict=True):
        assert one.pixels is not None
        assert (one.pixels[0] == image).all()


def test_an_eight_bit_study_takes_a_file_of_another_depth_by_its_range(tmp_path: Path) -> None:
    """Trained on 8 bits with `range`, a 16-bit file is scaled; with `same` it is refused."""
    keys = {"source": "folder", "path": str(write_folder(tmp_path / "f"))}
    image = draw("test", 1, 70)
    deep = save(tmp_path / "new.png", (image.astype(np.uint16) * 257).astype(np.uint16))
    (read,) = reader_of(chest(tmp_path / "c", **keys, depths="range")).read(str(deep))
    assert read.pixels is not None
    assert (read.pixels[0] == image).all()
    (refused,) = reader_of(chest(tmp_path / "c", **keys)).read(str(deep))
    assert "it is 16-bit, and the study's images are 8-bit" in refused.fault
