"""Pictures in their own proportions, decoded once for each size, in memory maps.

Apart from the model and from what its processor makes of them. A side is a multiple of the sight's
`factor`, 28 pixels: with Qwen2.5-VL that is one token.
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
from engines.torchkit.data import subsets
from engines.vqa.models.processor import Pixels, Sight
from engines.vqa.params import Params

Say = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Limits:
    """How large pictures are looked at."""

    long_side: int
    min_pixels: int
    max_pixels: int
    factor: int

    @classmethod
    def of(cls, params: Params, factor: int) -> Limits:
        """As the settings say."""
        return cls(params.long_side, params.min_pixels, params.max_pixels, factor)

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) that a picture gets, whole tokens, at least one each.

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

    sight: Sight
    limits: Limits
    cache_root: Path
    say: Say
    _extents: dict[tuple[Path, str], tuple[int, int]] = field(default_factory=dict)
    _found: dict[tuple[Path, str, float], tuple[Any, int]] = field(default_factory=dict)
    _caches: dict[tuple[Path, str], AspectImageCache] = field(default_factory=dict)
    """Where each picture lies at scale 1."""

    def add(self, root: Path, paths: Sequence[str], scales: Sequence[float] = (1.0,)) -> None:
        """Decode what is not there yet.

        Raises:
            EngineError: a picture is missing or cannot be read: every question needs its own.
        """
        self._measure(root, paths)
        wanted: dict[tuple[int, int], list[tuple[str, float]]] = {}
        for path in dict.fromkeys(paths):
            for scale in scales:
                if (root, path, scale) not in self._found:
                    size = self.limits.size(*self._extents[root, path], scale)
                    wanted.setdefault(size, []).append((path, scale))
        for size, views in wanted.items():
            named = [path for path, _ in views]
            with subsets.source_errors_as_engine_errors():
                cache = AspectImageCache.open(named, root, size, self.cache_root, self.say)
            for path, scale in views:
                if path in cache.skipped:
                    raise unreadable(root, path, cache.skipped[path])
                self._found[root, path, scale] = (cache.array, cache.row(path))
                if scale == 1.0:
                    self._caches[root, path] = cache

    def contents(self, root: Path, paths: Sequence[str]) -> str:
        """Digest of what these pictures are at scale 1; all of them were added."""
        groups: dict[int, list[str]] = {}
        for path in paths:
            groups.setdefault(id(self._caches[root, path]), []).append(path)
        return " ".join(self._caches[root, group[0]].contents(group) for group in groups.values())

    def pixels(self, root: Path, path: str, scale: float = 1.0) -> Pixels:
        """Of one picture, uint8 [h, w, 3]."""
        array, row = self._place(root, path, scale)
        found: Pixels = array[row]
        return found

    def tokens(self, root: Path, path: str, scale: float = 1.0) -> int:
        """That one picture becomes."""
        array, _ = self._place(root, path, scale)
        return self.sight.tokens(*array.shape[1:3])

    @property
    def bytes(self) -> int:
        """Of all pictures in all their sizes."""
        sizes = {(id(array), row): array[0].nbytes for array, row in self._found.values()}
        return sum(sizes.values())

    def same(self, root: Path, paths: Sequence[str], scale: float) -> bool:
        """Whether a scale gives all these pictures the size that they have anyway."""
        sizes = {self._extents[root, path] for path in paths}
        return all(self.limits.size(*one, scale) == self.limits.size(*one) for one in sizes)

    def _place(self, root: Path, path: str, scale: float) -> tuple[Any, int]:
        if (root, path, scale) not in self._found:
            self.add(root, [path], (scale,))
        return self._found[root, path, scale]

    def _measure(self, root: Path, paths: Sequence[str]) -> None:
        fresh = [path for path in dict.fromkeys(paths) if (root, path) not in self._extents]
        resolved = root.resolve()

        def look(path: str) -> tuple[int, int]:
            try:
                width, height = upright_size(read_inside(resolved, path))
            except UnusableError as reason:
                raise unreadable(root, path, str(reason)) from None
            except Exception as error:  # a decoder meets hostile bytes
                raise unreadable(root, path, f"damaged ({type(error).__name__})") from None
            return height, width

        with ThreadPoolExecutor(4) as pool:
            for path, found in zip(fresh, pool.map(look, fresh), strict=True):
                self._extents[root, path] = found


def unreadable(root: Path, path: str, reason: str) -> EngineError:
    """The sentence about a picture that no question can do without."""
    return EngineError(
        f"{root / path}: {reason}; put the picture there, or leave its questions out by a `where` "
        "step on image_path"
    )
