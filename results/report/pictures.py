"""Images of a report: copied next to it under content-based names.

A report that is moved to another machine keeps them. Only regular files that begin like JPEG, PNG
or WEBP are copied.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from results.text.table import TableCell

MAX_BYTES: Final = 8 << 20
WIDTH: Final = 96
"""Width in the report, in pixels, of an image or of one frame."""

_TAG: Final = re.compile(
    r'(?<!\\)<img src="(pictures/[0-9a-f]{24}\.[a-z]{3,4})" width="(\d{1,4})" alt="">'
)
_WIDTH: Final = re.compile(r"=(\d{1,4})")
MAGIC_BYTES: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
)


def copy_pictures(pictures: Iterable[str], folder: Path) -> dict[str, str]:
    """Copy pictures into `folder`; link by path, relative to its parent."""
    links: dict[str, str] = {}
    for picture in dict.fromkeys(pictures):
        data = _read_regular_file(Path(picture)) if picture else b""
        ending = _picture_type(data)
        if not ending:
            continue
        name = f"{hashlib.blake2b(data, digest_size=12).hexdigest()}.{ending}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        links[picture] = f"{folder.name}/{name}"
    return links


def picture_cell(
    picture: str, medium: str, links: Mapping[str, str], columns: int = 1
) -> TableCell:
    """The picture, or the medium's name where none was copied; `columns`: frames side by side."""
    link = links.get(picture)
    if link is None:
        return TableCell(medium, "code")
    return TableCell(f'<img src="{link}" width="{WIDTH * columns}" alt="">', "value")


def use_image_syntax(markdown: str) -> str:
    """The report with its pictures as Markdown's images, `![](link "=96")`, for other forms.

    Their parsers take no HTML; in foreign text `<` is escaped, so that none is made of it.
    """
    return _TAG.sub(r'![](\1 "=\2")', markdown)


def read_width(title: str | None) -> int | None:
    """Width in pixels from the title of such an image; None: it has none."""
    match = _WIDTH.fullmatch(title or "")
    return int(match[1]) if match else None


def _picture_type(data: bytes) -> str:
    """File extension of an image by its first bytes; empty for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":  # RIFF alone may be a video
        return "webp"
    return next((ending for head, ending in MAGIC_BYTES if data.startswith(head)), "")


def _read_regular_file(path: Path) -> bytes:
    """The file's bytes; empty for irregular, too large or missing files."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return b""
        return file.read(MAX_BYTES)
