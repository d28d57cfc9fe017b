"""Reads one image file as grey pixels: PNG, JPEG, BMP, TIFF, PGM, and DICOM with its extra."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tuner.errors import DataError
from tuner.train.sources.pool import Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["8-bit", "16-bit", "float", "windowed DICOM", "DICOM"]

DICOM = (".dcm", ".dicom")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", *DICOM)

DEPTH: Mapping[Kind, type[np.generic]] = {
    "8-bit": np.uint8,
    "16-bit": np.uint16,
    "float": np.float32,
    # A radiologist's window is what they look at; it comes as 0 to 65535 of its range.
    "windowed DICOM": np.uint16,
    "DICOM": np.float32,
}
"""The type that images of a kind are kept in."""

TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
ORIENTATION = 0x0112


class UnreadableError(Exception):
    """A file is no image, or only part of one; its text says why."""


@dataclass(frozen=True)
class Look:
    """What a file's header says of its image."""

    height: int
    width: int
    kind: Kind


def look(path: Path) -> Look:
    """Read a file's header."""
    if path.suffix.lower() in DICOM:
        header = _dicom(path, pixels=False)
        kind: Kind = "windowed DICOM" if _window_of(header) else "DICOM"
        return Look(int(header.Rows), int(header.Columns), kind)
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION) in TURNED
        return Look(*((width, height) if turned else (height, width)), _kind(image))


def read(path: Path) -> Pixels:
    """Return a file's grey pixels, (height, width), in the type of its kind."""
    if path.suffix.lower() in DICOM:
        return _dicom_pixels(path)
    with _opened(path) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if _kind(image) == "8-bit":
                return np.asarray(_on_black(upright).convert("L"), dtype=np.uint8)
            deep: Pixels = np.asarray(upright)
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableError(str(error)) from None
        if _kind(image) == "float":
            return _finite(deep.astype(np.float32))
        clipped: Pixels = np.clip(deep, 0, 65535).astype(np.uint16)
        return clipped


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return an image stretched to a size, each new pixel the mean of what it covers."""
    if pixels.shape == (height, width):
        return pixels
    deep = pixels.dtype != np.uint8
    image = Image.fromarray(pixels.astype(np.float32) if deep else pixels)
    found: Pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if pixels.dtype == np.uint16:
        found = np.rint(np.clip(found, 0, 65535))
    return found.astype(pixels.dtype)


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # A file of the user's own may be large; refusing it is not ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    except UnidentifiedImageError:
        raise UnreadableError("not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(str(error)) from None


def _kind(image: Image.Image) -> Kind:
    if image.mode == "F":
        return "float"
    return "16-bit" if image.mode.startswith("I") else "8-bit"


def _on_black(image: Image.Image) -> Image.Image:
    """Lay a partly transparent image on black; its hidden colours are not part of it."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)


def _dicom(path: Path, *, pixels: bool) -> "Dataset":
    try:
        import pydicom
    except ImportError:
        raise DataError(
            f"{path} is a DICOM file, which pydicom reads; install it: pip install 'tuner[dicom]'"
        ) from None
    try:
        held = pydicom.dcmread(path, stop_before_pixels=not pixels)
        if int(held.get("NumberOfFrames", 1) or 1) != 1:
            raise UnreadableError("it holds several frames, not one image")
        if int(held.get("SamplesPerPixel", 1)) != 1:
            raise UnreadableError("it is in colour")
        int(held.Rows), int(held.Columns)
    except UnreadableError:
        raise
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    # pydicom raises whatever a malformed element leads it to.
    except Exception as error:  # noqa: BLE001
        raise UnreadableError(f"not a whole DICOM image: {error}") from None
    return held


def _dicom_pixels(path: Path) -> Pixels:
    """Return values after rescale, and after the window if there is one; MONOCHROME1 inverted."""
    held = _dicom(path, pixels=True)
    try:
        stored: Any = held.pixel_array.astype(np.float64)
        inverted = held.get("PhotometricInterpretation") == "MONOCHROME1"
        window = _window_of(held)
        if inverted and window is None:
            stored = _top(held) - stored
        values: Pixels = stored * float(held.get("RescaleSlope", 1) or 1)
        values += float(held.get("RescaleIntercept", 0) or 0)
    except Exception as error:  # noqa: BLE001  # as above, and decoders are plug-ins
        raise UnreadableError(f"its pixels cannot be decoded: {error}") from None
    if window is None:
        return _finite(values.astype(np.float32))
    shown = _windowed(values, *window)
    found: Pixels = np.rint((1 - shown if inverted else shown) * 65535).astype(np.uint16)
    return found


def _top(held: "Dataset") -> float:
    """Return lowest plus highest value that can be stored: what an inversion turns about."""
    signed = int(held.get("PixelRepresentation", 0)) == 1
    return -1.0 if signed else float(2 ** int(held.BitsStored) - 1)


def _windowed(values: Pixels, center: float, width: float) -> Pixels:
    """Return values in 0 to 1 by the linear window of DICOM PS3.3 C.11.2.1.2."""
    if width <= 1:
        above: Pixels = (values > center - 0.5).astype(np.float64)
        return above
    shown: Pixels = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)
    return shown


def _window_of(held: "Dataset") -> tuple[float, float] | None:
    """Return the first window's centre and width."""
    found = []
    for name in ("WindowCenter", "WindowWidth"):
        value = held.get(name)
        if value is None or value == "":
            return None
        several = isinstance(value, list | tuple) or hasattr(value, "__iter__")
        found.append(float(next(iter(value)) if several and not isinstance(value, str) else value))
    return (found[0], found[1]) if found[1] >= 1 else None


def _finite(pixels: Pixels) -> Pixels:
    if not np.isfinite(pixels).all():
        raise UnreadableError("some of its pixels are NaN or infinite")
    return pixels
