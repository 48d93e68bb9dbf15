"""From a file to pixels: the only place where bytes of strangers are opened as pictures.

Separate from the cache, because this is what an attacker reaches: only regular files inside the
image root, only three formats, only up to 40 Mpx by their header, and one defined result for every
odd but honest picture.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets_mm import media_paths
from datasets_mm.media_types import HEAD_BYTES, other_content

MAX_PIXELS: Final = 40_000_000
"""Pillow only warns above 89 Mpx: a 9 KiB PNG may decode to 400 MiB below that."""

MAX_BYTES: Final = 64 << 20
MAX_VIDEO_BYTES: Final = 4 << 30
FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""Pillow would otherwise try over 40 decoders, EPS among them."""

ORIENTATION: Final = 0x0112
"""EXIF's tag; values 5 to 8 swap width and height."""
LYING: Final = frozenset({5, 6, 7, 8})
LAST_COLUMN_FIRST: Final = frozenset({2, 3, 6, 7})
"""Turned upright, the column that a decoder completes lies on the left."""
LAST_ROW_FIRST: Final = frozenset({3, 4, 7, 8})

MARGIN: Final = 2
"""JPEGs are decoded at 1/2 or 1/4 of their size where that leaves so many times the pixels, in each
direction, that are wanted. 99.9 % of the values are then within 9 levels of 255 of those from a
full decode, 0.2 to 0.6 in the mean (shapes with noise); with 1 it were 23, and 1.5 in the mean."""
SHRINKS: Final = (4, 2, 1)

Box = tuple[float, float, float, float]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Resample = Literal["bicubic", "bilinear", "lanczos"]
FILTERS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}

# Process-wide on purpose: nothing here may ever decode what Pillow warns about.
warnings.simplefilter("error", Image.DecompressionBombWarning)


class UnusableError(Exception):
    """This picture has no pixels for us; the text is the reason."""


@contextmanager
def open_inside(root: Path, path: str, most_bytes: int) -> Iterator[BinaryIO]:
    """A regular file under `root` (resolved), open to read, else UnusableError. Never blocks.

    Found in the spelling that the disk has (paths.on_disk).
    """
    if "\0" in path:
        raise UnusableError("outside the image root")
    try:
        real = (root / media_paths.on_disk(root, path)).resolve(strict=True)
    except PermissionError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from None
    except (OSError, RuntimeError, ValueError):
        raise UnusableError(media_paths.foreign(path) or "missing") from None
    if not real.is_relative_to(root):
        raise UnusableError("outside the image root")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(real, flags)
    except OSError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from None
    try:  # looked at before it is wrapped: Python refuses to wrap a folder
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableError("not a regular file")
        if status.st_size > most_bytes:
            raise UnusableError(f"larger than {most_bytes >> 20:,} MiB")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def read_inside(root: Path, path: str) -> bytes:
    """The bytes of such a file."""
    with open_inside(root, path, MAX_BYTES) as file:
        return file.read(MAX_BYTES)


def decode(data: bytes, size: int, resample: Resample) -> Pixels:
    """uint8 [size, size, 3]: upright, on white, shortest side to `size`, centre cut out.

    CLIP's own preprocessing (resize, then crop) in one pass, equal to it within a level of
    rounding: only what stays is computed, so that a 20000 x 2 picture is not blown up on the way.
    JPEGs whose shorter side is 4 times `size` or more are decoded smaller (see MARGIN).
    """

    def make(image: Image.Image, whole: Whole) -> Pixels:
        box = whole.inside(_centre(whole.width, whole.height, size))
        return np.asarray(image.resize((size, size), FILTERS[resample], box=box), np.uint8)

    return _made(data, make, size)


def decode_uncut(data: bytes, width: int, height: int, resample: Resample) -> Pixels:
    """uint8 [height, width, 3]: upright, on white, all of the picture in just this size."""

    def make(image: Image.Image, whole: Whole) -> Pixels:
        box = whole.inside((0, 0, whole.width, whole.height))
        return np.asarray(image.resize((width, height), FILTERS[resample], box=box), np.uint8)

    return _made(data, make, max(width, height))


class Whole(NamedTuple):
    """Where all of the upright picture, `width` by `height` in its file, lies in the decoded image.

    Decoded smaller, its last column and row are of whole blocks, so more than there is; in a turned
    picture they come first.
    """

    width: int
    height: int
    left: float = 0
    top: float = 0
    shrink: int = 1

    def inside(self, box: Box) -> Box:
        """A box of the picture as one of the decoded image."""
        left, top, right, bottom = (edge / self.shrink for edge in box)
        return self.left + left, self.top + top, self.left + right, self.top + bottom


Make = Callable[[Image.Image, Whole], Pixels]
"""Pixels of an upright RGB image."""


def _made(data: bytes, make: Make, most: int) -> Pixels:
    """What `make` makes of the RGB image, else UnusableError. `most`: the longer side wanted."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx")
            if not _is_whole(data, image.format or ""):
                raise UnusableError("truncated or damaged (no end mark, or a wrong check sum)")
            size, turn = image.size, _turn(image)
            shrink = _shrink(image, most * MARGIN)
            image.load()
            flat = _flat(image)
            return make(flat, _whole(flat, size, turn, shrink))
    except UnusableError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx") from None
    except UnidentifiedImageError:
        raise UnusableError(other_content(data[:HEAD_BYTES]) or "not JPEG, PNG or WEBP") from None
    except Exception as error:
        # Decoders meet hostile bytes: OSError, ValueError, SyntaxError, struct.error and more.
        raise UnusableError(f"truncated or damaged ({type(error).__name__})") from None


def _is_whole(data: bytes, form: str) -> bool:
    """The end mark of a JPEG is there, and the check sums of a PNG's pixels are right.

    Decoders do not look: of half a file that was filled up with zeros the rest becomes grey.
    """
    if form == "PNG":
        return _has_right_sums(memoryview(data))
    return form not in {"JPEG", "MPO"} or _has_end(data)


def _has_end(data: bytes) -> bool:
    """There is an end mark behind the header of the first scan; a thumbnail's is before it."""
    at = 2
    while data[at : at + 1] == b"\xff":
        mark = data[at + 1 : at + 2]
        if mark == b"\xda":
            return data.find(b"\xff\xd9", at) >= 0
        is_alone = mark in {b"\x01", b"\xff"} or b"\xd0" <= mark <= b"\xd8"
        at += (1 if mark == b"\xff" else 2) if is_alone else _length(data, at)
    return True  # no JPEG as one knows them: the decoder judges


def _length(data: bytes, at: int) -> int:
    """Bytes of a JPEG's segment with its mark."""
    return 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def _has_right_sums(data: memoryview) -> bool:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        stated = data[end : end + 4]
        is_pixels = bytes(data[at + 4 : at + 8]) == b"IDAT" and len(stated) == 4
        if is_pixels and zlib.crc32(data[at + 4 : end]) != int.from_bytes(stated, "big"):
            return False
        at = end + 4
    return True


def extent(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture that decodes, turned upright by EXIF; read from its header."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        return (height, width) if _turn(image) in LYING else (width, height)


def _turn(image: Image.Image) -> int:
    """EXIF's orientation; a broken EXIF block leaves the picture as it lies."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def _whole(flat: Image.Image, size: tuple[int, int], turn: int, shrink: int) -> Whole:
    """Of an image decoded from a file's picture of `size`, already turned upright."""
    if shrink == 1:
        return Whole(*flat.size)
    width, height = size[::-1] if turn in LYING else size
    left = flat.width - width / shrink if turn in LAST_COLUMN_FIRST else 0
    top = flat.height - height / shrink if turn in LAST_ROW_FIRST else 0
    return Whole(width, height, left, top, shrink)


def _shrink(image: Image.Image, least: int) -> int:
    """Let the decoder of a JPEG make it smaller, both sides `least` or more; by how much."""
    if image.format != "JPEG":
        return 1
    shrink = next(one for one in SHRINKS if one == 1 or min(image.size) // one >= least)
    size = image.width // shrink, image.height // shrink
    return shrink if shrink > 1 and image.draft(image.mode, size) else 1


def fitted(
    image: Image.Image, size: int, resample: Resample, aspect: float = 1.0
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [size, size, 3] of an RGB image: shortest side to `size`, centre cut out.

    `aspect`: width of its pixels by their height.
    """
    width = max(1, round(image.width * aspect))
    left, top, right, bottom = _centre(width, image.height, size)
    scale = image.width / width
    box = (left * scale, top, min(right * scale, image.width), bottom)
    return np.asarray(image.resize((size, size), FILTERS[resample], box=box), np.uint8)


def _flat(image: Image.Image) -> Image.Image:
    """RGB, turned upright by EXIF; transparency on white, 16 bits to their upper 8."""
    with contextlib.suppress(Exception):  # a broken EXIF block leaves the picture as it lies
        image = ImageOps.exif_transpose(image) or image
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image, np.int64), 0, 65_535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        return on_white(image)
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """RGB of an image with transparency."""
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(ground, layer).convert("RGB")


def _centre(width: int, height: int, size: int) -> Box:
    """Box in source pixels of what remains after resize and centre crop, roundings included."""
    short = min(width, height)
    wide, high = int(size * width / short), int(size * height / short)
    left, top = (wide - size) // 2, (high - size) // 2
    return (
        left * width / wide,
        top * height / high,
        (left + size) * width / wide,
        (top + size) * height / high,
    )
