"""Reads one image file as grey pixels: PNG, JPEG, BMP, TIFF, PGM, and DICOM with its extra.

Files are untrusted: they may be truncated, of an unexpected kind, or malicious. Everything
that Pillow and pydicom do with a file happens within `_guard`, which turns any exception
into an `UnreadableError` with an understandable message.

Memory is bounded: an image has at most MOST_PIXELS by its header, and threads decode only as
many at a time as `_room` has memory for.
"""

import errno
import math
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import psutil
from PIL import Image, ImageChops, UnidentifiedImageError

from tuner.errors import DataError, MachineError, TunerError
from tuner.train.sources.pool import Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["8-bit", "16-bit", "float", "windowed DICOM", "DICOM"]
Fit = Literal["stretch", "pad", "crop"]

DICOM = (".dcm", ".dicom")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", *DICOM)

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "PPM", "GIF", "WEBP", "JPEG2000", "AVIF")
"""Accepted formats, whatever the extension; for others, such as EPS, Pillow runs other programs."""

DEPTH: Mapping[Kind, type[np.generic]] = {
    "8-bit": np.uint8,
    "16-bit": np.uint16,
    "float": np.float32,
    # A radiologist's window shows what matters; its range is mapped to 0 to 65535.
    "windowed DICOM": np.uint16,
    "DICOM": np.float32,
}
"""The type that images of each kind are stored in."""

RANGES: Mapping[Kind, tuple[float, float]] = {
    "8-bit": (0, 255),
    "16-bit": (0, 65535),
    "windowed DICOM": (0, 65535),
}
"""The lowest and highest value of each kind; a DICOM file states its own, and floats have none."""

DONE = {
    "colour": "in colour: converted to grey by brightness",
    "palette": "with a palette: converted to its colours",
    "transparent": "with transparent parts: placed on black",
    "one bit": "of 1 bit: converted to black and white",
    "halved": "in colour of 16 bits: read with 8 bits",
    "clipped": "with values outside 0 to 65535: clipped",
    "turned": "on their side or mirrored: turned upright by their EXIF data",
    "inverted": "of MONOCHROME1, where high values are dark: inverted",
}
"""What is done to make a file a grey image, phrased to follow `12 images …`."""

MOST_PIXELS = 178_956_970
"""Limit for one image: Pillow's own, above which it suspects a decompression bomb."""
PILLOW_BYTES, DICOM_BYTES = 16, 32
"""Peak memory per pixel while decoding: four colours and copies of them, and two floats of
8 bytes with their intermediate values."""
MEMORY_SHARE = 0.25
"""Share of the available memory that images being decoded may take together."""
MOST_BYTES = 2 << 30
"""Limit for one file; the largest accepted image with 8 bytes per pixel is smaller."""
MOST_INFLATED = 512 << 20
"""Limit in bytes for a deflated DICOM file after inflation."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by its EXIF orientation."""
TURNED = (5, 6, 7, 8)
"""Orientations that swap height and width."""
ORIENTATION = 0x0112
SUBFILE = 254
"""The TIFF tag whose lowest bit marks a page as a reduced copy of another one."""


class _Room:
    """A budget of memory for images being decoded: threads wait until there is enough.

    An image larger than the whole budget is decoded alone. A thread must not take room twice
    at a time: two threads that held some and waited for more would deadlock.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0

    @contextmanager
    def __call__(self, needed: int) -> Iterator[None]:
        """Reserve this many bytes."""
        with self._changed:
            most = int(psutil.virtual_memory().available * MEMORY_SHARE)
            self._changed.wait_for(lambda: not self._taken or self._taken + needed <= most)
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


_room = _Room()


class UnreadableError(Exception):
    """A file is not an image, or is incomplete; the message says why."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header says about its image."""

    height: int
    width: int
    kind: Kind


@dataclass(frozen=True)
class FileImage:
    """A file's grey pixels, and the conversions made to get them."""

    pixels: Pixels
    """(height, width), in the type of their kind."""
    kind: Kind
    range: tuple[float, float] | None
    """The lowest and highest value that such a file can contain; None for floats."""
    done: tuple[str, ...] = ()
    """Keys of DONE."""


def look(path: Path) -> ImageHeader:
    """Read a file's header."""
    with _guard(path):
        if path.suffix.lower() in DICOM:
            header = _dicom_header(path)
            kind: Kind = "windowed DICOM" if _window_of(header) else "DICOM"
            return ImageHeader(int(header.Rows), int(header.Columns), kind)
        with _opened(path) as image, _room(image.width * image.height * PILLOW_BYTES):
            width, height = image.size
            turned = _orientation(image) in TURNED
            return ImageHeader(*((width, height) if turned else (height, width)), _kind(image))


def read(path: Path) -> Pixels:
    """Return a file's grey pixels, (height, width), in the type of its kind."""
    return read_image(path).pixels


def read_image(path: Path) -> FileImage:
    """Return a file's grey image, and the conversions made to get it."""
    with _guard(path):
        if path.suffix.lower() in DICOM:
            header = _dicom_header(path)
            pixels = int(header.Rows) * int(header.Columns)
            with _room(path.stat().st_size + pixels * DICOM_BYTES):
                return _dicom_image(path)
        with _opened(path) as image, _room(image.width * image.height * PILLOW_BYTES):
            return _pillow_image(image)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of Pillow and pydicom while many files are read.

    Use it around all threads, not in each: warning filters are process-wide, and threads that
    save and restore them concurrently leave them changed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    """Turn any exception about a file into an UnreadableError with a readable reason."""
    try:
        _check_file(path)
        yield
    except (UnreadableError, TunerError):
        raise
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    except UnidentifiedImageError:
        raise UnreadableError("not an image, or in an unsupported format") from None
    except Image.DecompressionBombError:
        raise UnreadableError(_too_large()) from None
    except MemoryError:
        raise UnreadableError("it needs more memory than is available") from None
    # For malformed bytes decoders raise all sorts of errors: SyntaxError, KeyError, zlib.error,
    # RecursionError and others were seen. None of them may end a worker or a command.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            # The process has no file descriptors left: the image is not at fault.
            raise MachineError(f"{path} cannot be opened: {error.strerror}") from error
        raise UnreadableError(_reason(error)) from None


def _check_file(path: Path) -> None:
    """Raise if this is not a regular, non-empty file: reading a pipe would block for ever."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableError("it is not a regular file")
    if state.st_size == 0:
        raise UnreadableError("the file is empty")
    if state.st_size > MOST_BYTES:
        raise UnreadableError(
            f"it has {state.st_size / 1e9:,.1f} GB, but the limit is {MOST_BYTES / 1e9:.1f} GB"
        )


def _reason(error: Exception) -> str:
    """Return what went wrong, followed by the library's message, shortened to one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    said = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    said = said[:120] + "…" if len(said) > 120 else said
    detail = f"{type(error).__name__}: {said}" if said else type(error).__name__
    signs = ("truncated", "less than expected")
    cut = isinstance(error, EOFError | struct.error) or any(sign in said.lower() for sign in signs)
    return f"{'truncated' if cut else 'damaged, or of an unusual form'} ({detail})"


def _too_large() -> str:
    return f"it has too many pixels; the limit is {MOST_PIXELS:,}"


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a file with Pillow and check its header, without decoding its pixels."""
    with Image.open(path, formats=_formats()) as image:
        _check_sides(image.height, image.width)
        _check_single(image)
        yield image


def _check_sides(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise UnreadableError("it has no pixels")
    if height * width > MOST_PIXELS:
        raise UnreadableError(f"{_too_large()}, and its size is {width:,} × {height:,}")


def _check_single(image: Image.Image) -> None:
    """Raise for an animation or a TIFF with several pages, not counting reduced copies."""
    if image.format in ("GIF", "WEBP", "PNG", "AVIF") and getattr(image, "is_animated", False):
        raise UnreadableError("it is an animation of several frames, not one image")
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return
    for page in range(1, image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        if not int(image.tag_v2.get(SUBFILE, 0)) & 1:  # type: ignore[attr-defined]
            raise UnreadableError("it has several pages, not one image")
    image.seek(0)


def _orientation(image: Image.Image) -> Any:
    if image.format == "PNG":
        # EXIF data may come after the pixels, which Pillow then decodes to reach them.
        image.load()
    try:
        return image.getexif().get(ORIENTATION)
    except MemoryError:
        raise
    # As in `_guard`; this one names the part of the file.
    except Exception as error:  # noqa: BLE001
        raise UnreadableError(f"its EXIF data are {_reason(error)}") from None


def _kind(image: Image.Image) -> Kind:
    if image.mode == "F":
        return "float"
    return "16-bit" if image.mode.startswith("I") else "8-bit"


def _pillow_image(image: Image.Image) -> FileImage:
    """Return an image upright and grey."""
    kind = _kind(image)
    done = []
    # Of 16-bit colours Pillow reads the upper 8 bits; its raw mode shows the real depth.
    if kind == "8-bit" and any(str(tile[3]).endswith(";16B") for tile in image.tile if tile[3]):  # type: ignore[attr-defined]
        done.append("halved")
    turn = UPRIGHT.get(_orientation(image))
    upright = image
    if turn is not None:
        upright = image.transpose(turn)
        done.append("turned")
    if kind == "8-bit":
        pixels = np.asarray(_grey(upright, done), dtype=np.uint8)
        return FileImage(pixels, kind, RANGES[kind], tuple(done))
    deep: Pixels = np.asarray(upright)
    if kind == "float":
        return FileImage(_finite(deep.astype(np.float32)), kind, None, tuple(done))
    if deep.min() < 0 or deep.max() > 65535:
        done.append("clipped")
    clipped: Pixels = np.clip(deep, 0, 65535).astype(np.uint16)
    return FileImage(clipped, kind, RANGES[kind], tuple(done))


def _grey(image: Image.Image, done: list[str]) -> Image.Image:
    """Convert an image to grey, and note what is lost."""
    if image.mode == "1":
        done.append("one bit")
    if image.mode in ("P", "PA"):
        done.append("palette")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        # Colours of transparent pixels are not part of the image.
        shown = image.convert("RGBA")
        if shown.getchannel("A").getextrema() != (255, 255):
            done.append("transparent")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
    if image.mode not in ("1", "L"):
        red, green, blue = image.convert("RGB").split()
        if any(ImageChops.difference(red, other).getbbox() for other in (green, blue)):
            done.append("colour")
    return image.convert("L")


def _dicom_header(path: Path) -> "Dataset":
    """Read a DICOM file without its pixels, and check that it is a single grey image."""
    try:
        import pydicom
    except ImportError:
        raise DataError(
            f"{path} is a DICOM file, which pydicom reads; install it: pip install 'tuner[dicom]'"
        ) from None
    try:
        with _room(_inflated(path)):
            held = pydicom.dcmread(path, stop_before_pixels=True)
    except pydicom.errors.InvalidDicomError:
        raise UnreadableError("not a complete DICOM image: its header is missing") from None
    if int(held.get("NumberOfFrames", 1) or 1) != 1:
        raise UnreadableError("it has several frames, not one image")
    if int(held.get("SamplesPerPixel", 1)) != 1:
        raise UnreadableError("it is in colour")
    if "Rows" not in held or "Columns" not in held:
        raise UnreadableError("not a complete DICOM image: its size is missing")
    _check_sides(int(held.Rows), int(held.Columns))
    meaning = str(held.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableError(
            f"its PhotometricInterpretation is {meaning[:20]!r}; MONOCHROME1 and MONOCHROME2 are "
            "read"
        )
    return held


def _inflated(path: Path) -> int:
    """Return the inflated size of a deflated DICOM file, which pydicom inflates at once; else 0."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as file:
        read_preamble(file, force=False)
        if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return 0
        inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not inflater.eof and (piece := inflater.unconsumed_tail or file.read(1 << 20)):
            total += len(inflater.decompress(piece, 1 << 20))
            if total > MOST_INFLATED:
                raise UnreadableError(f"it inflates to more than {MOST_INFLATED / 1e6:,.0f} MB")
        return total


def _dicom_image(path: Path) -> FileImage:
    """Return values after rescale and window (if there is one), with MONOCHROME1 inverted."""
    import pydicom

    held = pydicom.dcmread(path)
    _check_decodable(held)
    stored: Any = held.pixel_array.astype(np.float64)
    if stored.ndim != 2:
        raise UnreadableError("it has several frames or colours, not one grey image")
    inverted = held.get("PhotometricInterpretation") == "MONOCHROME1"
    window = _window_of(held)
    slope = float(held.get("RescaleSlope", 1) or 1)
    intercept = float(held.get("RescaleIntercept", 0) or 0)
    if inverted and window is None:
        stored = sum(_stored_range(held)) - stored
    values: Pixels = stored * slope
    values += intercept
    done = ("inverted",) if inverted else ()
    if window is None:
        limits = _range_of(held, slope, intercept)
        return FileImage(_finite(values.astype(np.float32)), "DICOM", limits, done)
    shown = _windowed(_finite(values), *window)
    found: Pixels = np.rint((1 - shown if inverted else shown) * 65535).astype(np.uint16)
    return FileImage(found, "windowed DICOM", RANGES["windowed DICOM"], done)


def _check_decodable(held: "Dataset") -> None:
    """Raise clear errors for files on which pydicom would fail with obscure ones."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import RLELossless

    if not any(name in held for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableError("it has no pixels (no element PixelData)")
    syntax = held.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnreadableError("it does not say how its pixels are stored (TransferSyntaxUID)")
    if syntax.is_compressed:
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise UnreadableError(
                f"its pixels are compressed as {syntax.name}, for which pydicom has no decoder "
                "here; pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or convert it"
            )
    if syntax == RLELossless:
        # In RLE two bytes can expand to 128 pixels, so surplus data could fill the memory.
        wanted = int(held.Rows) * int(held.Columns) * int(held.BitsAllocated) // 8
        if len(held.PixelData) > 2 * wanted + 4096:
            raise UnreadableError(
                "damaged: it has more compressed pixels than an image of its size"
            )


def _stored_range(held: "Dataset") -> tuple[float, float]:
    """Return the lowest and highest value that can be stored; inversion mirrors this range."""
    bits = int(held.BitsStored)
    if int(held.get("PixelRepresentation", 0)) == 1:
        return -float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)
    return 0.0, float(2**bits - 1)


def _range_of(held: "Dataset", slope: float, intercept: float) -> tuple[float, float] | None:
    """Return the lowest and highest value that the file's pixels can have after rescale."""
    if "PixelData" not in held:
        return None
    ends = sorted(value * slope + intercept for value in _stored_range(held))
    return (ends[0], ends[1]) if ends[0] < ends[1] else None


def _windowed(values: Pixels, center: float, width: float) -> Pixels:
    """Map values to 0 to 1 by the linear window of DICOM PS3.3 C.11.2.1.2."""
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
    if not all(map(math.isfinite, found)):
        raise UnreadableError("its window is not a number (WindowCenter, WindowWidth)")
    return (found[0], found[1]) if found[1] >= 1 else None


def _finite(pixels: Pixels) -> Pixels:
    if not np.isfinite(pixels).all():
        raise UnreadableError("some of its pixels are NaN or infinite")
    return pixels
