"""File extensions of images and videos, for adapters, engines and reports.

The extension only chooses the decoder; the content is checked when the file is read, and
`describe_other_content` names what is often found in its place.
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
"""Usual endings of the containers in `video_frames.FORMATS`, one row a container."""
MEDIA_ENDINGS: Final = PICTURE_ENDINGS | VIDEO_ENDINGS
POINTER: Final = b"version https://git-lfs"
HEAD_BYTES: Final = 512
"""Of a file that `describe_other_content` judges."""


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


def describe_other_content(head: bytes) -> str:
    """Content that no decoder reads, by its first bytes; "": none of the known kinds."""
    if not head.strip(b"\0"):
        return "holds zero bytes only" if head else "is an empty file"
    if head.startswith(POINTER):
        return "is a Git LFS pointer (run: git lfs pull)"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page (download the file again)"
    return ""
