"""Single files: colours, depths, orientations and DICOM elements."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.sources.image_files import deepen, draw, save, save_dicom
from tuner.train.sources.files import UnreadableError, look, read
from tuner.train.sources.shaping import resize

IMAGE = draw("train", 1, 0)


def test_lossless_formats_give_their_pixels(tmp_path: Path) -> None:
    """8-bit PNG, BMP, TIFF, PGM and DICOM give back exactly what was written."""
    for suffix in (".png", ".bmp", ".tif", ".pgm"):
        path = save(tmp_path / f"a{suffix}", IMAGE)
        assert (read(path) == IMAGE).all()
        assert (look(path).height, look(path).width, look(path).kind) == (16, 16, "8-bit")
    assert (read(save(tmp_path / "a.dcm", IMAGE)) == IMAGE).all()


def test_jpeg_is_near(tmp_path: Path) -> None:
    """JPEG gives nearly the same pixels."""
    read_back = read(save(tmp_path / "a.jpg", IMAGE)).astype(int)
    assert np.abs(read_back - IMAGE).mean() < 4


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    """PNG and TIFF of 16 bits give back every value."""
    for suffix in (".png", ".tif"):
        path = save(tmp_path / f"deep{suffix}", deepen(IMAGE))
        assert look(path).kind == "16-bit"
        assert read(path).dtype == np.uint16
        assert (read(path) == deepen(IMAGE)).all()


def test_floats_are_kept(tmp_path: Path) -> None:
    """A float TIFF gives back its values; one with NaN is unreadable."""
    path = save(tmp_path / "f.tif", IMAGE.astype(np.float32) / 7)
    assert look(path).kind == "float"
    assert (read(path) == IMAGE.astype(np.float32) / 7).all()
    with pytest.raises(UnreadableError, match="NaN"):
        read(save(tmp_path / "nan.tif", np.full((4, 4), np.nan, dtype=np.float32)))


def test_colours_become_grey(tmp_path: Path) -> None:
    """RGB with equal channels is the grey image; colours are weighted by brightness."""
    grey = save(tmp_path / "grey.png", np.stack([IMAGE] * 3, axis=2))
    assert (read(grey) == IMAGE).all()
    red = save(tmp_path / "red.png", np.full((8, 8, 3), [255, 0, 0], dtype=np.uint8))
    assert (read(red) == 76).all()
    palette = tmp_path / "palette.png"
    Image.fromarray(IMAGE).convert("P").save(palette)
    assert np.abs(read(palette).astype(int) - IMAGE).max() <= 1
    one_bit = tmp_path / "bit.png"
    Image.fromarray(IMAGE > 100).save(one_bit)
    assert set(np.unique(read(one_bit))) == {0, 255}


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    """Transparent pixels become black, whatever their colour."""
    pixels = np.full((8, 8, 4), 200, dtype=np.uint8)
    pixels[:4, :, 3] = 0
    pixels[4:, :, 3] = 255
    found = read(save(tmp_path / "alpha.png", pixels))
    assert (found[:4] == 0).all()
    assert (found[4:] == 200).all()


def test_a_camera_s_orientation_is_undone(tmp_path: Path) -> None:
    """An image stored rotated is turned upright, and so is its size."""
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE[:12]).save(path, exif=exif)
    assert (look(path).height, look(path).width) == (16, 12)
    assert (read(path) == np.rot90(IMAGE[:12], -1)).all()


def test_dicom_values_are_rescaled(tmp_path: Path) -> None:
    """Slope and intercept are applied; signed values stay signed."""
    raw = deepen(IMAGE)
    path = save_dicom(tmp_path / "a.dcm", raw, RescaleSlope="2", RescaleIntercept="-1024")
    assert look(path).kind == "DICOM"
    assert (read(path) == raw.astype(np.float32) * 2 - 1024).all()
    signed = IMAGE.astype(np.int16) - 100
    path = save_dicom(tmp_path / "s.dcm", signed, PixelRepresentation=1)
    assert (read(path) == signed).all()


def test_dicom_monochrome1_is_inverted(tmp_path: Path) -> None:
    """Values are inverted within the range that can be stored."""
    plain = read(save_dicom(tmp_path / "2.dcm", deepen(IMAGE), BitsStored=12, HighBit=11))
    turned = read(
        save_dicom(
            tmp_path / "1.dcm",
            (4095 - deepen(IMAGE)).astype(np.uint16),
            BitsStored=12,
            HighBit=11,
            PhotometricInterpretation="MONOCHROME1",
        )
    )
    assert (plain == turned).all()


def test_dicom_s_window_is_applied(tmp_path: Path) -> None:
    """Below the window is black, above it white, and linear in between."""
    raw = np.array([[0, 899, 1000, 1100, 4000]], dtype=np.uint16)
    window = {"WindowCenter": "1000", "WindowWidth": "201"}
    path = save_dicom(tmp_path / "w.dcm", raw, **window)
    assert look(path).kind == "windowed DICOM"
    shown = read(path) / 65535
    assert shown[0] == pytest.approx([0, 0, 0.5025, 1, 1], abs=1e-3)
    several = save_dicom(
        tmp_path / "m.dcm", raw, WindowCenter=["1000", "50"], WindowWidth=["201", "400"]
    )
    assert (read(several) == read(path)).all()
    inverted = save_dicom(
        tmp_path / "i.dcm", raw, PhotometricInterpretation="MONOCHROME1", **window
    )
    assert read(inverted) / 65535 == pytest.approx(1 - shown, abs=1e-4)


def test_what_is_no_single_grey_image_is_told(tmp_path: Path) -> None:
    """Films, colours, half files, texts and missing files each have their reason."""
    film = save_dicom(tmp_path / "film.dcm", IMAGE, NumberOfFrames=4)
    colour = save_dicom(tmp_path / "colour.dcm", IMAGE, SamplesPerPixel=3)
    half = save(tmp_path / "half.png", IMAGE)
    half.write_bytes(half.read_bytes()[:-60])
    half_dicom = save(tmp_path / "half.dcm", IMAGE)
    half_dicom.write_bytes(half_dicom.read_bytes()[:-60])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.dcm").write_text("no image")
    cases = {
        film: "several frames",
        colour: "in colour",
        half: "truncated",
        half_dicom: "truncated",
        tmp_path / "text.png": "not an image",
        tmp_path / "text.dcm": "not a complete DICOM",
        tmp_path / "none.png": "no such file",
        tmp_path / "none.dcm": "no such file",
    }
    for path, words in cases.items():
        with pytest.raises(UnreadableError, match=words):
            read(path)


def test_resizing_takes_means(tmp_path: Path) -> None:
    """Halving the size averages instead of taking every second pixel; 16 bits stay 16 bits."""
    stripes = np.zeros((32, 32), dtype=np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resize(stripes, 8, 8)[:, 1:-1].astype(int) - 100).max() <= 3
    deep = resize(stripes.astype(np.uint16) * 256, 8, 8)
    assert deep.dtype == np.uint16
    assert np.abs(deep[:, 1:-1] / 256 - 100).max() <= 3
