"""Target of `describe`: a subset by name, a file of JSON lines, or an M2KR Parquet file."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_mm import catalog
from datasets_mm.child_messages import Progress
from datasets_mm.profile.profile import Profile
from datasets_mm.profile.record_readers import (
    ArrowReader,
    JsonLinesReader,
    ParquetReader,
    RecordSource,
)
from datasets_mm.recipes.recipe import Form, Recipe
from datasets_mm.sources.file_patterns import match_pattern
from datasets_mm.strict_toml import suggest_nearest

SMALL_BYTES: Final = 24 << 20
SMALL_ROWS: Final = 6_000
"""Up to here every text is counted in tokens, which takes some two seconds."""

UNSELECTED_REASONS: Final = ("split ", "language ")
"""Beginnings of an adapter's reasons for skipping what the recipe did not select."""


class TargetError(Exception):
    """There is nothing of this name that could be described; one sentence with the remedy."""


@dataclass(frozen=True)
class Target:
    """Records to describe, and what is known of them from the catalog."""

    name: str
    kind: str
    path: Path
    fingerprint: str
    source: RecordSource
    unit: str
    """What `RecordSource.size` counts: bytes or rows."""
    row_label: str
    """Word before a record's number: `line` or `row`."""
    exact_limit: int
    """Up to this many units every text is counted in tokens."""
    workers: int = 0
    """Processes of the scan; 0: one per core, up to eight."""
    images: Path | None = None
    form: Form = "passages"
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields of the profile from the manifest or the recipe."""

    def profile(self) -> Profile:
        """A profile with the fields that are known before reading."""
        return Profile(
            name=self.name,
            kind=self.kind,
            form=self.form,
            place=str(self.path),
            fingerprint=self.fingerprint,
            bytes=self.path.stat().st_size if self.path.is_file() else 0,
            **self.facts,
        )


def resolve_target(
    name: str, cache_root: Path, data_root: Path | None, image_root: str, progress: Progress
) -> Target:
    """Find the target; a subset that is not built yet is built.

    Raises:
        TargetError: there is no such subset or file, or it cannot be built.
        RecipeError: a recipe is wrong.
    """
    path = Path(name).expanduser()
    names = catalog.names()
    if name in names:
        return _subset_target(name, cache_root, data_root, image_root, progress)
    if path.is_dir():
        parquet = [
            *match_pattern("*.parquet", path).files,
            *match_pattern("*/*.parquet", path).files,
        ]
        if not parquet:
            raise TargetError(
                f"{name} is a folder without Parquet files; name a file of JSON lines in it"
            )
        return _parquet_target(path, parquet, image_root)
    if not path.exists():
        raise TargetError(f"{name!r} is neither a file nor a subset{suggest_nearest(name, names)}")
    if not path.is_file():
        raise TargetError(f"{name} is not a regular file; name a file of JSON lines or Parquet")
    if path.suffix.lower() == ".parquet":
        return _parquet_target(path, [path], image_root)
    return _json_lines_target(path, image_root)


def _json_lines_target(path: Path, image_root: str) -> Target:
    if not path.stat().st_size:
        raise TargetError(f"{path} is empty; name a file with records")
    return Target(
        name=path.name,
        kind="jsonl",
        path=path,
        fingerprint=_file_fingerprint([path]),
        source=JsonLinesReader(path),
        unit="bytes",
        row_label="line",
        exact_limit=SMALL_BYTES,
        images=_image_folder(image_root),
    )


def _parquet_target(path: Path, files: list[Path], image_root: str) -> Target:
    return Target(
        name=path.name,
        kind="parquet",
        path=path,
        fingerprint=_file_fingerprint(files),
        source=ParquetReader(tuple(files)),
        unit="rows",
        row_label="row",
        exact_limit=SMALL_ROWS,
        workers=1,  # Arrow's own threads do not survive a fork
        images=_image_folder(image_root),
    )


def _file_fingerprint(files: list[Path]) -> str:
    """Identity of files that are too large to hash each time: path, size and time."""
    states = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.blake2b(json.dumps(states).encode(), digest_size=12).hexdigest()


def _image_folder(image_root: str) -> Path | None:
    if not image_root:
        return None
    folder = Path(image_root).expanduser()
    if not folder.is_dir():
        raise TargetError(f"--image-root {image_root} is not a folder; name the pictures' folder")
    return folder.resolve()


def _subset_target(
    name: str, cache_root: Path, data_root: Path | None, image_root: str, progress: Progress
) -> Target:
    summary = catalog.summary(name, cache_root)
    problem = catalog.find_problem(name, data_root, image_root)
    if problem and summary.folder is None:
        raise TargetError(problem)
    if problem and summary.folder is not None:
        manifest = json.loads((summary.folder / "manifest.json").read_text("utf-8"))
        return _built_target(name, summary.folder, manifest, _last_root(summary.folder))
    from datasets_mm.building import build

    try:
        subset = build.build(name, cache_root, data_root, progress, image_root)
    except build.BuildError as error:
        raise TargetError(str(error)) from None
    return _built_target(name, subset.folder, subset.manifest, subset.image_root)


def _last_root(folder: Path) -> Path | None:
    """The image root when the subset was last opened with its data."""
    try:
        root = Path(os.fsdecode((folder / "image_root").read_bytes()))
    except OSError:
        return None
    return root if root.is_dir() else None


def _built_target(name: str, folder: Path, manifest: dict[str, Any], images: Path | None) -> Target:
    path = folder / "records.arrow"
    chain = catalog.lineage(name)
    skipped = {**manifest.get("source_skipped", {}), **manifest.get("skipped", {})}
    # Records dropped by steps or excluded by packaged data are intended.
    intended = (
        dict(manifest.get("source_skipped", {})) if catalog.root_source(chain).packages else {}
    )
    intended |= {r: n for r, n in skipped.items() if r.startswith(UNSELECTED_REASONS)}
    left_out = {r: n for r, n in skipped.items() if r not in intended and not r.startswith("step ")}
    noted = {} if catalog.root_source(chain).packages else manifest.get("source_noted", {})
    skip_notices = [
        f"{count:,} left out by the source: {reason}" for reason, count in intended.items()
    ]
    examples = {**manifest.get("source_examples", {}), **manifest.get("examples", {})}
    return Target(
        name=name,
        kind="subset",
        path=path,
        fingerprint=manifest["fingerprint"],
        source=ArrowReader(path),
        unit="rows",
        row_label="row",
        exact_limit=SMALL_ROWS,
        images=images,
        form=catalog.root_source(chain).form,
        facts={
            "left_out": left_out,
            "left_out_examples": {r: tuple(places) for r, places in examples.items()},
            "corpus_rows": manifest.get("corpus_rows"),
            "required": _required_fields(chain),
            "noted": noted,
            "expected_rows": manifest.get("expected_rows", chain[-1].expected_rows),
            "notices": (*_uncounted_notices(manifest, noted), *skip_notices),
        },
    )


def _uncounted_notices(manifest: dict[str, Any], noted: dict[str, int]) -> list[str]:
    """Notices of the build that the profile does not count itself."""
    counted = (*noted, "the recipe expects")
    return [
        notice for notice in manifest.get("notices", ()) if not any(k in notice for k in counted)
    ]


def _required_fields(chain: list[Recipe]) -> tuple[str, ...]:
    """Fields by which the recipe selects records: they must be filled."""
    steps = [step for step in catalog.all_steps(chain) if step.do == "present"]
    return tuple(dict.fromkeys(name for step in steps for name in step.fields))
