"""Row selection of a subset: the steps of its recipe, then the image policy.

A table goes in, row numbers come out; nothing is written.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from datasets_mm import media_paths
from datasets_mm.adapters import shorten
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

DescribePictures = Callable[[Sequence[str]], Sequence[str]]
"""Paths of images -> their names in messages."""


def select(
    recipe_steps: Sequence[Step],
    table: pa.Table,
    root: Path,
    policy: str,
    describe: DescribePictures = lambda paths: paths,
) -> Selection:
    """Rows of `table` to keep. `policy`: a missing query image is skipped, or an error."""
    rows = steps.RecordColumns(
        keys=_record_keys(table),
        column=lambda name: table[name].to_pylist(),
        image_key=_ContentKey(root),
    )
    outcome = steps.apply_steps(recipe_steps, rows)
    paths: list[str] = table["image_path"].to_pylist()
    respelled: dict[str, str] = {}
    reasons = find_lost_pictures({paths[row] for row in outcome.kept} - {""}, root, respelled)
    if reasons and policy == "error":
        first = min(reasons)
        raise SourceError(
            f"{len(reasons)} pictures are missing under {root}, first "
            f"{shorten(describe([first])[0])!r} "
            f"({reasons[first]}); add them, name their folder with --set image_root=/folder, or "
            'set missing = "skip" under [images] in the recipe'
        )
    rows_with_image = [row for row in outcome.kept if paths[row] not in reasons]
    selection = Selection(
        rows_with_image, outcome.dropped, missing=sorted(reasons), respelled=respelled
    )
    count_of_reason = Counter(reasons[paths[row]] for row in outcome.kept if paths[row] in reasons)
    for reason in sorted(count_of_reason):
        selection.skipped[reason] = count_of_reason[reason]
        paths_of_reason = sorted(path for path, cause in reasons.items() if cause == reason)[:5]
        selection.examples[reason] = list(map(shorten, describe(paths_of_reason)))
    return selection


def find_lost_pictures(
    paths: Iterable[str], root: Path, respelled: dict[str, str] | None = None
) -> dict[str, str]:
    """Path -> reason, for images without a usable file. `root` is resolved.

    `respelled` takes those that are on disk under another spelling (`media_paths.find_on_disk`).
    """
    folders: dict[str, bool] = {}
    reason_of_path: dict[str, str] = {}
    for path in paths:
        reason = _check_picture(path, root, folders)
        if reason == MISSING:
            spelling = media_paths.find_on_disk(root, path)
            if spelling != path and not (reason := _check_picture(spelling, root, folders)):
                if respelled is not None:
                    respelled[path] = spelling
            elif spelling == path and (problem := media_paths.describe_foreign_path(path)):
                reason = f"picture {problem}"
        elif reason and media_paths.CONTENT.match(path):
            reason = f"picture {media_paths.describe_foreign_path(path)}"
        if reason:
            reason_of_path[path] = reason
    return reason_of_path


def is_inside(path: str, root: Path) -> bool:
    """A regular file that lies under the root after every link is followed."""
    return bool(path) and not find_lost_pictures([path], root)


def _check_picture(path: str, root: Path, folders: dict[str, bool]) -> str:
    """Reason why an image is unusable; "" if usable.

    `folders` caches which folders lie inside, so that one lstat per image remains (3 µs, not 40).
    """
    if "\0" in path:
        return "picture outside the image root"
    folder, _, name = path.rpartition("/")
    if name not in {"", ".", ".."}:
        if folder not in folders:
            folders[folder] = _is_within(root / folder, root)
        if folders[folder]:
            try:
                mode = os.lstat(os.path.join(root, path)).st_mode  # noqa: PTH118 - 3x faster than Path
            except OSError as error:
                return _absence_reason(error)
            except ValueError:
                return MISSING
            if stat.S_ISREG(mode):
                return ""
    return _resolve_fully(path, root)


def _is_within(folder: Path, root: Path) -> bool:
    try:
        return folder.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError, ValueError):
        return False


def _resolve_fully(path: str, root: Path) -> str:
    """The same with links resolved; "outside the image root" comes before "missing"."""
    try:
        real = (root / path).resolve()
        if not real.is_relative_to(root):
            return "picture outside the image root"
        mode = os.stat(real).st_mode  # noqa: PTH116 - Path.exists() takes "no permission" for "no"
        return "" if stat.S_ISREG(mode) else "picture is not a regular file"
    except OSError as error:
        return _absence_reason(error)
    except (RuntimeError, ValueError):
        return MISSING


def _absence_reason(error: OSError) -> str:
    """Missing, or not readable by this user: the remedies differ."""
    if isinstance(error, PermissionError):
        return f"picture cannot be read ({error.strerror})"
    return MISSING


def spelling_notices(respelled: dict[str, str]) -> list[str]:
    """One sentence for each way in which pictures are spelled otherwise on disk than in data."""
    groups: dict[str, list[str]] = {}
    for path in sorted(respelled):
        difference = media_paths.describe_difference(path, respelled[path])
        groups.setdefault(difference, []).append(path)
    return [
        f"{len(paths)} pictures were found {difference} (first: {paths[0]})"
        for difference, paths in groups.items()
    ]


class _ContentKey:
    """Path -> digest of the picture's content, each read once; the path itself when unreadable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if path not in self._digests:
            inside = is_inside(path, self._root)
            spelling = media_paths.find_on_disk(self._root, path)
            self._digests[path] = arrow_store.file_digest(self._root / spelling) if inside else path
        return self._digests[path]


def _record_keys(table: pa.Table) -> list[str]:
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
