"""Which rows of a source become the subset: the steps of its recipe, then the image policy.

Separate from build.py, which knows folders and locks: a table goes in, row numbers come out.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from datasets_mm import media_paths as path_names
from datasets_mm.adapters import shortened
from datasets_mm.recipes import steps
from datasets_mm.recipes.recipe import Step
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.storage import arrow_store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Selection:
    """The rows, and an account of the others."""

    rows: list[int]
    skipped: dict[str, int]
    """Reason -> records left out."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Paths of query pictures without a usable file, sorted; the build looks for them again."""
    respelled: dict[str, str] = field(default_factory=dict)
    """Path -> its spelling on disk, for pictures that were found under another one."""


MISSING = "picture missing"

Named = Callable[[Sequence[str]], Sequence[str]]
"""Paths of pictures -> what a person is told of each."""


def select(
    kept_steps: Sequence[Step],
    table: pa.Table,
    root: Path,
    policy: str,
    named: Named = lambda paths: paths,
) -> Selection:
    """Rows of `table` that stay. `policy`: what a missing query picture does, skip or error."""
    rows = steps.Rows(
        keys=_keys(table),
        column=lambda name: table[name].to_pylist(),
        image_key=_ContentKey(root),
    )
    outcome = steps.apply(kept_steps, rows)
    paths: list[str] = table["image_path"].to_pylist()
    respelled: dict[str, str] = {}
    reasons = lost_pictures({paths[row] for row in outcome.kept} - {""}, root, respelled)
    if reasons and policy == "error":
        first = min(reasons)
        raise SourceError(
            f"{len(reasons)} pictures are missing under {root}, first "
            f"{shortened(named([first])[0])!r} "
            f"({reasons[first]}); add them, name their folder with --set image_root=/folder, or "
            'set missing = "skip" under [images] in the recipe'
        )
    kept = [row for row in outcome.kept if paths[row] not in reasons]
    selection = Selection(kept, outcome.dropped, missing=sorted(reasons), respelled=respelled)
    lost = Counter(reasons[paths[row]] for row in outcome.kept if paths[row] in reasons)
    for reason in sorted(lost):
        selection.skipped[reason] = lost[reason]
        some = sorted(path for path, why in reasons.items() if why == reason)[:5]
        selection.examples[reason] = list(map(shortened, named(some)))
    return selection


def lost_pictures(
    paths: Iterable[str], root: Path, respelled: dict[str, str] | None = None
) -> dict[str, str]:
    """Path -> why there is no usable file, for those that have none. `root` is resolved.

    `respelled` takes those that are on disk under another spelling (paths.on_disk).
    """
    folders: dict[str, bool] = {}
    lost: dict[str, str] = {}
    for path in paths:
        reason = _lost(path, root, folders)
        if reason == MISSING:
            spelling = path_names.on_disk(root, path)
            if spelling != path and not (reason := _lost(spelling, root, folders)):
                if respelled is not None:
                    respelled[path] = spelling
            elif spelling == path and (why := path_names.foreign(path)):
                reason = f"picture {why}"
        elif reason and path_names.CONTENT.match(path):
            reason = f"picture {path_names.foreign(path)}"
        if reason:
            lost[path] = reason
    return lost


def is_inside(path: str, root: Path) -> bool:
    """A regular file that lies under the root after every link is followed."""
    return bool(path) and not lost_pictures([path], root)


def _lost(path: str, root: Path, folders: dict[str, bool]) -> str:
    """`folders` remembers which folders lie inside: one lstat a picture is left (3 µs, not 40)."""
    if "\0" in path:
        return "picture outside the image root"
    folder, _, name = path.rpartition("/")
    if name not in {"", ".", ".."}:
        if folder not in folders:
            folders[folder] = _within(root / folder, root)
        if folders[folder]:
            try:
                mode = os.lstat(os.path.join(root, path)).st_mode  # noqa: PTH118 - 3x faster than Path
            except OSError as error:
                return _absent(error)
            except ValueError:
                return MISSING
            if stat.S_ISREG(mode):
                return ""
    return _lost_slowly(path, root)


def _within(folder: Path, root: Path) -> bool:
    try:
        return folder.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError, ValueError):
        return False


def _lost_slowly(path: str, root: Path) -> str:
    """Where links or odd paths need following: outside comes first, whether or not it exists."""
    try:
        real = (root / path).resolve()
        if not real.is_relative_to(root):
            return "picture outside the image root"
        mode = os.stat(real).st_mode  # noqa: PTH116 - Path.exists() takes "no permission" for "no"
        return "" if stat.S_ISREG(mode) else "picture is not a regular file"
    except OSError as error:
        return _absent(error)
    except (RuntimeError, ValueError):
        return MISSING


def _absent(error: OSError) -> str:
    """No file, or a file that this user may not look at: two different things to mend."""
    if isinstance(error, PermissionError):
        return f"picture cannot be read ({error.strerror})"
    return MISSING


def spelling_notices(respelled: dict[str, str]) -> list[str]:
    """One sentence for each way in which pictures are spelled otherwise on disk than in data."""
    groups: dict[str, list[str]] = {}
    for path in sorted(respelled):
        how = path_names.difference(path, respelled[path])
        groups.setdefault(how, []).append(path)
    return [
        f"{len(paths)} pictures were found {how} (first: {paths[0]})"
        for how, paths in groups.items()
    ]


class _ContentKey:
    """Path -> digest of the picture's content, each read once; the path itself when unreadable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if path not in self._known:
            inside = is_inside(path, self._root)
            spelling = path_names.on_disk(self._root, path)
            self._known[path] = arrow_store.digest(self._root / spelling) if inside else path
        return self._known[path]


def _keys(table: pa.Table) -> list[str]:
    """One unique key a record: its id; for a repeated id also a digest of the record's content.

    Records that are equal in everything share a key: which of them is kept makes no difference.
    """
    ids: list[str] = table["data_id"].to_pylist()
    count = Counter(ids)
    if len(count) == len(ids):
        return ids
    return [
        name if count[name] == 1 else f"{name}\x1f{arrow_store.row_digest(table, row)}"
        for row, name in enumerate(ids)
    ]
