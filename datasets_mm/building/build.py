"""Builds a subset from its recipe, once, and opens it: memory-mapped records and their corpus.

Two layers are cached. A source is what an adapter wrote (all its records, its corpus, pictures it
rendered); a subset is the rows that the recipe's steps keep. Both are keyed by content, built under
a lock, and appear whole or not at all. `python -m datasets_mm.building.build NAME` prints JSON
lines.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from datasets_mm import catalog
from datasets_mm.adapters import Adapter, shortened
from datasets_mm.building.download import fetch
from datasets_mm.building.selection import Selection, is_inside, select, spelling_notices
from datasets_mm.child_messages import percent_speaker, speak
from datasets_mm.recipes.recipe import Recipe, RecipeError
from datasets_mm.sources.fingerprint import SourceError, fingerprint, other_versions
from datasets_mm.sources.location import Location, locate
from datasets_mm.storage import arrow_store
from datasets_mm.storage.corpus import Corpus, map_table

MODULES = {
    "openmoji": "datasets_mm.demo.openmoji",
    "jsonl": "datasets_mm.adapters.m2kr_jsonl",
    "ret_m2kr_jsonl": "datasets_mm.adapters.m2kr_jsonl",
    "m2kr_parquet": "datasets_mm.adapters.m2kr_parquet",
    "captions": "datasets_mm.adapters.captions",
    "emoji_captions": "datasets_mm.demo.emoji_captions",
    "challenge": "datasets_mm.adapters.vqa_challenge",
    "easy_vqa": "datasets_mm.demo.easy_vqa",
}
IMAGE_ROOT = "image_root"
TABLES = ("records.arrow", "corpus.arrow")


class BuildError(Exception):
    """The subset cannot be built; one sentence with place and remedy."""


@dataclass(frozen=True)
class Subset:
    """A built subset. `records`: M2KR's nine fields; answer and passage_* are lists of strings."""

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
    progress: arrow_store.Progress | None = None,
    image_root: str = "",
) -> Subset:
    """Open the subset, building it first where needed.

    `data_root` None: packages, or the hub's local cache. `image_root`: see location.locate.
    Raises RecipeError (the recipe), BuildError (the data); both say where and what to do.
    """
    say = progress or arrow_store.silent
    chain = catalog.lineage(name)
    if sentence := catalog.problem(name, data_root, image_root):
        raise BuildError(sentence)
    try:
        found = locate(chain[0], data_root, image_root)
        place = _Place.of(_source(found, cache_root, say), found)
        folder = _subset(chain, place, cache_root, say)
        _remember(folder, place.images)
        return _open(chain[-1], folder, place.images)
    except (SourceError, OSError, pa.ArrowException) as error:
        raise BuildError(f"subset {name!r}: {error}") from error


def _remember(folder: Path, images: Path) -> None:
    """Where the pictures were last: for whoever looks at the subset without naming its data.

    Beside the manifest, which names no machine and is equal everywhere.
    """
    path = folder / IMAGE_ROOT
    with suppress(OSError):  # the cache may be another user's, and read-only
        if not path.exists() or path.read_bytes() != os.fsencode(images):
            path.write_bytes(os.fsencode(images))


@dataclass(frozen=True)
class _Place:
    """A built source, and where its pictures are."""

    folder: Path
    manifest: dict[str, Any]
    images: Path
    found: Location

    @classmethod
    def of(cls, folder: Path, found: Location) -> _Place:
        """Pictures lie where they were located, or in the built folder if the adapter made them."""
        return cls(folder, _manifest(folder), found.images or (folder / "images").resolve(), found)

    def named(self, paths: Sequence[str]) -> list[str]:
        """Pictures as a person finds them: by file and row, where their adapter can tell."""
        adapter = importlib.import_module(MODULES[self.found.source.adapter])
        rows = adapter.places(self.found, paths) if hasattr(adapter, "places") else {}
        return [rows.get(path, path) for path in paths]

    @property
    def content(self) -> str:
        """Identity of what was read: its values where the adapter knows them, else its files."""
        return str(self.manifest.get("content") or self.manifest["fingerprint"])

    @property
    def origin(self) -> dict[str, str]:
        """Repository, revision and commit, where the files came from the hub's cache."""
        if not self.found.commit:
            return {}
        source = self.found.source
        asked = source.revision or "main"
        return {"hub": source.hub, "revision": asked, "commit": self.found.commit}


def _source(found: Location, cache_root: Path, say: arrow_store.Progress) -> Path:
    """The folder of the source, written by its adapter unless it is there and whole."""
    origin = found.source
    adapter = cast("Adapter", importlib.import_module(MODULES[origin.adapter]))
    read = [*found.records, *found.passages, *filter(None, [found.submission])]
    files = {found.name(path): path for path in read}
    mark = fingerprint(origin, adapter.REVISION, files, cache_root)
    folder = cache_root / "sources" / f"{origin.adapter}-{mark[:12]}"
    if arrow_store.opened(folder):
        return folder
    with arrow_store.locked(folder):
        if arrow_store.opened(folder):
            return folder
        with arrow_store.draft(folder) as made:
            report = adapter.write(found, made, say)
            content = {
                "fingerprint": mark,
                "content": report.content,
                "skipped": report.skipped,
                "noted": report.noted,
                "examples": report.examples,
                "facts": report.facts,
            }
            arrow_store.finish(made, content, [*TABLES, *_submission(made)])
    return folder


def _subset(
    chain: list[Recipe], place: _Place, cache_root: Path, say: arrow_store.Progress
) -> Path:
    """The folder of the subset: the source's rows after all steps of the lineage."""
    leaf = chain[-1]
    plan = {
        "format": arrow_store.FORMAT,
        "source": place.content,
        "steps": [step.model_dump(mode="json") for step in catalog.all_steps(chain)],
        "missing": leaf.images.missing,
        "corpus": leaf.corpus,
    }
    mark = _hash(plan)
    folder = cache_root / "subsets" / f"{leaf.name}-{mark[:12]}"
    recipe = catalog.recipe_digest(chain)
    if _is_current(folder, recipe, place):
        return folder
    with arrow_store.locked(folder):
        if _is_current(folder, recipe, place):
            return folder
        with arrow_store.draft(folder) as made:
            table = map_table(place.folder / "records.arrow")
            steps, policy = catalog.all_steps(chain), leaf.images.missing
            chosen = select(steps, table, place.images, policy, place.named)
            _refuse_empty(chosen, place)
            _write(made, place.folder, table, chosen, leaf.corpus)
            say(len(chosen.rows), table.num_rows, "records")
            content = _account(chain, place, chosen, made) | {
                "recipe": recipe,
                "fingerprint": _hash([mark, chosen.missing]),
            }
            arrow_store.finish(made, content, [*TABLES, "missing.json", *_submission(made)])
    return folder


def _submission(folder: Path) -> list[str]:
    """The form of a submission, where the source has one."""
    return [arrow_store.SUBMISSION] if (folder / arrow_store.SUBMISSION).is_file() else []


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _is_current(folder: Path, recipe: str, place: _Place) -> bool:
    """Whole, of the present recipe and commit, and no picture it lacked has come since."""
    manifest = arrow_store.opened(folder)
    if manifest is None or manifest["recipe"] != recipe:
        return False
    if "missing.json" not in manifest["files"] or manifest.get("origin", {}) != place.origin:
        return False
    if manifest.get("passed_over", []) != list(place.found.notices):
        return False
    missing = json.loads((folder / "missing.json").read_text("utf-8"))
    return not any(is_inside(path, place.images) for path in missing)


def _refuse_empty(chosen: Selection, place: _Place) -> None:
    if chosen.rows:
        return
    lost = {**place.manifest["skipped"], **chosen.skipped}
    account = ", ".join(f"{count} {reason}" for reason, count in lost.items()) or "it is empty"
    remedy = "check the source and the recipe's steps"
    if chosen.missing:
        first = shortened(place.named(chosen.missing[:1])[0])
        remedy = f"give this user the right to read the pictures (first: {first})"
        if not any("cannot be read" in reason for reason in chosen.skipped):
            remedy = f"name the pictures' folder with --set image_root=/folder (first: {first})"
    raise SourceError(f"no record is left ({account}); {remedy}")


def _account(chain: list[Recipe], place: _Place, chosen: Selection, made: Path) -> dict[str, Any]:
    """What the manifest says beside identity: sizes, what was left out and why, licences."""
    leaf, source = chain[-1], place.found.source
    notices = other_versions(source)
    expected = catalog.expected_rows(chain, source)
    if expected not in {None, len(chosen.rows)}:
        notices.append(f"{len(chosen.rows)} records; the recipe expects {expected}")
    if source.passages and not place.found.passages:
        notices.append("no passage file is there: the corpus is the positives of the records")
    for oddity, count in place.manifest.get("noted", {}).items():
        first = place.manifest["examples"][oddity][0]
        notices.append(f"{count} {oddity} (first: {first})")
    notices += [*place.found.notices, *spelling_notices(chosen.respelled)]
    return {
        "name": leaf.name,
        "source": place.folder.name,
        "rows": len(chosen.rows),
        "corpus_rows": map_table(made / "corpus.arrow").num_rows,
        "corpus_fingerprint": arrow_store.digest(made / "corpus.arrow"),
        "skipped": chosen.skipped,
        "examples": chosen.examples,
        "source_skipped": place.manifest["skipped"],
        "source_examples": place.manifest["examples"],
        "source_noted": place.manifest.get("noted", {}),
        "source_facts": place.manifest["facts"],
        "origin": place.origin,
        "expected_rows": expected,
        "notices": notices,
        "passed_over": list(place.found.notices),
        "licences": list(source.licences),
    }


def _write(
    made: Path, source_folder: Path, table: pa.Table, chosen: Selection, corpus: str
) -> None:
    """Rows that are all kept, and a corpus that is the source's own, need no second copy."""
    (made / "missing.json").write_text(json.dumps(chosen.missing), "utf-8")
    for name in _submission(source_folder):
        arrow_store.link(source_folder / name, made / name)
    if len(chosen.rows) == table.num_rows:
        arrow_store.link(source_folder / "records.arrow", made / "records.arrow")
    else:
        arrow_store.write_rows(made / "records.arrow", table, chosen.rows)
    if corpus == "source":
        arrow_store.link(source_folder / "corpus.arrow", made / "corpus.arrow")
        return
    positives = map_table(made / "records.arrow")["passage_id"].to_pylist()
    wanted = {name for names in positives for name in names}
    pool = map_table(source_folder / "corpus.arrow")
    rows = [row for row, name in enumerate(pool["passage_id"].to_pylist()) if name in wanted]
    arrow_store.write_rows(made / "corpus.arrow", pool, rows)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = arrow_store.opened(folder)
    if manifest is None:
        raise SourceError(f"{folder} was damaged while it was read; run again to build it anew")
    return manifest


def _open(leaf: Recipe, folder: Path, images: Path) -> Subset:
    manifest = _manifest(folder)
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
    """Build one subset, speaking JSON lines on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.building.build", description=__doc__
    )
    parser.add_argument("name")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--image-root", default="")
    parser.add_argument("--download", action="store_true", help="fetch from the hub what is absent")
    given = parser.parse_args(arguments)
    say = percent_speaker()
    try:
        if given.download and given.data_root is None:
            fetch(given.name, say)
        subset = build(given.name, given.cache_root, given.data_root, say, given.image_root)
    except (RecipeError, BuildError, SourceError) as error:
        about = f"subset {given.name!r}: " if isinstance(error, SourceError) else ""
        speak(kind="failed", error=f"{about}{error}")
        return 1
    speak(kind="done", manifest=subset.manifest, folder=str(subset.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
