"""Image decoding: the only module that opens untrusted bytes as images.

Only regular files inside the image root, only JPEG, PNG and WEBP, only up to 40 Mpx by their
header, and one defined result for every unusual but valid image.
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
from datasets_mm.media_types import HEAD_BYTES, describe_other_content

MAX_PIXELS: Final = 40_000_000
"""Pillow only warns above 89 Mpx: a 9 KiB PNG may decode to 400 MiB below that."""

MAX_BYTES: Final = 64 << 20
MAX_VIDEO_BYTES: Final = 4 << 30
FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""Pillow would otherwise try over 40 decoders, EPS among them."""

ORIENTATION: Final = 0x0112
"""EXIF's tag; values 5 to 8 swap width and height."""
TRANSPOSED: Final = frozenset({5, 6, 7, 8})
LAST_COLUMN_FIRST: Final = frozenset({2, 3, 6, 7})
"""Orientations in which, once upright, the column that a decoder pads lies on the left."""
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
    """The image cannot be used; the text is the reason."""


@contextmanager
def open_inside(root: Path, path: str, most_bytes: int) -> Iterator[BinaryIO]:
    """A regular file under `root` (resolved), open to read, else UnusableError. Never blocks.

    Found in the spelling that the disk has (`media_paths.find_on_disk`).
    """
    if "\0" in path:
        raise UnusableError("outside the image root")
    try:
        real = (root / media_paths.find_on_disk(root, path)).resolve(strict=True)
    except PermissionError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from None
    except (OSError, RuntimeError, ValueError):
        raise UnusableError(media_paths.describe_foreign_path(path) or "missing") from None
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

    def transform(image: Image.Image, region: DecodedRegion) -> Pixels:
        box = region.to_decoded(_center_crop_box(region.width, region.height, size))
        return np.asarray(image.resize((size, size), FILTERS[resample], box=box), np.uint8)

    return _decode_with(data, transform, size)


def decode_without_crop(data: bytes, width: int, height: int, resample: Resample) -> Pixels:
    """uint8 [height, width, 3]: upright, on white, all of the picture in just this size."""

    def transform(image: Image.Image, region: DecodedRegion) -> Pixels:
        box = region.to_decoded((0, 0, region.width, region.height))
        return np.asarray(image.resize((width, height), FILTERS[resample], box=box), np.uint8)

    return _decode_with(data, transform, max(width, height))


class DecodedRegion(NamedTuple):
    """Position of the upright image (`width` x `height` in its file) in the decoded array.

    Decoded smaller, its last column and row are of whole blocks, so more than there is; in a turned
    picture they come first.
    """

    width: int
    height: int
    offset_x: float = 0
    offset_y: float = 0
    shrink: int = 1

    def to_decoded(self, box: Box) -> Box:
        """A box of the picture as one of the decoded image."""
        x0, y0, x1, y1 = (edge / self.shrink for edge in box)
        return self.offset_x + x0, self.offset_y + y0, self.offset_x + x1, self.offset_y + y1


Transform = Callable[[Image.Image, DecodedRegion], Pixels]
"""Pixels of an upright RGB image."""


def _decode_with(data: bytes, transform: Transform, longer_side: int) -> Pixels:
    """Decode to upright RGB and apply `transform`. `longer_side`: of the result, in pixels.

    Raises:
        UnusableError: the image is too large, truncated, damaged or of another format.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx")
            if not _is_whole(data, image.format or ""):
                raise UnusableError("truncated or damaged (no end mark, or a wrong check sum)")
            size, turn = image.size, _read_orientation(image)
            shrink = _shrink(image, longer_side * MARGIN)
            image.load()
            rgb = _to_rgb(image)
            return transform(rgb, _decoded_region(rgb, size, turn, shrink))
    except UnusableError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx") from None
    except UnidentifiedImageError:
        raise UnusableError(
            describe_other_content(data[:HEAD_BYTES]) or "not JPEG, PNG or WEBP"
        ) from None
    except Exception as error:
        # Decoders meet hostile bytes: OSError, ValueError, SyntaxError, struct.error and more.
        raise UnusableError(f"truncated or damaged ({type(error).__name__})") from None


def _is_whole(data: bytes, form: str) -> bool:
    """The end mark of a JPEG is there, and the check sums of a PNG's pixels are right.

    Decoders do not look: of half a file that was filled up with zeros the rest becomes grey.
    """
    if form == "PNG":
        return _has_valid_checksums(memoryview(data))
    return form not in {"JPEG", "MPO"} or _has_end_marker(data)


def _has_end_marker(data: bytes) -> bool:
    """There is an end mark behind the header of the first scan; a thumbnail's is before it."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == b"\xda":
            return data.find(b"\xff\xd9", at) >= 0
        is_alone = marker in {b"\x01", b"\xff"} or b"\xd0" <= marker <= b"\xd8"
        at += (1 if marker == b"\xff" else 2) if is_alone else _segment_length(data, at)
    return True  # an unusual JPEG: left to the decoder


def _segment_length(data: bytes, at: int) -> int:
    """Bytes of a JPEG's segment with its mark."""
    return 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def _has_valid_checksums(data: memoryview) -> bool:
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


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture that decodes, turned upright by EXIF; read from its header."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        return (height, width) if _read_orientation(image) in TRANSPOSED else (width, height)


def _read_orientation(image: Image.Image) -> int:
    """EXIF's orientation; a broken EXIF block leaves the picture as it lies."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def _decoded_region(
    image: Image.Image, size: tuple[int, int], turn: int, shrink: int
) -> DecodedRegion:
    """Region of an upright image decoded from a file's image of `size`."""
    if shrink == 1:
        return DecodedRegion(*image.size)
    width, height = size[::-1] if turn in TRANSPOSED else size
    offset_x = image.width - width / shrink if turn in LAST_COLUMN_FIRST else 0
    offset_y = image.height - height / shrink if turn in LAST_ROW_FIRST else 0
    return DecodedRegion(width, height, offset_x, offset_y, shrink)


def _shrink(image: Image.Image, min_side: int) -> int:
    """Let the decoder of a JPEG make it smaller, both sides `min_side` or more; by how much."""
    if image.format != "JPEG":
        return 1
    shrink = next(
        factor for factor in SHRINKS if factor == 1 or min(image.size) // factor >= min_side
    )
    size = image.width // shrink, image.height // shrink
    return shrink if shrink > 1 and image.draft(image.mode, size) else 1


def center_crop(
    image: Image.Image, size: int, resample: Resample, aspect: float = 1.0
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [size, size, 3] of an RGB image: shortest side to `size`, centre cut out.

    `aspect`: width of its pixels by their height.
    """
    width = max(1, round(image.width * aspect))
    x0, y0, x1, y1 = _center_crop_box(width, image.height, size)
    scale = image.width / width
    box = (x0 * scale, y0, min(x1 * scale, image.width), y1)
    return np.asarray(image.resize((size, size), FILTERS[resample], box=box), np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB, turned upright by EXIF; transparency on white, 16 bits to their upper 8."""
    with contextlib.suppress(Exception):  # a broken EXIF block leaves the picture as it lies
        image = ImageOps.exif_transpose(image) or image
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image, np.int64), 0, 65_535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        return composite_on_white(image)
    return image.convert("RGB")


def composite_on_white(image: Image.Image) -> Image.Image:
    """RGB of an image with transparency."""
    layer = image.convert("RGBA")
    background = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(background, layer).convert("RGB")


def _center_crop_box(width: int, height: int, size: int) -> Box:
    """Box in source pixels that remains after resize and centre crop, with their rounding."""
    short = min(width, height)
    wide, high = int(size * width / short), int(size * height / short)
    x0, y0 = (wide - size) // 2, (high - size) // 2
    return (
        x0 * width / wide,
        y0 * height / high,
        (x0 + size) * width / wide,
        (y0 + size) * height / high,
    )
