"""What `describe` was asked about: a subset by name, a file of JSON lines, an M2KR Parquet file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_mm import catalog
from datasets_mm.profile.profile import Profile
from datasets_mm.profile.record_readers import ArrowRows, JsonLines, ParquetRows, Source
from datasets_mm.recipes.recipe import Form, Recipe
from datasets_mm.sources.file_patterns import match
from datasets_mm.strict_toml import nearest

SMALL_BYTES: Final = 24 << 20
SMALL_ROWS: Final = 6_000
"""Up to here every text is counted in tokens, which takes some two seconds."""

CHOICES: Final = ("split ", "language ")
"""How the reasons begin by which an adapter leaves out what the recipe did not choose."""

Say = Callable[[int, int, str], None]


class TargetError(Exception):
    """There is nothing of this name that could be described; one sentence with the remedy."""


@dataclass(frozen=True)
class Target:
    """Where the records are, and what is known of them before they are read."""

    name: str
    kind: str
    path: Path
    fingerprint: str
    source: Source
    unit: str
    """What `Source.size` counts: bytes or rows."""
    where: str
    """What stands before a number to name a record."""
    small: int
    """Up to this many units every text is counted in tokens."""
    workers: int = 0
    """0: as many as the machine has room for."""
    images: Path | None = None
    form: Form = "passages"
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields of the profile that a manifest or a recipe knows."""

    def profile(self) -> Profile:
        """A profile with everything that is known before reading."""
        return Profile(
            name=self.name,
            kind=self.kind,
            form=self.form,
            place=str(self.path),
            fingerprint=self.fingerprint,
            bytes=self.path.stat().st_size if self.path.is_file() else 0,
            **self.facts,
        )


def resolve(
    asked: str, cache_root: Path, data_root: Path | None, image_root: str, say: Say
) -> Target:
    """Find the target; a subset that is not built yet is built.

    Raises:
        TargetError: there is no such subset or file, or it cannot be built.
        RecipeError: a recipe is wrong.
    """
    path = Path(asked).expanduser()
    names = catalog.names()
    if asked in names:
        return _subset(asked, cache_root, data_root, image_root, say)
    if path.is_dir():
        parquet = [*match("*.parquet", path).files, *match("*/*.parquet", path).files]
        if not parquet:
            raise TargetError(
                f"{asked} is a folder without Parquet files; name a file of JSON lines in it"
            )
        return _parquet(path, parquet, image_root)
    if not path.exists():
        raise TargetError(f"{asked!r} is neither a file nor a subset{nearest(asked, names)}")
    if not path.is_file():
        raise TargetError(f"{asked} is not a regular file; name a file of JSON lines or Parquet")
    if path.suffix.lower() == ".parquet":
        return _parquet(path, [path], image_root)
    return _json_lines(path, image_root)


def _json_lines(path: Path, image_root: str) -> Target:
    if not path.stat().st_size:
        raise TargetError(f"{path} is empty; name a file with records")
    return Target(
        name=path.name,
        kind="jsonl",
        path=path,
        fingerprint=_mark([path]),
        source=JsonLines(path),
        unit="bytes",
        where="line",
        small=SMALL_BYTES,
        images=_folder(image_root),
    )


def _parquet(path: Path, files: list[Path], image_root: str) -> Target:
    return Target(
        name=path.name,
        kind="parquet",
        path=path,
        fingerprint=_mark(files),
        source=ParquetRows(tuple(files)),
        unit="rows",
        where="row",
        small=SMALL_ROWS,
        workers=1,  # Arrow's own threads do not survive a fork
        images=_folder(image_root),
    )


def _mark(files: list[Path]) -> str:
    """Identity of files that are too large to hash for every look: place, size and time."""
    marks = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.blake2b(json.dumps(marks).encode(), digest_size=12).hexdigest()


def _folder(image_root: str) -> Path | None:
    if not image_root:
        return None
    folder = Path(image_root).expanduser()
    if not folder.is_dir():
        raise TargetError(f"--image-root {image_root} is not a folder; name the pictures' folder")
    return folder.resolve()


def _subset(
    name: str, cache_root: Path, data_root: Path | None, image_root: str, say: Say
) -> Target:
    known = catalog.summary(name, cache_root)
    problem = catalog.problem(name, data_root, image_root)
    if problem and known.folder is None:
        raise TargetError(problem)
    if problem and known.folder is not None:
        manifest = json.loads((known.folder / "manifest.json").read_text("utf-8"))
        return _built(name, known.folder, manifest, _last_root(known.folder))
    from datasets_mm.building import build

    try:
        made = build.build(name, cache_root, data_root, say, image_root)
    except build.BuildError as error:
        raise TargetError(str(error)) from None
    return _built(name, made.folder, made.manifest, made.image_root)


def _last_root(folder: Path) -> Path | None:
    """Where the pictures were when the subset was last opened with its data."""
    try:
        root = Path(os.fsdecode((folder / "image_root").read_bytes()))
    except OSError:
        return None
    return root if root.is_dir() else None


def _built(name: str, folder: Path, manifest: dict[str, Any], images: Path | None) -> Target:
    path = folder / "records.arrow"
    chain = catalog.lineage(name)
    skipped = {**manifest.get("source_skipped", {}), **manifest.get("skipped", {})}
    # What steps drop, and what the maker of packaged data excludes, is meant.
    meant = dict(manifest.get("source_skipped", {})) if catalog.origin(chain).packages else {}
    meant |= {r: n for r, n in skipped.items() if r.startswith(CHOICES)}
    left_out = {r: n for r, n in skipped.items() if r not in meant and not r.startswith("step ")}
    noted = {} if catalog.origin(chain).packages else manifest.get("source_noted", {})
    said = [f"{count:,} left out by the source: {reason}" for reason, count in meant.items()]
    examples = {**manifest.get("source_examples", {}), **manifest.get("examples", {})}
    return Target(
        name=name,
        kind="subset",
        path=path,
        fingerprint=manifest["fingerprint"],
        source=ArrowRows(path),
        unit="rows",
        where="row",
        small=SMALL_ROWS,
        images=images,
        form=catalog.origin(chain).form,
        facts={
            "left_out": left_out,
            "left_out_examples": {r: tuple(places) for r, places in examples.items()},
            "corpus_rows": manifest.get("corpus_rows"),
            "required": _required(chain),
            "noted": noted,
            "expected_rows": manifest.get("expected_rows", chain[-1].expected_rows),
            "notices": (*_notices(manifest, noted), *said),
        },
    )


def _notices(manifest: dict[str, Any], noted: dict[str, int]) -> list[str]:
    """What the build said and the profile does not count anyway."""
    known = (*noted, "the recipe expects")
    return [said for said in manifest.get("notices", ()) if not any(k in said for k in known)]


def _required(chain: list[Recipe]) -> tuple[str, ...]:
    """Fields by which the recipe keeps records: they must be filled in what is left."""
    steps = [step for step in catalog.all_steps(chain) if step.do == "present"]
    return tuple(dict.fromkeys(name for step in steps for name in step.fields))
