"""Contact sheets of videos, for reports.

`python -m datasets_mm.media.contact_sheet --cache-root DIR FILE…`

A child process of the report, which thus never decodes untrusted videos itself. A sheet shows the
frames that a model is given, four in a row. Prints JSON lines: one `sheet` for each file that could
be read, one `skipped` for each other, then `done`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from datasets_mm.atomic_files import atomic_path
from datasets_mm.child_messages import emit_message
from datasets_mm.media import video_frames
from datasets_mm.media.decode import UnusableError, open_inside
from datasets_mm.sources.fingerprint import SourceError

SIDE: Final = 96
"""Pixels of one frame."""
FRAMES_PER_ROW: Final = 4


def make_sheet(path: Path, frames: int, cache_root: Path) -> Path:
    """Contact sheet of a video as PNG, from the cache where present: `frames` in reading order.

    Raises:
        UnusableError: the file is no video that can be decoded.
        SourceError: PyAV is not installed.
    """
    with open_inside(path.parent.resolve(), path.name, video_frames.MAX_BYTES) as file:
        name = video_frames.digest_file(file, 12).hex()
        target = cache_root / "thumbnails" / f"{name}-{frames}x{SIDE}.png"
        if not target.exists():
            from PIL import Image

            pixels = video_frames.read_frames(file, frames, SIDE, "bicubic")
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_path(target) as draft:
                Image.fromarray(tile_frames(pixels)).save(draft, "PNG")
    return target


def tile_frames(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [n, s, s, 3] -> [rows * s, columns * s, 3], empty places white."""
    count, side = frames.shape[:2]
    columns = min(FRAMES_PER_ROW, count)
    rows = math.ceil(count / columns)
    padding = np.full((rows * columns - count, side, side, 3), 255, np.uint8)
    tiles = np.concatenate([frames, padding]).reshape(rows, columns, side, side, 3)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a sheet for each file and print JSON lines; unreadable files are skipped."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.media.contact_sheet", description=__doc__
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args(arguments)
    for path in options.files:
        try:
            file = make_sheet(path, options.frames, options.cache_root)
        except (UnusableError, SourceError, OSError) as reason:
            emit_message(kind="skipped", path=str(path), reason=str(reason))
        else:
            emit_message(kind="sheet", path=str(path), file=str(file))
    emit_message(kind="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
