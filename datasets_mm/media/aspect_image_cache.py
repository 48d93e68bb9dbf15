"""Pictures that are looked at whole: one cache for each size, beside the square, cut ones.

A vision-language model takes a picture in its own proportions, so what size it gets follows from
its own. Separate from images.py, whose rows all have one size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from datasets_mm.media.decode import decode_uncut
from datasets_mm.media.image_cache import Entry, Filler, ImageCache
from datasets_mm.storage.arrow_store import silent

if TYPE_CHECKING:
    import numpy as np

VERSION: Final = 2
"""Raised when equal files give other pixels: the old rows are then left alone. 2: large JPEGs are
decoded smaller."""


class UncutCache(ImageCache):
    """Pixels by path. `array`: uint8 [N, height, width, 3], RGB, read-only."""

    def __init__(self, folder: Path, extent: tuple[int, int], entries: dict[str, Entry]) -> None:
        self.extent = extent
        super().__init__(folder, extent[0], entries)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (*self.extent, 3)

    @classmethod
    def open(  # type: ignore[override]
        cls,
        paths: Sequence[str],
        root: Path,
        extent: tuple[int, int],
        cache_root: Path,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Self:
        """Map the rows of these paths (relative to `root`), decoding those that are new.

        `extent`: height and width that all of them get.
        """
        folder = cache_root / "uncut" / f"{extent[0]}x{extent[1]}-bicubic-v{VERSION}"
        filler = UncutFiller(root.resolve(), folder, extent)
        return cls(folder, extent, filler.entries(paths, progress or silent))


class UncutFiller(Filler):
    """Adds pictures to the files of one size."""

    def __init__(self, root: Path, folder: Path, extent: tuple[int, int]) -> None:
        super().__init__(root, folder, extent[0], "bicubic")
        self.extent = extent

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.extent[0] * self.extent[1] * 3

    def _pixels(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        height, width = self.extent
        return decode_uncut(data, width, height, self.resample)
