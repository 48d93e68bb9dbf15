"""Paths of images and videos as data files write them, normalized once for all adapters.

Labels come from other systems: with backslashes, in another Unicode form or case, with blanks at
their ends, %-quoted, or without a file extension; archives are unpacked with their names in another
code page, or with backslashes as letters. `clean_path` normalizes the text; `find_on_disk` finds
the file that is meant. Neither widens what may be opened: whether a file lies inside the image root
is checked on the result (decode.py, selection.py).
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from datasets_mm import media_types

DRIVE: Final = re.compile(r"[A-Za-z]:")
URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
INVISIBLE: Final = "\ufeff\u200b\u200e\u200f\u2060 \t\r\n\u00a0"
"""Invisible characters that editors and spreadsheets leave at the ends of a cell."""
UNCLEAN: Final = re.compile(r"(?i)[^\x21-\x2d\x2f-\x5b\x5d-\x7e.]|//|(?:^|/)\.(?:/|$)|^file:")
"""Pattern of paths that need normalization; most paths do not match it."""
CONTENT: Final = re.compile(
    r"data:[a-z]+/|(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/]{60}", re.IGNORECASE
)
"""A picture written as text (base64): JPEG, PNG, GIF or WEBP."""
CODE_PAGES: Final = (
    ("cp949", "cp437"), ("utf-8", "cp437"), ("cp932", "cp437"), ("gbk", "cp437"),
    ("cp850", "cp437"), ("utf-8", "cp850"), ("cp949", "cp850"), ("utf-8", "latin-1"),
    ("cp949", "latin-1"), ("utf-8", "cp1252"), ("cp949", "cp1252"), ("cp949", ""), ("latin-1", ""),
    ("cp932", ""), ("gbk", ""), ("cp437", ""),
)  # fmt: skip
"""(encoding in the archive or on the old disk, that in which it was read; "": byte by byte)."""
FOLDERS: Final = 256
"""Folder listings that are remembered."""


def clean_path(path: str) -> str:
    """The path with `/`, composed letters (NFC), without `./`, doubled slashes and outer blanks."""
    if not UNCLEAN.search(path):
        return path
    text = path.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).strip(INVISIBLE)
    if text[:7].lower() == "file://":
        text = unquote(text[7:])
        if text[:10].lower() == "localhost/":
            text = text[9:]
        text = text[1:] if DRIVE.match(text[1:]) else text
    if "\\" in text:
        text = text.replace("\\", "/")
    if "//" not in text and "./" not in text and not text.endswith("/."):
        return text
    if URL.match(text):
        return text
    lead = "//" if text.startswith("//") else "/" if text.startswith("/") else ""
    return lead + "/".join(part for part in text.split("/") if part not in {"", "."})


def describe_foreign_path(path: str) -> str:
    """Reason why a path cannot lie in a folder of this machine; "": it can."""
    if CONTENT.match(path):
        return "is written into the data as text (base64; write it to a file)"
    if URL.match(path):
        return "is a URL (download the files and name them by path)"
    if DRIVE.match(path):
        return "has an absolute Windows path (drive letter; make it relative to the image root)"
    if path.startswith("//"):
        return "has a network path (make it relative to the image root)"
    return ""


def find_on_disk(root: Path, path: str) -> str:
    """The spelling under which the file lies below `root`; the path itself where nothing fits.

    The exact spelling comes first. Else each part is compared without regard to Unicode form, case
    and outer blanks, then in the letters that unpacking makes of it, then the %-unquoted path, then
    names that differ by a media ending only. Of several that fit none is taken.
    """
    full = os.path.join(root, path)  # noqa: PTH118 - an absolute path stays what it is
    if not path or "\0" in path or path[0] == "/" or os.path.lexists(full):
        return path
    if spelling := _find_spelling(root, path):
        return spelling
    if "%" in path and (spelling := _find_spelling(root, clean_path(unquote(path)))):
        return spelling
    return path


def describe_difference(path: str, spelling: str) -> str:
    """How the spelling on disk differs from the path; "": not at all."""
    if path == spelling:
        return ""
    if unicodedata.normalize("NFC", spelling) == unicodedata.normalize("NFC", path):
        return "in another Unicode form (NFC, NFD)"
    if list(map(_fold_name, spelling.split("/"))) == list(map(_fold_name, path.split("/"))):
        return "in another case of letters or with other blanks"
    if "\\" in spelling:
        return "with backslashes in their names (unpack the archive with 7z or unzip)"
    if not path.isascii() and _fold_name(path) != _fold_name(spelling).removesuffix(
        media_types.ending(spelling)
    ):
        return "with their letters in another code page (unpack the archive with unzip -O or 7z)"
    return "without their %-quoting" if "%" in path else "with an ending that the data do not name"


def _find_spelling(root: Path, path: str) -> str:
    """The path below root with each part as its folder has it; "": some part is not there."""
    parts = path.split("/")
    if ".." in parts or not all(parts):
        return ""
    folder, names = str(root), list[str]()
    for number, part in enumerate(parts, 1):
        is_last = number == len(parts)
        name = _find_entry(folder, part, is_last=is_last)
        if not name and not is_last:
            name = _find_entry(folder, "\\".join(parts[number - 1 :]), is_last=True)
            return "/".join([*names, name]) if name else ""
        if not name:
            return ""
        names.append(name)
        folder = os.path.join(folder, name)  # noqa: PTH118 - called for each part of each path
    return "/".join(names)


def _find_entry(folder: str, part: str, *, is_last: bool) -> str:
    if os.path.lexists(os.path.join(folder, part)):  # noqa: PTH118
        return part
    names = _list_folder(folder)
    if len(matches := names.get(_fold_name(part), ())) > 1:
        composed = unicodedata.normalize("NFC", part)
        matches = [name for name in matches if unicodedata.normalize("NFC", name) == composed]
    if not matches and not part.isascii():
        matches = list(
            dict.fromkeys(
                n for variant in _code_page_variants(part) for n in names.get(variant, ())
            )
        )
    if not matches and is_last and not media_types.is_medium(part):
        matches = [
            n
            for ending in media_types.MEDIA_ENDINGS
            for n in names.get(_fold_name(part + ending), ())
        ]
    return matches[0] if len(matches) == 1 else ""


def _code_page_variants(part: str) -> Iterator[str]:
    """Folded names of a file whose letters were unpacked in another code page."""
    for form in ("NFC", "NFD"):
        for stored, read_as in CODE_PAGES:
            try:
                raw = unicodedata.normalize(form, part).encode(stored)
                yield _fold_name(raw.decode(read_as) if read_as else os.fsdecode(raw))
            except UnicodeError:
                continue


def printable_name(name: str) -> str:
    """The name as printable text: bytes that are not UTF-8 as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _fold_name(name: str) -> str:
    """Equal for names that differ in Unicode form, case and outer blanks only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


_listings: OrderedDict[str, tuple[int, dict[str, list[str]]]] = OrderedDict()


def _list_folder(folder: str) -> dict[str, list[str]]:
    """Folded name -> names of a folder, remembered while the folder's time stays the same."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - called for each missing picture
        if not stat.S_ISDIR(status.st_mode):
            return {}
        cached = _listings.get(folder)
        if cached is not None and cached[0] == status.st_mtime_ns:
            return cached[1]
        names: dict[str, list[str]] = {}
        for name in os.listdir(folder):  # noqa: PTH208
            names.setdefault(_fold_name(name), []).append(name)
    except OSError:
        return {}
    _listings[folder] = (status.st_mtime_ns, names)
    while len(_listings) > FOLDERS:
        _listings.popitem(last=False)
    return names
