"""Are the pictures there, and can they be used? Every path is looked up, a sample is decoded.

A look-up is one or two system calls; decoding takes milliseconds a picture, so that opening all
339,137 of a large subset would take an hour. What counts as usable is decided by decode.py, which
is loaded with the first picture: most scans of files have none to look at.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path
from typing import Any

from datasets_mm.media import qwen_image_tokens
from datasets_mm.media_paths import shown
from datasets_mm.media_types import is_video
from datasets_mm.profile.profile import PictureProfile, SizeProfile, Spread
from datasets_mm.profile.token_lengths import wilson
from datasets_mm.sources.fingerprint import SourceError

OPENED = 1_000
"""At 8 ms a photo of 640 x 480 that is 8 s on one core; 1 % is told within 0.6 points."""
EXAMPLES = 5
LEAST_COPIES = 5
SHARE_OF_COPIES = 0.01
"""Of the opened pictures: from so many files of one content on they are told. Servers answer with
a picture that says there is none."""
SHOWN_SIDE = 512
"""Longer side in pixels whose tokens are drawn as bars; one of patches.LONG_SIDES."""
TOKEN_STEP = 32


@dataclass
class PictureCount:
    """Pictures that one process met. Paths are kept as hashes, but for the sample and the lost."""

    root: Path
    seed: int
    limit: int | None = OPENED
    """How many are opened; None: all."""
    measured: bool = False
    """Sizes of those that are opened are told."""
    seen: set[int] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    """Path -> reason."""
    drawn: dict[str, int] = field(default_factory=dict)
    """Path -> rank, for those that may be in the sample."""
    _folders: dict[str, bool] = field(default_factory=dict)

    def look(self, paths: Iterable[str]) -> None:
        """Look up these paths, each once."""
        for path in paths:
            mark = hash(path)
            if not path or mark in self.seen:
                continue
            self.seen.add(mark)
            if reason := self._reason(path):
                self.lost[path] = reason
            else:
                self.drawn[path] = zlib.crc32(path.encode("utf-8", "replace"), self.seed)
        if self.limit is not None and len(self.drawn) > 4 * self.limit + 1000:
            self._thin()

    def _thin(self) -> None:
        if self.limit is not None:
            self.drawn = dict(nsmallest(self.limit, self.drawn.items(), key=lambda d: (d[1], d[0])))

    def _reason(self, path: str) -> str:
        """Why there is no usable file; the words are those of decode.read_inside."""
        from datasets_mm.media.decode import MAX_BYTES, MAX_VIDEO_BYTES

        if "\0" in path:
            return "outside the image root"
        full = os.path.normpath(self.root / path)
        folder, _ = os.path.split(full)
        if folder not in self._folders:
            self._folders[folder] = Path(folder).resolve().is_relative_to(self.root)
        if not self._folders[folder] or ".." in Path(path).parts:
            return self._slowly(path)
        try:
            status = os.lstat(full)
        except OSError:
            return self._slowly(path)  # another spelling, or no permission
        if stat.S_ISLNK(status.st_mode):
            return self._slowly(path)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        most = MAX_VIDEO_BYTES if is_video(path) else MAX_BYTES
        return f"larger than {most >> 20:,} MiB" if status.st_size > most else ""

    def _slowly(self, path: str) -> str:
        """The full rule, for paths that a glance cannot judge."""
        from datasets_mm.media.decode import MAX_BYTES, MAX_VIDEO_BYTES, UnusableError, open_inside

        try:
            most = MAX_VIDEO_BYTES if is_video(path) else MAX_BYTES
            with open_inside(self.root, path, most):
                pass
        except UnusableError as reason:
            return str(reason)
        return ""

    def merge(self, other: PictureCount) -> None:
        """Take over what another process met."""
        self.seen |= other.seen
        self.lost |= other.lost
        self.drawn |= other.drawn
        self._thin()

    def profile(self, say: Callable[[int, int, str], None]) -> PictureProfile:
        """Open the sample and add everything up."""
        self._thin()
        reasons = dict(sorted(self.lost.items()))
        unusable: dict[str, str] = {}
        sizes: list[tuple[int, int]] = []
        copies: dict[bytes, list[str]] = {}
        paths = sorted(self.drawn)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow frees the lock
            for number, (path, said) in enumerate(
                zip(paths, pool.map(self._opened, paths), strict=True), 1
            ):
                say(number, len(paths), "pictures")
                if isinstance(said, str):
                    unusable[path] = said
                elif said is not None:
                    sizes.append(said[:2])
                    copies.setdefault(said[2], []).append(path)
        opened, everything = len(self.drawn), len(self.drawn) + len(self.lost) == len(self.seen)
        low, high = wilson(len(unusable) / opened if opened else 0.0, opened)
        return PictureProfile(
            root=shown(str(self.root)),
            distinct=len(self.seen),
            lost=_counted(reasons),
            opened=opened,
            opened_all=everything,
            unusable=_counted(unusable),
            unusable_low=None if everything else low,
            unusable_high=None if everything else high,
            examples=_first(reasons | unusable),
            sizes=_sizes(sizes) if self.measured and sizes else None,
            **_alike(copies),
        )

    def _opened(self, path: str) -> str | tuple[int, int, bytes] | None:
        """(width, height, digest) of a picture, None for a video, or why there are no pixels."""
        from datasets_mm.media.decode import UnusableError, decode, extent, read_inside

        try:
            if is_video(path):
                return self._opened_video(path)
            data = read_inside(self.root, path)
            decode(data, 8, "bilinear")
            return *extent(data), hashlib.blake2b(data, digest_size=16).digest()
        except UnusableError as reason:
            return str(reason)

    def _opened_video(self, path: str) -> str | None:
        """None: its first frame can be decoded, or PyAV is not there to try it."""
        from datasets_mm.media import video_frames
        from datasets_mm.media.decode import open_inside

        with open_inside(self.root, path, video_frames.MAX_BYTES) as file:
            try:
                return video_frames.read_clip(file, 1, 8, "bilinear").substitutes or None
            except SourceError:
                return None


def _sizes(sizes: list[tuple[int, int]]) -> SizeProfile:
    """Spread of widths and heights, and of the tokens that they become."""
    tokens = {
        side: [qwen_image_tokens.image_tokens(*size, side) for size in sizes]
        for side in qwen_image_tokens.LONG_SIDES
    }
    shown = tokens[SHOWN_SIDE]
    steps = [0] * (-(-max(shown) // TOKEN_STEP))
    for count in shown:
        steps[(count - 1) // TOKEN_STEP] += 1
    return SizeProfile(
        width=_spread([width for width, _ in sizes]),
        height=_spread([height for _, height in sizes]),
        tokens={side: _spread(counts) for side, counts in tokens.items()},
        step=TOKEN_STEP,
        histogram=tuple(steps),
    )


def _spread(values: list[int]) -> Spread:
    """Quantiles by nearest rank, so that each is a value that occurs."""
    ordered, n = sorted(values), len(values)
    return Spread(
        lowest=ordered[0],
        median=ordered[(n - 1) // 2],
        p95=ordered[-(-95 * n // 100) - 1],
        highest=ordered[-1],
        mean=sum(values) / n,
    )


def _alike(copies: dict[bytes, list[str]]) -> dict[str, Any]:
    """The picture that most files are copies of, where they are enough for a stand-in."""
    most = max(copies.values(), key=lambda paths: (len(paths), paths[0]), default=[])
    if len(most) < max(LEAST_COPIES, SHARE_OF_COPIES * sum(map(len, copies.values()))):
        return {}
    return {"alike": len(most), "alike_example": most[0]}


def _counted(reasons: dict[str, str]) -> dict[str, int]:
    count: dict[str, int] = {}
    for reason in reasons.values():
        count[reason] = count.get(reason, 0) + 1
    return dict(sorted(count.items(), key=lambda item: -item[1]))


def _first(reasons: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """The first five paths of each reason."""
    found: dict[str, tuple[str, ...]] = {}
    for path, reason in reasons.items():
        if len(found.get(reason, ())) < EXAMPLES:
            found[reason] = (*found.get(reason, ()), path)
    return found
