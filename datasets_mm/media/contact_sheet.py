"""Contact sheets of videos, for reports.

`python -m datasets_mm.media.contact_sheet --cache-root DIR FILE…`

A child of the report: it decodes strangers' videos, so that the report holds only what was decoded
here. A sheet shows the frames that a model is given, four in a row. Speaks JSON lines: a `sheet`
for each file that could be read, then `done`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from datasets_mm.child_messages import speak
from datasets_mm.media import video_frames as video
from datasets_mm.media.decode import UnusableError, open_inside
from datasets_mm.sources.fingerprint import SourceError

SIDE: Final = 96
"""Pixels of one frame."""
IN_A_ROW: Final = 4


def sheet(path: Path, frames: int, cache_root: Path) -> Path:
    """The sheet of a video, made where the cache has none: PNG, `frames` frames in reading order.

    Raises:
        UnusableError: the file is no video that can be decoded.
        SourceError: PyAV is not installed.
    """
    with open_inside(path.parent.resolve(), path.name, video.MAX_BYTES) as file:
        name = video.digest(file, 12).hex()
        made = cache_root / "thumbnails" / f"{name}-{frames}x{SIDE}.png"
        if not made.exists():
            from PIL import Image

            shown = video.read(file, frames, SIDE, "bicubic")
            made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = made.with_suffix(".tmp")
            Image.fromarray(laid_out(shown)).save(draft, "PNG")
            draft.replace(made)
    return made


def laid_out(shown: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [n, s, s, 3] -> [rows * s, columns * s, 3], empty places white."""
    count, side = shown.shape[:2]
    columns = min(IN_A_ROW, count)
    rows = math.ceil(count / columns)
    blank = np.full((rows * columns - count, side, side, 3), 255, np.uint8)
    whole = np.concatenate([shown, blank]).reshape(rows, columns, side, side, 3)
    return whole.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a sheet of each file, speaking JSON lines; one that cannot be read is left out."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.media.contact_sheet", description=__doc__
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=8)
    given = parser.parse_args(arguments)
    for path in given.files:
        try:
            made = sheet(path, given.frames, given.cache_root)
        except (UnusableError, SourceError, OSError) as reason:
            speak(kind="skipped", path=str(path), reason=str(reason))
        else:
            speak(kind="sheet", path=str(path), file=str(made))
    speak(kind="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
