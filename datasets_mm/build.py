"""Builds a subset from its recipe, once, and opens it: memory-mapped records and their corpus.

Two layers are cached. A source is what an adapter wrote (all its records, its corpus, pictures it
rendered); a subset is the rows that the recipe's steps keep. Both are keyed by content, built under
a lock, and appear whole or not at all. `python -m datasets_mm.build NAME` speaks JSON lines.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from datasets_mm import catalog, steps, store
from datasets_mm.adapters import Adapter, Place
from datasets_mm.corpus import Corpus, map_table
from datasets_mm.recipe import Recipe, RecipeError, Source
from datasets_mm.source import SourceError, fingerprint, problem

MODULES = {
    "openmoji": "datasets_mm.adapters.openmoji",
    "jsonl": "datasets_mm.adapters.jsonl",
    "ret_m2kr_jsonl": "datasets_mm.adapters.jsonl",
}


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
    progress: store.Progress | None = None,
) -> Subset:
    """Open the subset, building it first where needed.

    Raises RecipeError (the recipe), BuildError (the data); both say where and what to do.
    """
    say = progress or store.silent
    chain = catalog.lineage(name)
    origin = catalog.origin(chain)
    if sentence := problem(origin, data_root):
        raise BuildError(f"subset {name!r}: {sentence}")
    try:
        source_folder = _source(origin, cache_root, data_root, say)
        folder = _subset(chain, source_folder, cache_root, say)
    except (SourceError, OSError) as error:
        raise BuildError(f"subset {name!r}: {error}") from error
    return _open(chain[-1], folder, source_folder)


def _source(origin: Source, cache_root: Path, data_root: Path | None, say: store.Progress) -> Path:
    """The folder of the source, written by its adapter unless it is there and whole."""
    adapter = cast("Adapter", importlib.import_module(MODULES[origin.adapter]))
    mark = fingerprint(origin, adapter.REVISION, data_root, cache_root)
    folder = cache_root / "sources" / f"{origin.adapter}-{mark[:12]}"
    if store.opened(folder):
        return folder
    with store.locked(folder):
        if store.opened(folder):
            return folder
        with store.draft(folder) as made:
            report = adapter.write(origin, Place(made, data_root), say)
            content = {
                "fingerprint": mark,
                "image_root": report.image_root,
                "skipped": report.skipped,
                "examples": report.examples,
                "facts": report.facts,
            }
            store.finish(made, content, ["records.arrow", "corpus.arrow"])
    return folder


def _subset(
    chain: list[Recipe], source_folder: Path, cache_root: Path, say: store.Progress
) -> Path:
    """The folder of the subset: the source's rows after all steps of the lineage."""
    leaf, kept_steps = chain[-1], catalog.all_steps(chain)
    source = _manifest(source_folder)
    plan = {
        "format": store.FORMAT,
        "source": source["fingerprint"],
        "steps": [step.model_dump(mode="json") for step in kept_steps],
        "missing": leaf.images.missing,
        "corpus": leaf.corpus,
    }
    mark = hashlib.blake2b(json.dumps(plan, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder = cache_root / "subsets" / f"{leaf.name}-{mark[:12]}"
    digest = catalog.recipe_digest(chain)
    if _is_current(folder, digest):
        return folder
    with store.locked(folder):
        if _is_current(folder, digest):
            return folder
        with store.draft(folder) as made:
            table = map_table(source_folder / "records.arrow")
            root = _image_root(source_folder, source)
            kept, skipped, examples = _select(leaf, kept_steps, table, root)
            say(len(kept), table.num_rows, "records")
            _write(made, source_folder, table, kept, leaf.corpus)
            content = {
                "name": leaf.name,
                "recipe": digest,
                "fingerprint": mark,
                "source": source_folder.name,
                "rows": len(kept),
                "corpus_rows": map_table(made / "corpus.arrow").num_rows,
                "corpus_fingerprint": store.digest(made / "corpus.arrow"),
                "skipped": skipped,
                "examples": examples,
                "source_skipped": source["skipped"],
                "source_examples": source["examples"],
                "expected_rows": leaf.expected_rows,
                "licences": list(catalog.origin(chain).licences),
            }
            store.finish(made, content, ["records.arrow", "corpus.arrow"])
    return folder


def _is_current(folder: Path, digest: str) -> bool:
    """Whole, and known under the recipe's present digest, which the subset list looks for."""
    manifest = store.opened(folder)
    return manifest is not None and manifest["recipe"] == digest


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = store.opened(folder)
    if manifest is None:
        raise SourceError(f"{folder} was damaged while it was read; run again to build it anew")
    return manifest


def _image_root(source_folder: Path, manifest: dict[str, Any]) -> Path:
    return (source_folder / str(manifest["image_root"])).resolve()


def _select(
    leaf: Recipe, kept_steps: Sequence[Any], table: pa.Table, root: Path
) -> tuple[list[int], dict[str, int], dict[str, list[str]]]:
    """Rows after the steps and the image policy, what was skipped by reason, and examples."""
    rows = steps.Rows(
        keys=_keys(table),
        column=lambda name: table[name].to_pylist(),
        image_key=_ContentKey(root),
    )
    outcome = steps.apply(kept_steps, rows)
    skipped, examples = dict(outcome.dropped), {}
    paths = table["image_path"].to_pylist()
    present = {path: _is_inside(path, root) for path in {paths[row] for row in outcome.kept}}
    missing = [row for row in outcome.kept if paths[row] and not present[paths[row]]]
    if missing and leaf.images.missing == "error":
        raise SourceError(
            f"{len(missing)} pictures are missing under {root}, first {paths[missing[0]]!r}; "
            'add them, or set missing = "skip" under [images] in the recipe'
        )
    if missing:
        skipped["picture missing"] = len(missing)
        examples["picture missing"] = [paths[row] for row in missing[:5]]
    gone = frozenset(missing)
    return [row for row in outcome.kept if row not in gone], skipped, examples


class _ContentKey:
    """Path -> digest of the picture's content, each read once; the path itself when unreadable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if path not in self._known:
            inside = _is_inside(path, self._root)
            self._known[path] = store.digest(self._root / path) if inside else path
        return self._known[path]


def _is_inside(path: str, root: Path) -> bool:
    """A regular file that lies under the root after every link is followed."""
    if not path or "\0" in path:
        return False
    try:
        real = (root / path).resolve(strict=True)
        return real.is_relative_to(root) and real.is_file()
    except (OSError, RuntimeError):
        return False


def _keys(table: pa.Table) -> list[str]:
    """One unique key a record: its id, and for repeated ids a digest of the content as well."""
    ids: list[str] = table["data_id"].to_pylist()
    count: dict[str, int] = {}
    for name in ids:
        count[name] = count.get(name, 0) + 1
    if len(count) == len(ids):
        return ids
    return [
        name if count[name] == 1 else f"{name}\x1f{_content(table, row)}"
        for row, name in enumerate(ids)
    ]


def _content(table: pa.Table, row: int) -> str:
    line = json.dumps(table.slice(row, 1).to_pylist()[0], sort_keys=True)
    return hashlib.blake2b(line.encode(), digest_size=8).hexdigest()


def _write(made: Path, source_folder: Path, table: pa.Table, kept: list[int], corpus: str) -> None:
    """Rows that are all kept, and a corpus that is the source's own, need no second copy."""
    if len(kept) == table.num_rows:
        store.link(source_folder / "records.arrow", made / "records.arrow")
    else:
        store.write_rows(made / "records.arrow", table, kept)
    if corpus == "source":
        store.link(source_folder / "corpus.arrow", made / "corpus.arrow")
        return
    wanted = {
        name
        for names in map_table(made / "records.arrow")["passage_id"].to_pylist()
        for name in names
    }
    pool = map_table(source_folder / "corpus.arrow")
    rows = [row for row, name in enumerate(pool["passage_id"].to_pylist()) if name in wanted]
    store.write_rows(made / "corpus.arrow", pool, rows)


def _open(leaf: Recipe, folder: Path, source_folder: Path) -> Subset:
    manifest = _manifest(folder)
    return Subset(
        name=leaf.name,
        fingerprint=manifest["fingerprint"],
        manifest=manifest,
        records=map_table(folder / "records.arrow"),
        corpus=Corpus(map_table(folder / "corpus.arrow"), manifest["corpus_fingerprint"]),
        evaluate_on=leaf.evaluate_on,
        image_root=_image_root(source_folder, _manifest(source_folder)),
        folder=folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one subset, speaking JSON lines on stdout."""
    parser = argparse.ArgumentParser(prog="python -m datasets_mm.build", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--data-root", type=Path)
    given = parser.parse_args(arguments)
    try:
        subset = build(given.name, given.cache_root, given.data_root, _progress_lines())
    except (RecipeError, BuildError) as error:
        _speak(kind="failed", error=str(error))
        return 1
    _speak(kind="done", manifest=subset.manifest, folder=str(subset.folder))
    return 0


def _progress_lines() -> Callable[[int, int, str], None]:
    """Says at most 100 lines a unit: a terminal draws no finer bar."""
    last: dict[str, int] = {}

    def say(done: int, total: int, unit: str) -> None:
        percent = 100 * done // max(total, 1)
        if last.get(unit) != percent:
            last[unit] = percent
            _speak(kind="progress", done=done, total=total, unit=unit)

    return say


def _speak(**message: Any) -> None:
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
