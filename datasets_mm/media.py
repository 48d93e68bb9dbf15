"""The one list of media types: endings of pictures and videos, for adapters, engines and reports.

The ending only chooses which decoder opens a file; what the file holds is checked when it is read.
"""

from __future__ import annotations

from typing import Final

PICTURE_ENDINGS: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic"}
)
"""Endings that name a picture; decode.py reads JPEG, PNG and WEBP and refuses the others."""
VIDEO_ENDINGS: Final = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2",
    ".mkv", ".webm",
    ".avi", ".divx",
    ".mpeg", ".mpg", ".mpe", ".m1v", ".m2v", ".vob",
    ".ts", ".m2ts", ".mts", ".m2t", ".trp",
    ".ogv", ".ogg", ".ogm",
    ".asf", ".wmv",
    ".flv", ".f4v",
})  # fmt: skip
"""Usual endings of the containers in `frames.FORMATS`, one row a container."""
MEDIA_ENDINGS: Final = PICTURE_ENDINGS | VIDEO_ENDINGS


def ending(path: str) -> str:
    """The ending in small letters, with its dot; "" without one."""
    name = path.rstrip().replace("\\", "/").rpartition("/")[2]
    stem, dot, last = name.rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


def is_video(path: str) -> bool:
    """By the ending of the path, in any case of letters."""
    return ending(path) in VIDEO_ENDINGS


def is_medium(path: str) -> bool:
    """The path ends like that of a picture or a video."""
    return ending(path) in MEDIA_ENDINGS
