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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets_mm import paths

MAX_PIXELS: Final = 40_000_000
"""Pillow only warns above 89 Mpx: a 9 KiB PNG may decode to 400 MiB below that."""

MAX_BYTES: Final = 64 << 20
MAX_VIDEO_BYTES: Final = 4 << 30
FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""Pillow would otherwise try over 40 decoders, EPS among them."""

ORIENTATION: Final = 0x0112
"""EXIF's tag; values 5 to 8 swap width and height."""
LYING: Final = frozenset({5, 6, 7, 8})

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
        real = (root / paths.on_disk(root, path)).resolve(strict=True)
    except PermissionError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from None
    except (OSError, RuntimeError, ValueError):
        raise UnusableError(paths.foreign(path) or "missing") from None
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
    """
    return _made(data, lambda image: fitted(image, size, resample))


def decode_uncut(data: bytes, width: int, height: int, resample: Resample) -> Pixels:
    """uint8 [height, width, 3]: upright, on white, all of the picture in just this size."""
    return _made(
        data, lambda image: np.asarray(image.resize((width, height), FILTERS[resample]), np.uint8)
    )


def _made(data: bytes, make: Callable[[Image.Image], Pixels]) -> Pixels:
    """What `make` makes of the RGB image, else UnusableError."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx")
            image.load()
            return make(_flat(image))
    except UnusableError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx") from None
    except UnidentifiedImageError:
        raise UnusableError("not JPEG, PNG or WEBP") from None
    except Exception as error:
        # Decoders meet hostile bytes: OSError, ValueError, SyntaxError, struct.error and more.
        raise UnusableError(f"truncated or damaged ({type(error).__name__})") from None


def extent(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture that decodes, turned upright by EXIF; read from its header."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        with contextlib.suppress(Exception):  # a broken EXIF block leaves the picture as it lies
            if image.getexif().get(ORIENTATION) in LYING:
                return height, width
        return width, height


def fitted(
    image: Image.Image, size: int, resample: Resample
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [size, size, 3] of an RGB image: shortest side to `size`, centre cut out."""
    box = _centre(image.width, image.height, size)
    return np.asarray(image.resize((size, size), FILTERS[resample], box=box), np.uint8)


def _flat(image: Image.Image) -> Image.Image:
    """RGB, turned upright by EXIF; transparency on white, 16 bits to their upper 8."""
    with contextlib.suppress(Exception):  # a broken EXIF block leaves the picture as it lies
        image = ImageOps.exif_transpose(image) or image
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image, np.int64), 0, 65_535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(ground, layer)
    return image.convert("RGB")


def _centre(width: int, height: int, size: int) -> tuple[float, float, float, float]:
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
