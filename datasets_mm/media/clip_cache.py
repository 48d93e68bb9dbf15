"""The clip cache: a fixed number of frames of each video, decoded once.

One row is a clip: its frames in order, keyed by the file's content, the number of frames and the
transform. Videos that video_frames.py refuses are skipped, with the reason stored for their path.
Substituted frames are named in `substitutes.json`, row by row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from datasets_mm.atomic_files import write_atomic
from datasets_mm.child_messages import Progress, ignore_progress
from datasets_mm.media import video_frames
from datasets_mm.media.decode import Resample, UnusableError, open_inside
from datasets_mm.media.image_cache import WINDOW, CacheEntry, ImageCache, ImageCacheBuilder
from datasets_mm.media.pixel_file import HASH_BYTES, count_rows

VERSION: Final = 3
"""Raised when equal files give other pixels: the old rows are then left alone. 3: covers, pixels
that are no squares, transparency."""
SUBSTITUTES: Final = "substitutes.json"


class ClipCache(ImageCache):
    """Frames by path. `array`: uint8 [N, frames, size, size, 3], RGB, read-only."""

    def __init__(
        self, folder: Path, size: int, entries: dict[str, CacheEntry], frames: int
    ) -> None:
        self.frames = frames
        super().__init__(folder, size, entries)
        notes = _read_substitutes(folder)
        rows = ((path, self.row(path)) for path in entries)
        self.substituted = {path: notes[row] for path, row in rows if row in notes}
        """Path -> description of its substituted frames, which could not be decoded."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.frames, self.size, self.size, 3)

    @classmethod
    def open(  # type: ignore[override]
        cls,
        paths: Sequence[str],
        root: Path,
        size: int,
        frames: int,
        cache_root: Path,
        progress: Progress | None = None,
    ) -> Self:
        """Map the rows of these paths (relative to `root`), decoding those that are new.

        Raises:
            SourceError: PyAV is not installed.
        """
        video_frames.require_av()
        folder = cache_root / "clips" / f"{size}-{frames}-bicubic-center-v{VERSION}"
        builder = ClipCacheBuilder(root.resolve(), folder, size, frames)
        return cls(folder, size, builder.load_entries(paths, progress or ignore_progress), frames)


class ClipCacheBuilder(ImageCacheBuilder):
    """Adds clips to the files of one transform."""

    def __init__(self, root: Path, folder: Path, size: int, frames: int) -> None:
        super().__init__(root, folder, size, "bicubic")
        self.frames = frames
        self._notes: dict[bytes, str] = {}
        """Content hash -> `video_frames.Clip.substitutes`, where not empty."""

    def decode_new(self, marks: dict[str, int], progress: Progress) -> dict[str, CacheEntry]:
        """Decode new clips; substituted frames are added to `substitutes.json`.

        Those of the rows that are there are added however it ends: their clips are not read again.
        """
        try:
            return super().decode_new(marks, progress)
        finally:
            rows = count_rows(self.folder, self.row_bytes)
            noted = {self.rows.get(key, rows): note for key, note in self._notes.items()}
            if noted := {row: note for row, note in noted.items() if row < rows}:
                notes = _read_substitutes(self.folder) | noted
                write_atomic(self.folder / SUBSTITUTES, json.dumps(notes))

    @property
    def row_bytes(self) -> int:
        """Bytes of one clip: 1.2 MB of eight frames at 224 px."""
        return self.frames * super().row_bytes

    @property
    def window(self) -> int:
        """Clips that are decoded before they are written."""
        return max(1, WINDOW // self.frames)

    def _load(self, path: str) -> tuple[bytes, bytes] | str:
        """(content hash, pixels), or the reason for skipping; b"" pixels for known content."""
        resample: Resample = self.resample
        try:
            with open_inside(self.root, path, video_frames.MAX_BYTES) as file:
                key = video_frames.digest_file(file, HASH_BYTES)
                if key in self.rows:
                    return key, b""
                clip = video_frames.read_clip(file, self.frames, self.size, resample)
                if clip.substitutes:
                    self._notes[key] = clip.substitutes
                return key, clip.pixels.tobytes()
        except UnusableError as reason:
            return str(reason)


def _read_substitutes(folder: Path) -> dict[int, str]:
    """Row -> description of its substituted frames."""
    with suppress(OSError, ValueError):
        notes = json.loads((folder / SUBSTITUTES).read_text("utf-8"))
        return {int(row): str(note) for row, note in notes.items()}
    return {}
