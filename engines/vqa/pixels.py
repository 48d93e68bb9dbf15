"""Pictures in their own proportions, as the patches that a Qwen-VL vision tower reads.

Apart from the model, which sees only patches. Sizes are whole tokens: a side is a multiple of patch
x merge (28 pixels). Pictures are decoded once for each size and lie in memory maps; patches stay
uint8 until they are on the device, a quarter of the bytes and without the doubled time axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datasets_mm.decode import UnusableError, extent, read_inside
from datasets_mm.uncut import UncutCache
from engines.emitter import EngineError
from engines.vqa.params import Params

Patches = npt.NDArray[np.uint8]
Say = Callable[[int, int, str], None]


class Grid(NamedTuple):
    """Patches of a picture."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Patching:
    """What the image processor says of patches and colours."""

    patch: int
    merge: int
    """Patches a side that become one token."""
    frames: int
    """A picture is shown as so many equal frames."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def factor(self) -> int:
        """Pixels a side of one token."""
        return self.patch * self.merge

    def tokens(self, grid: Grid) -> int:
        """Tokens of a picture."""
        return grid.rows * grid.columns // self.merge**2

    def cut(self, pixels: npt.NDArray[np.uint8]) -> Patches:
        """[h, w, 3] -> [rows x columns, 3, patch, patch], tokens one after the other."""
        p, m = self.patch, self.merge
        rows, columns = pixels.shape[0] // p, pixels.shape[1] // p
        split = pixels.reshape(rows // m, m, p, columns // m, m, p, 3)
        # token row, token column, patch row in it, patch column in it, channel, y, x
        return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, 3, p, p)

    def values(self, patches: Tensor) -> Tensor:
        """uint8 [n, 3, p, p] -> what the tower takes, float32 [n, 3 x frames x p x p]."""
        mean, std = (
            torch.tensor(numbers, device=patches.device).view(1, 3, 1, 1)
            for numbers in (self.mean, self.std)
        )
        shown = (patches.float() / 255 - mean) / std
        return shown.unsqueeze(2).expand(-1, -1, self.frames, -1, -1).flatten(1)


def patching(processor: Any, folder: Path) -> Patching:
    """Of a processor.

    Raises:
        EngineError: it cuts pictures in another way than Qwen2-VL and its successors.
    """
    eye: Any = getattr(processor, "image_processor", None)
    try:
        return Patching(
            int(eye.patch_size), int(eye.merge_size), int(eye.temporal_patch_size),
            tuple(map(float, eye.image_mean)), tuple(map(float, eye.image_std)),
        )  # fmt: skip
    except (AttributeError, TypeError, ValueError):
        raise EngineError(
            f"{folder}: its image processor does not cut pictures as Qwen2-VL, Qwen2.5-VL and "
            "Qwen3-VL do (patch_size, merge_size, temporal_patch_size); take one of these"
        ) from None


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

    patching: Patching
    limits: Limits
    cache_root: Path
    say: Say
    _extents: dict[tuple[Path, str], tuple[int, int]] = field(default_factory=dict)
    _found: dict[tuple[Path, str, float], tuple[Any, int]] = field(default_factory=dict)

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
            cache = UncutCache.open(named, root, size, self.cache_root, self.say)
            for path, scale in views:
                if path in cache.skipped:
                    raise unreadable(root, path, cache.skipped[path])
                self._found[root, path, scale] = (cache.array, cache.row(path))

    def patches(self, root: Path, path: str, scale: float = 1.0) -> Patches:
        """Of one picture."""
        array, row = self._place(root, path, scale)
        return self.patching.cut(array[row])

    def grid(self, root: Path, path: str, scale: float = 1.0) -> Grid:
        """Patches a side of one picture."""
        array, _ = self._place(root, path, scale)
        return Grid(*(side // self.patching.patch for side in array.shape[1:3]))

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
                width, height = extent(read_inside(resolved, path))
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
