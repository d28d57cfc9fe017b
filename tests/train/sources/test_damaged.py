"""Any file is an image or has an understandable reason why not; never a traceback."""

import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.sources.damaged import COLOUR, GREY, damaged, encoded, whole_files
from tests.train.sources.image_files import (
    chest,
    deepen,
    draw,
    save,
    save_dicom,
    write_folder,
    write_npz,
)
from tuner.errors import DataError
from tuner.train.sources import files
from tuner.train.sources.arrays import load_archive, load_array
from tuner.train.sources.files import UnreadableError, look, quiet, read, read_image
from tuner.train.sources.shaping import fitted

DAMAGED = 3000
SEED = 10


def test_whole_files_are_read(tmp_path: Path) -> None:
    """Every kind of file that is damaged below is readable when intact, except films and pages."""
    refused = set()
    for name, content in whole_files(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        try:
            assert read(path).shape == (24, 24) == (look(path).height, look(path).width)
        except UnreadableError:
            refused.add(name)
    assert refused == {"frames.dcm", "pages.tif"}


def reason_of(step: Callable[[Path], object], path: Path) -> str:
    """Return why a file cannot be read, or nothing if it can."""
    try:
        step(path)
    except UnreadableError as error:
        return str(error) or "no reason was given" * 20
    return ""


def test_thousands_of_damaged_files_are_images_or_have_a_reason(tmp_path: Path) -> None:
    """Cut, flipped, overwritten, shifted: the only error is UnreadableError, with a text."""
    outcomes: Counter[str] = Counter()
    with quiet():
        for name, content in damaged(whole_files(tmp_path), SEED, DAMAGED):
            path = tmp_path / name
            path.write_bytes(content)
            for step in (look, read):
                reason = reason_of(step, path)
                outcomes[f"{step.__name__} {'refused' if reason else 'fine'}"] += 1
                assert len(reason) < 300
                assert reason.isprintable()
    # Damage to pixels of an uncompressed file cannot be detected; most of the rest is.
    assert outcomes["read refused"] > DAMAGED / 2
    assert outcomes["read fine"] > DAMAGED / 20


def test_damaged_files_are_left_out_and_counted(tmp_path: Path) -> None:
    """With skip_unreadable a folder loads the others, in their order, with a count."""
    folder = write_folder(tmp_path / "f")
    place = folder / "train" / "normal"
    whole = {n: c for n, c in whole_files(tmp_path).items() if look_kind(tmp_path, n, c)}
    for number, (name, content) in enumerate(damaged(whole, 3, 120)):
        (place / f"x{number:03d}{Path(name).suffix}").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        chest(tmp_path / "cache", source="folder", path=str(folder))
    data = chest(tmp_path / "cache", source="folder", path=str(folder), skip_unreadable=True)
    (note,) = [note for note in data.notes if "unreadable images were left out" in note]
    left_out = int(note.split()[0])
    assert left_out > 40
    names = [name for split in (data.train, data.val) for name in split.ids]
    assert len(names) == 40 + 120 - left_out
    for split in (data.train, data.val):
        for name, image in zip(split.ids, split.images, strict=True):
            if "/x" not in name:
                assert (image == fitted(read(folder / name), *image.shape)).all()


def look_kind(folder: Path, name: str, content: bytes) -> bool:
    """Return whether an intact file has 8 bits, like the folder's images."""
    path = folder / name
    path.write_bytes(content)
    try:
        return look(path).kind == "8-bit"
    except UnreadableError:
        return False


def png_of(width: int, height: int) -> bytes:
    """Return a PNG with this size in its header, and the pixels of a much smaller one."""
    content = bytearray(encoded(GREY, "PNG"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def broken_exif(path: Path) -> Path:
    """Write an image whose EXIF data have an invalid beginning."""
    exif = b"Exif\0\0no such data"
    Image.fromarray(COLOUR).save(path, "PNG", exif=exif)
    return path


def compressed_elsewhere(path: Path) -> Path:
    """Write a DICOM file with a compression that none of tuner's packages can decode."""
    import pydicom
    from pydicom.uid import JPEGLSLossless

    held = pydicom.dcmread(save_dicom(path, GREY))
    held.file_meta.TransferSyntaxUID = JPEGLSLossless
    held.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 something"])
    held["PixelData"].is_undefined_length = True
    held.save_as(path)
    return path


def without_pixels(path: Path) -> Path:
    """Write a DICOM file with only a header."""
    import pydicom

    held = pydicom.dcmread(save_dicom(path, GREY))
    del held.PixelData
    held.save_as(path)
    return path


def without_end(path: Path, content: bytes) -> Path:
    """Write the first half of a file."""
    path.write_bytes(content[: len(content) // 2])
    return path


def written(path: Path, content: bytes) -> Path:
    """Write a file."""
    path.write_bytes(content)
    return path


def pipe(path: Path) -> Path:
    """Make a named pipe, which would block a reader for ever."""
    os.mkfifo(path)
    return path


ODD: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda p: written(p / "a.png", b""), "the file is empty"),
    "pipe": (lambda p: pipe(p / "a.png"), "not a regular file"),
    "folder": (lambda p: p, "not a regular file"),
    "half png": (lambda p: without_end(p / "a.png", encoded(GREY, "PNG")), "truncated"),
    "half jpeg": (lambda p: without_end(p / "a.jpg", encoded(GREY, "JPEG")), "truncated"),
    "half progressive": (
        lambda p: without_end(p / "a.jpg", encoded(COLOUR, "JPEG", progressive=True)), "truncated",
    ),
    "half tiff": (lambda p: without_end(p / "a.tif", encoded(GREY, "TIFF")), "truncated|damaged"),
    "bomb": (lambda p: written(p / "a.png", png_of(60_000, 60_000)), "too many pixels"),
    "flat": (lambda p: written(p / "a.png", png_of(0, 20)), "damaged|no pixels|not an image"),
    "large": (lambda p: written(p / "a.png", png_of(12_000, 12_000)), "truncated|damaged"),
    "exif": (lambda p: broken_exif(p / "a.png"), "its EXIF data are"),
    "postscript": (
        lambda p: written(p / "a.png", encoded(COLOUR, "EPS")), "in an unsupported format",
    ),
    "pages": (
        lambda p: written(
            p / "a.tif",
            encoded(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
        ),
        "several pages",
    ),
    "film": (
        lambda p: written(
            p / "a.png",
            encoded(GREY, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        ),
        "several frames",
    ),
    "dicom without pixels": (lambda p: without_pixels(p / "a.dcm"), "it has no pixels"),
    "dicom palette": (
        lambda p: save_dicom(p / "a.dcm", GREY, PhotometricInterpretation="PALETTE COLOR"),
        "PhotometricInterpretation is 'PALETTE COLOR'",
    ),
    "dicom frames": (
        lambda p: save_dicom(p / "a.dcm", np.stack([GREY] * 2), NumberOfFrames=2),
        "several frames",
    ),
    "dicom compressed": (
        lambda p: compressed_elsewhere(p / "a.dcm"), "compressed as JPEG-LS.*pip install",
    ),
    "dicom bomb": (
        lambda p: save_dicom(p / "a.dcm", GREY, Rows=60_000, Columns=60_000), "too many pixels",
    ),
    "dicom window": (
        lambda p: save_dicom(p / "a.dcm", GREY, WindowCenter="nan", WindowWidth="2"),
        "its window is not a number|damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_an_odd_file_has_its_reason(case: str, tmp_path: Path) -> None:
    """Each kind of odd file is described in words, when inspected or when read."""
    make, words = ODD[case]
    path = make(tmp_path)
    if path.is_dir():
        (tmp_path / "a.png").mkdir()
        path = tmp_path / "a.png"
    with quiet(), pytest.raises(UnreadableError, match=words):
        read(path)


def test_a_smaller_copy_is_no_second_page(tmp_path: Path) -> None:
    """A TIFF with a preview of its only page counts as one page."""
    small = Image.fromarray(GREY[::2, ::2].copy())
    small.encoderinfo = {"tiffinfo": {254: 1}}
    path = tmp_path / "a.tif"
    Image.fromarray(GREY).save(path, save_all=True, append_images=[small])
    assert (read(path) == GREY).all()


def test_a_deflated_bomb_is_refused_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inflated size is measured piece by piece before pydicom would inflate everything."""
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = save_dicom(tmp_path / "a.dcm", np.zeros((2000, 2000), np.uint16))
    held = pydicom.dcmread(path)
    held.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    held.save_as(path)
    assert read(path).shape == (2000, 2000)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(files, "MOST_INFLATED", 4_000_000)
    with pytest.raises(UnreadableError, match="inflates to more than 4 MB"):
        read(path)


def test_what_was_done_to_a_file_is_known(tmp_path: Path) -> None:
    """Colour, palette, transparency, one bit, orientation and clipping are each noted."""
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 3
    wide = np.full((8, 8), 70_000, np.int32)
    cases: Mapping[str, tuple[bytes, tuple[str, ...]]] = {
        "grey.png": (encoded(grey, "PNG"), ()),
        "stored as colour.png": (encoded(grey.convert("RGB"), "PNG"), ()),
        "colour.png": (encoded(colour, "PNG"), ("colour",)),
        "cmyk.tif": (encoded(colour.convert("CMYK"), "TIFF"), ("colour",)),
        "palette.png": (encoded(colour.convert("P"), "PNG"), ("palette", "colour")),
        "opaque.png": (encoded(grey.convert("LA"), "PNG"), ()),
        "hole.png": (
            encoded(Image.fromarray(np.dstack([GREY, np.tril(GREY)]), "LA"), "PNG"),
            ("transparent",),
        ),
        "bit.png": (encoded(grey.convert("1"), "PNG"), ("one bit",)),
        "turned.png": (encoded(grey, "PNG", exif=exif), ("turned",)),
        "wide.tif": (encoded(Image.fromarray(wide), "TIFF"), ("clipped",)),
    }
    for name, (content, done) in cases.items():
        path = written(tmp_path / name, content)
        assert read_image(path).done == done, name
    inverse = save_dicom(tmp_path / "a.dcm", GREY, PhotometricInterpretation="MONOCHROME1")
    assert read_image(inverse).done == ("inverted",)


def test_a_check_can_tell_what_was_done_to_how_many(tmp_path: Path) -> None:
    """Counts and an example are among the notes, also from the cache."""
    folder = write_folder(tmp_path / "f")
    place = folder / "train" / "pneumonia"
    for number in range(3):
        save(place / f"colour{number}.png", np.roll(COLOUR, number, axis=0))
    Image.fromarray(GREY).convert("P").save(place / "palette.png")
    for _ in range(2):
        data = chest(tmp_path / "cache", source="folder", path=str(folder))
        told = " ".join(data.notes)
        assert "3 images in colour: converted to grey by brightness (such as train/" in told
        assert (
            "1 image with a palette: converted to its colours (such as train/pneumonia/palette"
            in told
        )


def test_an_archive_that_says_more_than_it_has_is_refused(tmp_path: Path) -> None:
    """A member of 100 bytes that claims 100 GB takes no memory; cut archives have a reason."""
    import io
    import zipfile

    held = io.BytesIO()
    shape = {"descr": "<u1", "fortran_order": False, "shape": (400_000, 500, 500)}
    np.lib.format.write_array_header_1_0(held, shape)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", held.getvalue() + bytes(100))
    with pytest.raises(DataError, match=r"train_images\.npy .* more than its .* bytes"):
        load_archive(path)
    whole = write_npz(tmp_path / "w.npz").read_bytes()
    for place in range(0, len(whole), 997):
        path.write_bytes(whole[:place])
        with pytest.raises(DataError, match="NPZ archive of numbers"):
            load_archive(path)


def test_damaged_arrays_have_a_reason(tmp_path: Path) -> None:
    """An NPY file with a broken header, and an archive of that name, are DataErrors."""
    whole = tmp_path / "w.npy"
    np.save(whole, deepen(draw("train", 0, 0))[None])
    content = whole.read_bytes()
    path = tmp_path / "a.npy"
    for place in range(0, 128, 3):
        path.write_bytes(content[:place] + b"\xff\xfe" + content[place + 2 :])
        with suppress(DataError):
            load_array(path)
    path.write_bytes(write_npz(tmp_path / "w.npz").read_bytes())
    with pytest.raises(DataError, match="is an archive"):
        load_array(path)
