"""Curve of a chart: points over steps or seconds, thinned evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_POINTS: Final = 512
"""Maximum number of points of a curve; beyond it every second one is dropped."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (x, y), thinned to `MAX_POINTS`: every `stride`-th of those offered is kept."""

    points: tuple[tuple[float, float], ...] = ()
    stride: int = 1
    offered: int = 0
    last: tuple[float, float] | None = None

    def extend(self, xs: Sequence[float], ys: Sequence[float]) -> Curve:
        """The curve with more points, at least one."""
        points, stride = self.points, self.stride
        at = -self.offered % stride
        if at < len(xs):
            kept = list(points)
            while at < len(xs):
                kept.append((xs[at], ys[at]))
                if len(kept) > MAX_POINTS:  # the last one stays: it is a multiple of both strides
                    kept, stride = kept[::2], stride * 2
                at += stride
            points = tuple(kept)
        return Curve(points, stride, self.offered + len(xs), (xs[-1], ys[-1]))

    def values(self) -> list[float]:
        """All y values, oldest first; the newest is always included."""
        ys = [y for _, y in self.points]
        if self.last is not None and (not self.points or self.points[-1] != self.last):
            ys.append(self.last[1])
        return ys


NO_CURVE: Final = Curve()
