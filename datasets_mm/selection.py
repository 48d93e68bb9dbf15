"""Which rows of a source become the subset: the steps of its recipe, then the image policy.

Separate from build.py, which knows folders and locks: a table goes in, row numbers come out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from datasets_mm import steps, store
from datasets_mm.recipe import Step
from datasets_mm.source import SourceError

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
    """Paths of query pictures that are not there, sorted; the build looks for them again."""


def select(kept_steps: Sequence[Step], table: pa.Table, root: Path, policy: str) -> Selection:
    """Rows of `table` that stay. `policy`: what a missing query picture does, skip or error."""
    rows = steps.Rows(
        keys=_keys(table),
        column=lambda name: table[name].to_pylist(),
        image_key=_ContentKey(root),
    )
    outcome = steps.apply(kept_steps, rows)
    paths: list[str] = table["image_path"].to_pylist()
    wanted = {paths[row] for row in outcome.kept} - {""}
    missing = sorted(path for path in wanted if not is_inside(path, root))
    if missing and policy == "error":
        raise SourceError(
            f"{len(missing)} pictures are missing under {root}, first {missing[0]!r}; "
            'add them, or set missing = "skip" under [images] in the recipe'
        )
    gone = frozenset(missing)
    kept = [row for row in outcome.kept if paths[row] not in gone]
    selection = Selection(kept, outcome.dropped, missing=missing)
    if missing:
        selection.skipped["picture missing"] = len(outcome.kept) - len(kept)
        selection.examples["picture missing"] = missing[:5]
    return selection


def is_inside(path: str, root: Path) -> bool:
    """A regular file that lies under the root after every link is followed."""
    if not path or "\0" in path:
        return False
    try:
        real = (root / path).resolve(strict=True)
        return real.is_relative_to(root) and real.is_file()
    except (OSError, RuntimeError):
        return False


class _ContentKey:
    """Path -> digest of the picture's content, each read once; the path itself when unreadable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if path not in self._known:
            inside = is_inside(path, self._root)
            self._known[path] = store.digest(self._root / path) if inside else path
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
        name if count[name] == 1 else f"{name}\x1f{_content(table, row)}"
        for row, name in enumerate(ids)
    ]


def _content(table: pa.Table, row: int) -> str:
    line = json.dumps(table.slice(row, 1).to_pylist()[0], sort_keys=True)
    return hashlib.blake2b(line.encode(), digest_size=8).hexdigest()
