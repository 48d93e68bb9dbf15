"""The aspect-ratio image cache: images without crop, one cache folder for each (height, width).

For vision-language models that keep the proportions of an image, so that its input size follows
from its own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from datasets_mm.child_messages import Progress, ignore_progress
from datasets_mm.media.decode import decode_without_crop
from datasets_mm.media.image_cache import CacheEntry, ImageCache, ImageCacheBuilder

if TYPE_CHECKING:
    import numpy as np

VERSION: Final = 2
"""Raised when equal files give other pixels: the old rows are then left alone. 2: large JPEGs are
decoded smaller."""


class AspectImageCache(ImageCache):
    """Pixels by path. `array`: uint8 [N, height, width, 3], RGB, read-only."""

    def __init__(
        self, folder: Path, extent: tuple[int, int], entries: dict[str, CacheEntry]
    ) -> None:
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
        progress: Progress | None = None,
    ) -> Self:
        """Map the rows of these paths (relative to `root`), decoding those that are new.

        `extent`: height and width that all of them get.
        """
        folder = cache_root / "uncut" / f"{extent[0]}x{extent[1]}-bicubic-v{VERSION}"
        builder = AspectCacheBuilder(root.resolve(), folder, extent)
        return cls(folder, extent, builder.load_entries(paths, progress or ignore_progress))


class AspectCacheBuilder(ImageCacheBuilder):
    """Builder of the cache files of one size."""

    def __init__(self, root: Path, folder: Path, extent: tuple[int, int]) -> None:
        super().__init__(root, folder, extent[0], "bicubic")
        self.extent = extent

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.extent[0] * self.extent[1] * 3

    def _decode(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        height, width = self.extent
        return decode_without_crop(data, width, height, self.resample)
