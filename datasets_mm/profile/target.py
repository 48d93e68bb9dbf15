"""Target of `describe`: a subset by name, a file of JSON lines, or Parquet in M2KR's layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_mm import catalog
from datasets_mm.child_messages import Progress, emit_message
from datasets_mm.profile.profile import FieldProfile, Profile
from datasets_mm.recipes.recipe import Form, Recipe, RecipeError, Source
from datasets_mm.sources.file_patterns import match_pattern
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location, reject_incomplete
from datasets_mm.storage.corpus import map_table
from datasets_mm.strict_toml import suggest_nearest

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
    """The file or folder that was named; of a subset, its table."""
    table: Path
    """The built records, an Arrow file."""
    fingerprint: str
    images: Path | None = None
    form: Form = "passages"
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields of the profile that the manifest or the recipe has."""

    def profile(self) -> Profile:
        """A profile with the fields that are known before the table is read."""
        return Profile(
            name=self.name,
            kind=self.kind,
            form=self.form,
            place=str(self.path),
            fingerprint=self.fingerprint,
            bytes=self.path.stat().st_size if self.path.is_file() else 0,
            **self.facts,
        )


def run_sending(send: Callable[[], None]) -> int:
    """Call `send`, which emits a target's messages, then emit `done` or `failed`.

    Returns the exit code of the child process.
    """
    try:
        send()
    except (TargetError, RecipeError, SourceError, OSError) as error:
        emit_message(kind="failed", error=str(error))
        return 1
    emit_message(kind="done")
    return 0


def resolve_target(
    name: str, cache_root: Path, data_root: Path | None, image_root: str, progress: Progress
) -> Target:
    """Find the target; a subset or a file that is not built yet is built.

    Raises:
        TargetError: there is no such subset or file, or it cannot be built.
        SourceError: the file is incomplete or damaged.
        RecipeError: a recipe is wrong.
    """
    path = Path(name).expanduser()
    names = catalog.names()
    if name in names:
        return _subset_target(name, cache_root, data_root, image_root, progress)
    if not path.exists():
        raise TargetError(f"{name!r} is neither a file nor a subset{suggest_nearest(name, names)}")
    path = path.absolute()
    return _file_target(path, _locate_files(path), image_root, cache_root, progress)


def _locate_files(path: Path) -> Location:
    """The files of a target that is no subset, and the passages of M2KR's Parquet beside them."""
    if path.is_dir():
        files = [*match_pattern("*.parquet", path).files, *match_pattern("*/*.parquet", path).files]
        if not files:
            raise TargetError(
                f"{path} is a folder without Parquet files; name a file of JSON lines in it"
            )
    elif not path.is_file():
        raise TargetError(f"{path} is not a regular file; name a file of JSON lines or Parquet")
    elif not path.stat().st_size:
        raise TargetError(f"{path} is empty; name a file with records")
    else:
        files = [path]
    if files[0].suffix.lower() != ".parquet":
        source = Source(adapter="jsonl", uri=(path.name,), pool="passages")
        return Location(source, path.parent, (path,))
    folder = next((f for f in files[0].parents if f.name.endswith("_data")), None)
    dataset = folder.name.removesuffix("_data") if folder else ""
    passage_folder = f"{dataset}_passages"
    passages = (
        match_pattern("**/*.parquet", folder.with_name(passage_folder)).files if folder else ()
    )
    root = Path(os.path.commonpath([file.parent for file in (*files, *passages)]))
    source = Source(
        adapter="m2kr_parquet",
        dataset=dataset,
        uri=(path.name,),
        passages=(passage_folder,),
        pool="passages",
    )
    return Location(source, root, tuple(files), passages)


def _file_target(
    path: Path, location: Location, image_root: str, cache_root: Path, progress: Progress
) -> Target:
    """Target of files, which are built as the source of a subset is."""
    from datasets_mm.building import build

    images = _image_folder(image_root)
    for file in (*location.records, *location.passages):
        reject_incomplete(file, location.name(file), location.source.adapter)
    folder = build.build_source(location, cache_root, progress)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    written, skipped = manifest["written"], manifest["skipped"]
    if not written["records"] and skipped and all(r.startswith("line is not") for r in skipped):
        raise TargetError(
            f"{path.name}: none of its {sum(skipped.values()):,} lines is a record "
            f"({next(iter(skipped))}); for a table, a JSON array or captions write a recipe and "
            "describe its subset"
        )
    prefix = f"{location.name(path)} " if location.records == (path,) else ""
    return Target(
        name=path.name,
        kind="parquet" if location.source.adapter == "m2kr_parquet" else "jsonl",
        path=path,
        table=folder / "records.arrow",
        fingerprint=manifest["fingerprint"],
        images=images,
        facts={
            "lines": map_table(folder / "records.arrow").num_rows + sum(skipped.values()),
            "records": written["records"],
            "refused": skipped,
            "noted": manifest["noted"],
            "examples": {
                reason: tuple(position.removeprefix(prefix) for position in positions)
                for reason, positions in {**manifest["examples"], **written["positions"]}.items()
            },
            "fields": tuple(
                _field_profile(name, counts, written["records"])
                for name, counts in written["fields"].items()
            ),
            "other_fields": written["other_fields"],
        },
    )


def _field_profile(name: str, counts: dict[str, Any], records: int) -> FieldProfile:
    absent = sum(counts[kind] for kind in ("no_key", "null", "stated_na", "empty"))
    return FieldProfile(name=name, filled=records - absent, **counts)


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
    if problem and (summary.folder is None or data_root or image_root):
        raise TargetError(problem)  # of what is built only where no data are named
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
        table=path,
        fingerprint=manifest["fingerprint"],
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
