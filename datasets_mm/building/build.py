"""Builds a subset from its recipe, once, and opens it: memory-mapped records and their corpus.

Two layers are cached. A source is the output of an adapter (all records, the corpus, rendered
images); a subset is the rows that the recipe's steps keep. Both are keyed by content, built under a
lock, and replaced atomically. `python -m datasets_mm.building.build NAME` prints JSON lines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets_mm import catalog
from datasets_mm.adapters import load_adapter, shorten
from datasets_mm.atomic_files import atomic_folder, folder_lock, locked
from datasets_mm.building.download import download_subset
from datasets_mm.building.selection import Selection, is_inside, select, spelling_notices
from datasets_mm.child_messages import Progress, emit_message, ignore_progress, percent_progress
from datasets_mm.recipes.recipe import Recipe, RecipeError
from datasets_mm.sources.fingerprint import SourceError, fingerprint, version_notices
from datasets_mm.sources.location import Location, locate
from datasets_mm.storage import arrow_store
from datasets_mm.storage.corpus import Corpus, map_table

IMAGE_ROOT = "image_root"
TABLES = ("records.arrow", "corpus.arrow")


class BuildError(Exception):
    """The subset cannot be built; one sentence with place and remedy."""


@dataclass(frozen=True)
class Subset:
    """A built subset. Columns of `records`: `recipe.FIELDS`, and `options` of choice questions."""

    name: str
    fingerprint: str
    manifest: dict[str, Any]
    records: pa.Table
    corpus: Corpus
    evaluate_on: tuple[str, ...]
    image_root: Path
    folder: Path

    def __len__(self) -> int:
        return int(self.records.num_rows)


def build(
    name: str,
    cache_root: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
    image_root: str = "",
) -> Subset:
    """Open the subset, building it first where needed.

    `data_root` None: packages, or the hub's local cache. `image_root`: see location.locate.
    Raises RecipeError (the recipe), BuildError (the data); both say where and what to do.
    """
    progress = progress or ignore_progress
    chain = catalog.lineage(name)
    if sentence := catalog.find_problem(name, data_root, image_root):
        raise BuildError(sentence)
    try:
        location = locate(chain[0], data_root, image_root)
        source = _BuiltSource.from_folder(build_source(location, cache_root, progress), location)
        folder = _build_subset(chain, source, cache_root, progress)
        _store_roots(folder, source)
        return _open_subset(chain[-1], folder, source.images)
    except (SourceError, OSError, pa.ArrowException) as error:
        raise BuildError(f"subset {name!r}: {error}") from error


def _store_roots(folder: Path, source: _BuiltSource) -> None:
    """Store image root and data root next to the manifest, for commands that do not name the data.

    The manifest itself holds no path of this machine: it is equal everywhere.
    """
    root = source.location.root
    folders = {IMAGE_ROOT: source.images} | ({catalog.DATA_ROOT: root} if root else {})
    for name, target in folders.items():
        path = folder / name
        with suppress(OSError):  # the cache may be another user's, and read-only
            if not path.exists() or path.read_bytes() != os.fsencode(target):
                path.write_bytes(os.fsencode(target))


@dataclass(frozen=True)
class _BuiltSource:
    """A built source and its image folder."""

    folder: Path
    manifest: dict[str, Any]
    images: Path
    location: Location

    @classmethod
    def from_folder(cls, folder: Path, location: Location) -> _BuiltSource:
        """Images lie in the located folder, or in the built one if the adapter rendered them."""
        return cls(
            folder,
            _read_manifest(folder),
            location.images or (folder / "images").resolve(),
            location,
        )

    def describe_pictures(self, paths: Sequence[str]) -> list[str]:
        """Paths of images for messages: by file and row, where the adapter knows them."""
        adapter = load_adapter(self.location.source.adapter)
        find_rows = getattr(adapter, "find_image_rows", None)
        rows = find_rows(self.location, paths) if find_rows else {}
        return [rows.get(path, path) for path in paths]

    @property
    def content(self) -> str:
        """Content digest of the source where the adapter has one, else that of its files."""
        return str(self.manifest.get("content") or self.manifest["fingerprint"])

    @property
    def origin(self) -> dict[str, str]:
        """Hub repository, revision and commit of the files; empty for other data."""
        if not self.location.commit:
            return {}
        source = self.location.source
        revision = source.revision or "main"
        return {"hub": source.hub, "revision": revision, "commit": self.location.commit}


def build_source(location: Location, cache_root: Path, progress: Progress) -> Path:
    """Folder of the source; its adapter writes it unless it is there and complete.

    Raises:
        SourceError: a file cannot be read; OSError: there is no room for the tables.
    """
    source = location.source
    adapter = load_adapter(source.adapter)
    paths = [*location.records, *location.passages, *filter(None, [location.submission])]
    files = {location.name(path): path for path in paths}
    digest = fingerprint(source, adapter.REVISION, files, cache_root)
    folder = cache_root / "sources" / f"{source.adapter}-{digest[:12]}"
    if arrow_store.read_manifest(folder):
        return folder
    with locked(folder_lock(folder)):
        if arrow_store.read_manifest(folder):
            return folder
        with atomic_folder(folder) as draft:
            report = adapter.write(location, draft, progress)
            content = {
                "fingerprint": digest,
                "content": report.content,
                "skipped": report.skipped,
                "noted": report.noted,
                "examples": report.examples,
                "facts": report.facts,
                "written": report.written,
            }
            arrow_store.write_manifest(draft, content, [*TABLES, *_submission_files(draft)])
    return folder


def _build_subset(
    chain: list[Recipe], source: _BuiltSource, cache_root: Path, progress: Progress
) -> Path:
    """The folder of the subset: the source's rows after all steps of the lineage."""
    leaf, steps = chain[-1], catalog.all_steps(chain)
    cache_key = {
        "format": arrow_store.FORMAT,
        "source": source.content,
        "steps": [step.model_dump(mode="json") for step in steps],
        "missing": leaf.images.missing,
        "corpus": leaf.corpus,
    }
    digest = _digest(cache_key)
    folder = cache_root / "subsets" / f"{leaf.name}-{digest[:12]}"
    recipe = catalog.recipe_digest(chain)
    if _is_current(folder, recipe, source):
        return folder
    with locked(folder_lock(folder)):
        if _is_current(folder, recipe, source):
            return folder
        with atomic_folder(folder) as draft:
            table = map_table(source.folder / "records.arrow")
            selection = select(
                steps, table, source.images, leaf.images.missing, source.describe_pictures
            )
            _check_not_empty(selection, source)
            _write_tables(draft, source.folder, table, selection, leaf.corpus)
            progress(len(selection.rows), table.num_rows, "records")
            content = _manifest_content(chain, source, selection, draft) | {
                "recipe": recipe,
                "fingerprint": _digest([digest, selection.missing]),
            }
            arrow_store.write_manifest(
                draft, content, [*TABLES, "missing.json", *_submission_files(draft)]
            )
    return folder


def _submission_files(folder: Path) -> list[str]:
    """The form of a submission, where the source has one."""
    return [arrow_store.SUBMISSION] if (folder / arrow_store.SUBMISSION).is_file() else []


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _is_current(folder: Path, recipe: str, source: _BuiltSource) -> bool:
    """Whether the build is complete, current, and no missing image is there now."""
    manifest = arrow_store.read_manifest(folder)
    if manifest is None or manifest["recipe"] != recipe:
        return False
    if "missing.json" not in manifest["files"] or manifest.get("origin", {}) != source.origin:
        return False
    if manifest.get("passed_over", []) != list(source.location.notices):
        return False
    missing = json.loads((folder / "missing.json").read_text("utf-8"))
    return not any(is_inside(path, source.images) for path in missing)


def _check_not_empty(selection: Selection, source: _BuiltSource) -> None:
    if selection.rows:
        return
    skipped = {**source.manifest["skipped"], **selection.skipped}
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it is empty"
    remedy = "check the source and the recipe's steps"
    if selection.missing:
        first = shorten(source.describe_pictures(selection.missing[:1])[0])
        remedy = f"give this user the right to read the pictures (first: {first})"
        if not any("cannot be read" in reason for reason in selection.skipped):
            remedy = f"name the pictures' folder with --set image_root=/folder (first: {first})"
    raise SourceError(f"no record is left ({reasons}); {remedy}")


def _manifest_content(
    chain: list[Recipe], built: _BuiltSource, selection: Selection, draft: Path
) -> dict[str, Any]:
    """Content of the manifest besides its identity: sizes, skipped records, licences."""
    leaf, source = chain[-1], built.location.source
    notices = version_notices(source)
    expected = catalog.expected_rows(chain, source)
    if expected is not None and expected != len(selection.rows):
        notices.append(f"{len(selection.rows)} records; the recipe expects {expected}")
    if source.passages and not built.location.passages:
        notices.append("no passage file is there: the corpus is the positives of the records")
    for oddity, count in built.manifest.get("noted", {}).items():
        first = built.manifest["examples"][oddity][0]
        notices.append(f"{count} {oddity} (first: {first})")
    notices += [*built.location.notices, *spelling_notices(selection.respelled)]
    return {
        "name": leaf.name,
        "source": built.folder.name,
        "rows": len(selection.rows),
        "corpus_rows": map_table(draft / "corpus.arrow").num_rows,
        "corpus_fingerprint": arrow_store.file_digest(draft / "corpus.arrow"),
        "skipped": selection.skipped,
        "examples": selection.examples,
        "source_skipped": built.manifest["skipped"],
        "source_examples": built.manifest["examples"],
        "source_noted": built.manifest.get("noted", {}),
        "source_facts": built.manifest["facts"],
        "origin": built.origin,
        "expected_rows": expected,
        "notices": notices,
        "passed_over": list(built.location.notices),
        "licences": list(source.licences),
    }


def _write_tables(
    draft: Path, source_folder: Path, table: pa.Table, selection: Selection, corpus: str
) -> None:
    """Write the subset's tables; unchanged ones are linked, not copied."""
    (draft / "missing.json").write_text(json.dumps(selection.missing), "utf-8")
    for name in _submission_files(source_folder):
        arrow_store.link_or_copy(source_folder / name, draft / name)
    if len(selection.rows) == table.num_rows:
        arrow_store.link_or_copy(source_folder / "records.arrow", draft / "records.arrow")
    else:
        arrow_store.write_rows(draft / "records.arrow", table, selection.rows)
    if corpus == "source":
        arrow_store.link_or_copy(source_folder / "corpus.arrow", draft / "corpus.arrow")
        return
    positives = map_table(draft / "records.arrow")["passage_id"].to_pylist()
    positive_ids = {name for names in positives for name in names}
    pool = map_table(source_folder / "corpus.arrow")
    rows = [row for row, name in enumerate(pool["passage_id"].to_pylist()) if name in positive_ids]
    arrow_store.write_rows(draft / "corpus.arrow", pool, rows)


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = arrow_store.read_manifest(folder)
    if manifest is None:
        raise SourceError(f"{folder} was damaged while it was read; run again to build it anew")
    return manifest


def _open_subset(leaf: Recipe, folder: Path, images: Path) -> Subset:
    manifest = _read_manifest(folder)
    return Subset(
        name=leaf.name,
        fingerprint=manifest["fingerprint"],
        manifest=manifest,
        records=map_table(folder / "records.arrow"),
        corpus=Corpus(map_table(folder / "corpus.arrow"), manifest["corpus_fingerprint"]),
        evaluate_on=leaf.evaluate_on,
        image_root=images,
        folder=folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one subset and print JSON lines on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.building.build", description=__doc__
    )
    parser.add_argument("name")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--image-root", default="")
    parser.add_argument(
        "--download", action="store_true", help="download from the hub what is absent"
    )
    options = parser.parse_args(arguments)
    progress = percent_progress()
    try:
        if options.download and options.data_root is None:
            download_subset(options.name, progress)
        subset = build(
            options.name, options.cache_root, options.data_root, progress, options.image_root
        )
    except (RecipeError, BuildError, SourceError) as error:
        prefix = f"subset {options.name!r}: " if isinstance(error, SourceError) else ""
        emit_message(kind="failed", error=f"{prefix}{error}")
        return 1
    emit_message(kind="done", manifest=subset.manifest, folder=str(subset.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
