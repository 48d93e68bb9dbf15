"""Files that match a recipe's pattern: links are followed, loops are not, and losses are reported.

`Path.glob` silently skips folders that are links below `**`; labels of large data sets lie on
several disks. Unreadable folders and broken links are reported with the build.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from datasets_mm.media_paths import printable_name

COPIES: Final = (
    "._", ".DS_Store", "__MACOSX", ".ipynb_checkpoints", "Thumbs.db", "desktop.ini",
)  # fmt: skip
"""Beginnings of names that systems and Jupyter create; no wildcard matches them."""
MAGIC: Final = frozenset("*?[")


@dataclass
class PatternMatch:
    """Files in the order of their paths, and one sentence for each thing that was passed over."""

    files: tuple[Path, ...] = ()
    notices: list[str] = field(default_factory=list)


def match_pattern(pattern: str, root: Path) -> PatternMatch:
    """Regular files below `root` that fit the pattern, as `Path.glob` writes it.

    Names are compared without regard to Unicode form and case; `**` follows links to folders, each
    real folder once.
    """
    result = PatternMatch()
    parts = [part for part in pattern.split("/") if part not in {"", "."}]
    paths = dict.fromkeys(_expand(root, parts, result))
    result.files = tuple(sorted(path for path in paths if _is_file(path, root, result)))
    result.notices = list(dict.fromkeys(result.notices))
    return result


def _is_file(path: Path, root: Path, result: PatternMatch) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        result.notices.append(_unread_notice(path, root, error))
        return False


def _expand(folder: Path, parts: list[str], result: PatternMatch) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        for below in _walk_folders(folder, result):
            yield from _expand(below, rest, result) if rest else iter((below,))
        return
    for name in _matching_names(folder, first, result):
        yield from _expand(folder / name, rest, result)


def _matching_names(folder: Path, pattern: str, result: PatternMatch) -> list[str]:
    """Entries of a folder that fit one part of a pattern: the very name, else all that fit."""
    if os.path.lexists(folder / pattern):
        return [pattern]
    is_plain = not MAGIC & set(pattern)
    folded = _fold_name(pattern)
    names = [entry.name for entry in _list_entries(folder, result)]
    if is_plain:
        matches = [name for name in names if _fold_name(name) == folded]
        return matches if len(matches) == 1 else []
    return [n for n in names if fnmatchcase(_fold_name(n), folded) and not n.startswith(COPIES)]


def _walk_folders(folder: Path, result: PatternMatch) -> Iterator[Path]:
    """The folder and all below it; links come last, so that a folder keeps its own path."""
    visited: set[tuple[int, int]] = set()
    pending: list[Path] = [folder]
    links: list[Path] = []
    while pending or links:
        path = pending.pop() if pending else links.pop()
        try:
            status = path.stat()
        except OSError as error:
            result.notices.append(_unread_notice(path, folder, error))
            continue
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        yield path
        for entry in sorted(
            _list_entries(path, result), key=lambda entry: entry.name, reverse=True
        ):
            if entry.name.startswith(COPIES):
                continue
            if entry.is_symlink():
                if not _leads_to_file(entry):
                    links.append(path / entry.name)
            elif entry.is_dir():
                pending.append(path / entry.name)


def _leads_to_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _list_entries(folder: Path, result: PatternMatch) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        return []
    except OSError as error:
        result.notices.append(_unread_notice(folder, folder.parent, error))
        return []


def _unread_notice(path: Path, root: Path, error: OSError) -> str:
    name = printable_name(
        path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    )
    if path.is_symlink() and isinstance(error, FileNotFoundError):
        return f"{name} is a link that leads nowhere: what it stands for is not among the records"
    return f"{name} cannot be read ({error.strerror}): what it holds is not among the records"


def _fold_name(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
