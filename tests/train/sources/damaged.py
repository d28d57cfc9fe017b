"""Small image files of every kind that a source accepts, and seeded damage to them."""

import io
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.train.sources.image_files import Pixels, deepen, draw, save_dicom

GREY = draw("train", 1, 0, size=24)
COLOUR = np.stack([GREY, GREY // 2, GREY // 3], axis=2)


def encoded(image: Pixels | Image.Image, form: str, **options: object) -> bytes:
    """Return an image as a file of a format."""
    held = io.BytesIO()
    shown = image if isinstance(image, Image.Image) else Image.fromarray(image)
    shown.save(held, form, **options)
    return held.getvalue()


def whole_files(folder: Path) -> Mapping[str, bytes]:
    """Return intact files by name, with the endings by which a source finds them."""
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    turned = exif.tobytes()
    files = {
        "grey.png": encoded(grey, "PNG"),
        "deep.png": encoded(deepen(GREY), "PNG"),
        "colour.png": encoded(colour, "PNG"),
        "palette.png": encoded(grey.convert("P"), "PNG", transparency=3),
        "la.png": encoded(grey.convert("LA"), "PNG"),
        "rgba.png": encoded(colour.convert("RGBA"), "PNG"),
        "bit.png": encoded(grey.convert("1"), "PNG"),
        "turned.png": encoded(grey, "PNG", exif=turned),
        "grey.jpg": encoded(grey, "JPEG"),
        "turned.jpg": encoded(colour, "JPEG", exif=turned),
        "progressive.jpeg": encoded(colour, "JPEG", progressive=True),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "grey.bmp": encoded(grey, "BMP"),
        "colour.bmp": encoded(colour, "BMP"),
        "grey.tif": encoded(grey, "TIFF"),
        "deep.tif": encoded(deepen(GREY), "TIFF"),
        "motorola.tif": motorola(GREY),
        "float.tiff": encoded(GREY.astype(np.float32), "TIFF"),
        "lzw.tif": encoded(colour, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(deepen(GREY), "TIFF", compression="tiff_deflate"),
        "jpeg.tif": encoded(colour, "TIFF", compression="jpeg"),
        "pages.tif": encoded(grey, "TIFF", save_all=True, append_images=[grey, grey]),
        "grey.pgm": encoded(grey, "PPM"),
        "deep.pgm": b"P5 24 24 65535 " + deepen(GREY).astype(">u2").tobytes(),
        "gif.png": encoded(grey, "GIF"),
        "webp.png": encoded(colour, "WEBP"),
    }
    return {**files, **dicom_files(folder)}


def motorola(image: Pixels) -> bytes:
    """Return a 16-bit TIFF in big-endian byte order."""
    height, width = image.shape
    entries = [
        (256, 3, 1, width << 16),
        (257, 3, 1, height << 16),
        (258, 3, 1, 16 << 16),
        (259, 3, 1, 1 << 16),
        (262, 3, 1, 1 << 16),
        (273, 4, 1, 8 + 2 + 12 * 8 + 4),
        (278, 3, 1, height << 16),
        (279, 4, 1, 2 * image.size),
    ]
    head = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", len(entries))
    table = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return head + table + struct.pack(">I", 0) + deepen(image).astype(">u2").tobytes()


def dicom_files(folder: Path) -> dict[str, bytes]:
    """Return DICOM files: plain, windowed, signed, compressed, and of several frames."""
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

    deep = deepen(GREY)
    window = {"WindowCenter": "1000", "WindowWidth": "900"}
    made = {
        "plain": save_dicom(folder / "plain.dcm", deep),
        "window": save_dicom(folder / "window.dcm", deep, **window, RescaleSlope="2"),
        "inverse": save_dicom(
            folder / "inverse.dcm", GREY, PhotometricInterpretation="MONOCHROME1"
        ),
        "signed": save_dicom(folder / "signed.dcm", deep.astype(np.int16), PixelRepresentation=1),
        "frames": save_dicom(folder / "frames.dcm", np.stack([GREY] * 3), NumberOfFrames=3),
    }
    for name, syntax in (("rle", RLELossless), ("jpeg", JPEGBaseline8Bit)):
        held = pydicom.dcmread(save_dicom(folder / f"{name}.dcm", GREY))
        if syntax is RLELossless:
            held.compress(syntax)
        else:
            held.file_meta.TransferSyntaxUID = syntax
            held.PixelData = pydicom.encaps.encapsulate([encoded(GREY, "JPEG")])
            held["PixelData"].is_undefined_length = True
        held.save_as(folder / f"{name}.dcm")
        made[name] = folder / f"{name}.dcm"
    held = pydicom.dcmread(save_dicom(folder / "deflated.dcm", deep))
    held.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    held.save_as(folder / "deflated.dcm")
    made["deflated"] = folder / "deflated.dcm"
    return {f"{name}.dcm": path.read_bytes() for name, path in made.items()}


def damaged(files: Mapping[str, bytes], seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield this many damaged files: each an intact one with one to four changes."""
    chance = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        content = bytearray(files[name])
        for _ in range(chance.choice((1, 1, 2, 4))):
            _damage(content, chance)
        yield name, bytes(content)


def _damage(content: bytearray, chance: random.Random) -> None:
    """Make one change, mostly in the first bytes, where sizes and types are stored."""
    if not content:
        return
    reach = len(content) if chance.random() < 0.4 else min(len(content), 200)
    place = chance.randrange(reach)
    what = chance.randrange(9)
    if what == 0:
        del content[place:]
    elif what == 1:
        content[place] ^= 1 << chance.randrange(8)
    elif what == 2:
        content[place : place + 4] = chance.choice(
            (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\xff\xff")
        )
    elif what == 3:
        content[place : place + 16] = chance.randbytes(16)
    elif what == 4:
        content[place:place] = chance.randbytes(chance.randrange(1, 40))
    elif what == 5:
        del content[place : place + chance.randrange(1, 60)]
    elif what == 6:
        other = chance.randrange(len(content))
        content[place:place] = content[other : other + 64]
    elif what == 7:
        content[place : place + 64] = bytes(64)
    else:
        content[place] = chance.randrange(256)
