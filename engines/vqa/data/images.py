"""Pictures in their aspect ratio, decoded once for each size into memory-mapped caches.

Sides are multiples of the processor's `factor`: 28 pixels, one token with Qwen2.5-VL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_mm.media.aspect_image_cache import AspectImageCache
from datasets_mm.media.decode import UnusableError, read_inside, upright_size
from engines.emitter import EngineError
from engines.torchkit.data import subset_source
from engines.vqa.models.processor import ImageTextProcessor, Pixels
from engines.vqa.params import Params

ReportProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SizeLimits:
    """The limits of picture sizes, in pixels."""

    long_side: int
    min_pixels: int
    max_pixels: int
    factor: int

    @classmethod
    def from_params(cls, params: Params, factor: int) -> SizeLimits:
        """The limits of a run's settings."""
        return cls(params.long_side, params.min_pixels, params.max_pixels, factor)

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) to which a picture is resized, multiples of `factor`.

        Without `long_side` the rule of Qwen2-VL's smart_resize: the nearest multiples, and where
        they are too many or too few pixels in all, both sides by one and the same factor.
        """
        if self.long_side:
            shrink = self.long_side / max(height, width) * scale
            return self._round(height * shrink), self._round(width * shrink)
        tall, wide = self._round(height), self._round(width)
        if tall * wide > self.max_pixels:
            shrink = (height * width / self.max_pixels) ** 0.5
            tall, wide = (self._floor(side / shrink) for side in (height, width))
        elif tall * wide < self.min_pixels:
            grow = (self.min_pixels / (height * width)) ** 0.5
            tall, wide = (self._ceil(side * grow) for side in (height, width))
        if scale == 1:
            return tall, wide
        return self._round(tall * scale), self._round(wide * scale)

    def _ceil(self, side: float) -> int:
        return math.ceil(side / self.factor) * self.factor

    def _round(self, side: float) -> int:
        return max(1, round(side / self.factor)) * self.factor

    def _floor(self, side: float) -> int:
        return max(1, int(side // self.factor)) * self.factor


@dataclass
class Pictures:
    """All pictures of a run, by root, path and scale."""

    processor: ImageTextProcessor
    limits: SizeLimits
    cache_root: Path
    report_progress: ReportProgress
    _sizes: dict[tuple[Path, str], tuple[int, int]] = field(default_factory=dict)
    _locations: dict[tuple[Path, str, float], tuple[Any, int]] = field(default_factory=dict)
    _caches: dict[tuple[Path, str], AspectImageCache] = field(default_factory=dict)
    """The cache of each picture at scale 1."""

    def add(self, root: Path, paths: Sequence[str], scales: Sequence[float] = (1.0,)) -> None:
        """Decode the pictures at these scales, unless they are decoded already.

        Raises:
            EngineError: a picture is missing or cannot be read: every question needs its own.
        """
        self._measure_sizes(root, paths)
        missing: dict[tuple[int, int], list[tuple[str, float]]] = {}
        for path in dict.fromkeys(paths):
            for scale in scales:
                if (root, path, scale) not in self._locations:
                    size = self.limits.size(*self._sizes[root, path], scale)
                    missing.setdefault(size, []).append((path, scale))
        for size, views in missing.items():
            named = [path for path, _ in views]
            with subset_source.source_errors_as_engine_errors():
                cache = AspectImageCache.open(
                    named, root, size, self.cache_root, self.report_progress
                )
            for path, scale in views:
                if path in cache.skipped:
                    raise unreadable_error(root, path, cache.skipped[path])
                self._locations[root, path, scale] = (cache.array, cache.row(path))
                if scale == 1.0:
                    self._caches[root, path] = cache

    def contents(self, root: Path, paths: Sequence[str]) -> str:
        """Digest of the contents of these pictures at scale 1, which were all added."""
        groups: dict[int, list[str]] = {}
        for path in paths:
            groups.setdefault(id(self._caches[root, path]), []).append(path)
        return " ".join(self._caches[root, group[0]].contents(group) for group in groups.values())

    def pixels(self, root: Path, path: str, scale: float = 1.0) -> Pixels:
        """Pixels of a picture, uint8 [h, w, 3]."""
        array, row = self._locate(root, path, scale)
        pixels: Pixels = array[row]
        return pixels

    def tokens(self, root: Path, path: str, scale: float = 1.0) -> int:
        """Number of tokens of a picture."""
        array, _ = self._locate(root, path, scale)
        return self.processor.count_image_tokens(*array.shape[1:3])

    @property
    def bytes(self) -> int:
        """Bytes of all decoded pictures in all sizes."""
        sizes = {(id(array), row): array[0].nbytes for array, row in self._locations.values()}
        return sum(sizes.values())

    def all_same_size(self, root: Path, paths: Sequence[str], scale: float) -> bool:
        """Whether a scale leaves the size of all these pictures unchanged."""
        sizes = {self._sizes[root, path] for path in paths}
        return all(self.limits.size(*size, scale) == self.limits.size(*size) for size in sizes)

    def _locate(self, root: Path, path: str, scale: float) -> tuple[Any, int]:
        if (root, path, scale) not in self._locations:
            self.add(root, [path], (scale,))
        return self._locations[root, path, scale]

    def _measure_sizes(self, root: Path, paths: Sequence[str]) -> None:
        unmeasured = [path for path in dict.fromkeys(paths) if (root, path) not in self._sizes]
        resolved = root.resolve()

        def read_size(path: str) -> tuple[int, int]:
            try:
                width, height = upright_size(read_inside(resolved, path))
            except UnusableError as reason:
                raise unreadable_error(root, path, str(reason)) from None
            except Exception as error:  # decoders may raise anything on damaged files
                raise unreadable_error(root, path, f"damaged ({type(error).__name__})") from None
            return height, width

        with ThreadPoolExecutor(4) as pool:
            for path, size in zip(unmeasured, pool.map(read_size, unmeasured), strict=True):
                self._sizes[root, path] = size


def unreadable_error(root: Path, path: str, reason: str) -> EngineError:
    """The error for an unreadable picture."""
    return EngineError(
        f"{root / path}: {reason}; put the picture there, or leave its questions out by a `where` "
        "step on image_path"
    )
