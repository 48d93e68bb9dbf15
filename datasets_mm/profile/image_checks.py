"""Image checks of a profile: every path is looked up, a sample is decoded.

A look-up is one or two system calls; decoding takes milliseconds per image, so that opening all
339,137 of a large subset would take an hour. Usable is what decode.py accepts; it is imported with
the first image, because most scans of files have none.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path
from typing import Any

from datasets_mm.child_messages import Progress
from datasets_mm.media import qwen_image_tokens
from datasets_mm.media_paths import printable_name
from datasets_mm.media_types import is_video
from datasets_mm.profile.profile import NumberProfile, PictureProfile, SizeProfile
from datasets_mm.profile.token_lengths import wilson_interval
from datasets_mm.sources.fingerprint import SourceError

MAX_OPENED = 1_000
"""At 8 ms a photo of 640 x 480 this takes 8 s on one core; 1 % is estimated within 0.6 points."""
MAX_EXAMPLES = 5
LEAST_COPIES = 5
SHARE_OF_COPIES = 0.01
"""Share of the opened images with equal content from which on they are reported. Servers answer
with an image that says that there is none."""
SHOWN_SIDE = 512
"""Longer side in pixels whose tokens are drawn as bars; one of qwen_image_tokens.LONG_SIDES."""
TOKEN_STEP = 32


@dataclass
class PictureCount:
    """Images of a table. Paths are kept as hashes, except for the sample and the lost."""

    root: Path
    seed: int
    limit: int | None = MAX_OPENED
    """How many are opened; None: all."""
    with_sizes: bool = False
    """Whether sizes of the opened images are reported."""
    path_hashes: set[int] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    """Path -> reason."""
    sample: dict[str, int] = field(default_factory=dict)
    """Path -> rank, for those that may be in the sample."""
    _folders: dict[str, bool] = field(default_factory=dict)

    def check_paths(self, paths: Iterable[str]) -> None:
        """Look up these paths, each once."""
        for path in paths:
            path_hash = hash(path)
            if not path or path_hash in self.path_hashes:
                continue
            self.path_hashes.add(path_hash)
            if reason := self._find_problem(path):
                self.lost[path] = reason
            else:
                self.sample[path] = zlib.crc32(path.encode("utf-8", "replace"), self.seed)
        if self.limit is not None and len(self.sample) > 4 * self.limit + 1000:
            self._trim_sample()

    def _trim_sample(self) -> None:
        if self.limit is not None:
            self.sample = dict(
                nsmallest(self.limit, self.sample.items(), key=lambda d: (d[1], d[0]))
            )

    def _find_problem(self, path: str) -> str:
        """Reason why there is no usable file, in the words of decode.read_inside; "": usable."""
        from datasets_mm.media.decode import MAX_BYTES, MAX_VIDEO_BYTES

        if "\0" in path:
            return "outside the image root"
        full = os.path.normpath(self.root / path)
        folder, _ = os.path.split(full)
        if folder not in self._folders:
            self._folders[folder] = Path(folder).resolve().is_relative_to(self.root)
        if not self._folders[folder] or ".." in Path(path).parts:
            return self._resolve_fully(path)
        try:
            status = os.lstat(full)
        except OSError:
            return self._resolve_fully(path)  # another spelling, or no permission
        if stat.S_ISLNK(status.st_mode):
            return self._resolve_fully(path)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        max_bytes = MAX_VIDEO_BYTES if is_video(path) else MAX_BYTES
        return f"larger than {max_bytes >> 20:,} MiB" if status.st_size > max_bytes else ""

    def _resolve_fully(self, path: str) -> str:
        """The full rule, for paths that a glance cannot judge."""
        from datasets_mm.media.decode import MAX_BYTES, MAX_VIDEO_BYTES, UnusableError, open_inside

        try:
            max_bytes = MAX_VIDEO_BYTES if is_video(path) else MAX_BYTES
            with open_inside(self.root, path, max_bytes):
                pass
        except UnusableError as reason:
            return str(reason)
        return ""

    def profile(self, progress: Progress) -> PictureProfile:
        """Open the sample and add everything up."""
        self._trim_sample()
        reasons = dict(sorted(self.lost.items()))
        unusable: dict[str, str] = {}
        sizes: list[tuple[int, int]] = []
        copies: dict[bytes, list[str]] = {}
        paths = sorted(self.sample)
        with ThreadPoolExecutor(
            min(8, len(os.sched_getaffinity(0)))
        ) as pool:  # Pillow frees the lock
            for number, (path, result) in enumerate(
                zip(paths, pool.map(self._open_picture, paths), strict=True), 1
            ):
                progress(number, len(paths), "pictures")
                if isinstance(result, str):
                    unusable[path] = result
                elif result is not None:
                    sizes.append(result[:2])
                    copies.setdefault(result[2], []).append(path)
        opened = len(self.sample)
        is_complete = opened + len(self.lost) == len(self.path_hashes)
        low, high = wilson_interval(len(unusable) / opened if opened else 0.0, opened)
        return PictureProfile(
            root=printable_name(str(self.root)),
            distinct=len(self.path_hashes),
            lost=_count_reasons(reasons),
            opened=opened,
            opened_all=is_complete,
            unusable=_count_reasons(unusable),
            unusable_low=None if is_complete else low,
            unusable_high=None if is_complete else high,
            examples=_first_paths(reasons | unusable),
            sizes=_size_profile(sizes) if self.with_sizes and sizes else None,
            **_find_copies(copies),
        )

    def _open_picture(self, path: str) -> str | tuple[int, int, bytes] | None:
        """(width, height, digest) of an image, None for a video, or the reason for no pixels."""
        from datasets_mm.media.decode import UnusableError, decode, read_inside, upright_size

        try:
            if is_video(path):
                return self._open_video(path)
            data = read_inside(self.root, path)
            decode(data, 8, "bilinear")
            return *upright_size(data), hashlib.blake2b(data, digest_size=16).digest()
        except UnusableError as reason:
            return str(reason)

    def _open_video(self, path: str) -> str | None:
        """None: its first frame can be decoded, or PyAV is not there to try it."""
        from datasets_mm.media import video_frames
        from datasets_mm.media.decode import open_inside

        with open_inside(self.root, path, video_frames.MAX_BYTES) as file:
            try:
                return video_frames.read_clip(file, 1, 8, "bilinear").substitutes or None
            except SourceError:
                return None


def _size_profile(sizes: list[tuple[int, int]]) -> SizeProfile:
    """Spread of widths and heights, and of the tokens that they become."""
    tokens = {
        side: [qwen_image_tokens.image_tokens(*size, side) for size in sizes]
        for side in qwen_image_tokens.LONG_SIDES
    }
    token_counts = tokens[SHOWN_SIDE]
    steps = [0] * (-(-max(token_counts) // TOKEN_STEP))
    for count in token_counts:
        steps[(count - 1) // TOKEN_STEP] += 1
    return SizeProfile(
        width=_summarize([width for width, _ in sizes]),
        height=_summarize([height for _, height in sizes]),
        tokens={side: _summarize(counts) for side, counts in tokens.items()},
        step=TOKEN_STEP,
        histogram=tuple(steps),
    )


def _summarize(values: list[int]) -> NumberProfile:
    """Quantiles by nearest rank, so that each is a value that occurs."""
    ordered, n = sorted(values), len(values)
    return NumberProfile(
        lowest=ordered[0],
        median=ordered[(n - 1) // 2],
        p95=ordered[-(-95 * n // 100) - 1],
        highest=ordered[-1],
        mean=sum(values) / n,
    )


def _find_copies(copies: dict[bytes, list[str]]) -> dict[str, Any]:
    """The content that most files share, if these are enough for a placeholder image."""
    largest = max(copies.values(), key=lambda paths: (len(paths), paths[0]), default=[])
    if len(largest) < max(LEAST_COPIES, SHARE_OF_COPIES * sum(map(len, copies.values()))):
        return {}
    return {"alike": len(largest), "alike_example": largest[0]}


def _count_reasons(reasons: dict[str, str]) -> dict[str, int]:
    count: dict[str, int] = {}
    for reason in reasons.values():
        count[reason] = count.get(reason, 0) + 1
    return dict(sorted(count.items(), key=lambda item: -item[1]))


def _first_paths(reasons: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """The first five paths of each reason."""
    examples: dict[str, tuple[str, ...]] = {}
    for path, reason in reasons.items():
        if len(examples.get(reason, ())) < MAX_EXAMPLES:
            examples[reason] = (*examples.get(reason, ()), path)
    return examples
