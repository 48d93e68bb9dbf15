"""The catalogues on the command line: models, subsets, and building the latter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.protocol import RunSpec
from results.text.sanitize import clean, clean_line
from workbench import paths
from workbench.exit_codes import ExitStatus


def models(*, as_json: bool) -> None:
    """One line per model: for which engine, from where, and what it lacks here."""
    from engines import model_catalog as catalogue

    for name in catalogue.names():
        entry = catalogue.load(name)
        problem = catalogue.problem(entry)
        if as_json:
            _out(json.dumps({**entry.model_dump(mode="json"), "problem": problem}))
        else:
            state = clean_line(problem) if problem else "ready"
            _out(f"{name:<20} {'/'.join(entry.engines):<12} {clean_line(entry.title)}")
            _out(f"{'':<20} {'':<12} {state}")


def subsets(*, as_json: bool) -> None:
    """One line per subset: rows, corpus, whether it is built, and whether the count is off."""
    from datasets_mm import catalog

    cache = paths.cache_root()
    for name in catalog.names():
        row = catalog.summary(name, cache)
        if as_json:
            _out(json.dumps({"name": name, "title": row.title, "rows": row.rows,
                             "expected_rows": row.expected_rows,
                             "corpus_rows": row.corpus_rows, "built": row.built}))  # fmt: skip
            continue
        rows = _count(row.rows if row.built else row.expected_rows)
        built = "built" if row.built else "expected" if row.expected_rows else "not built"
        corpus = f"{_count(row.corpus_rows):>9} passages" if row.corpus_rows != 0 else f"{'':>18}"
        off = ""
        if row.built and row.expected_rows not in {None, row.rows}:
            off = f" (expected: {row.expected_rows:,} rows)"
        title = clean_line(row.title)
        _out(f"{name:<24} {rows:>9} rows {corpus}  {built:<9}  {title}{off}")


@dataclass(frozen=True)
class Place:
    """Where data lies: `data_root` None: the hub's cache; `image_root` "": beside the data."""

    data_root: Path | None = None
    image_root: str = ""
    download: bool = False

    def flags(self) -> list[str]:
        """As arguments of the child that builds."""
        root = ["--data-root", str(self.data_root)] if self.data_root else []
        images = ["--image-root", self.image_root] if self.image_root else []
        return [*root, *images, *(["--download"] if self.download else [])]


def build(names: list[str], place: Place) -> ExitStatus:
    """Build subsets one after the other in a child each, with its progress on stderr."""
    from datasets_mm import catalog

    for name in names:
        catalog.load(name)  # an unknown name is refused before anything is built
    built = [_build(name, place) for name in names]  # one that fails stops no other
    return ExitStatus.COMPLETED if all(built) else ExitStatus.FAILED


def make_copy(layout: str, out: Path, rows: int) -> ExitStatus:
    """Write a small copy of M2KR, or of a VQA challenge, in a child."""
    command = [
        sys.executable,
        "-m",
        "datasets_mm.demo.m2kr_copy",
        "--layout",
        layout,
        "--out",
        str(out),
    ]
    command += ["--rows", str(rows), "--cache-root", str(paths.cache_root())]
    return ExitStatus.COMPLETED if _child(layout, command) else ExitStatus.FAILED


def paraphrase(subset: str, model: str, out: Path, options: list[str]) -> ExitStatus:
    """Write a table of paraphrases of a subset's questions, in a child that loads the model."""
    command = [sys.executable, "-m", "engines.vqa.data.paraphrase_writer", subset, "--model", model]
    command += ["--out", str(out), "--cache-root", str(paths.cache_root()), *options]
    return ExitStatus.COMPLETED if _child(subset, command) else ExitStatus.FAILED


def build_strict(specs: Iterable[RunSpec]) -> bool:
    """Build now what a recipe wants refused rather than skipped; False: it was refused, and said.

    Which pictures are missing is only known after reading the data, and a plan that cannot run is
    to be refused before anything starts.
    """
    from datasets_mm import catalog

    wanted: dict[str, Place] = {}
    for spec in specs:
        root, images = spec.params.get("data_root"), spec.params.get("image_root")
        if spec.subset in catalog.names() and catalog.load(spec.subset).images.missing == "error":
            wanted[spec.subset] = Place(Path(root) if root else None, images or "")
    return all(_build(name, place) for name, place in wanted.items())


def _build(name: str, place: Place) -> bool:
    command = [sys.executable, "-m", "datasets_mm.building.build", name]
    return _child(name, [*command, "--cache-root", str(paths.cache_root()), *place.flags()])


def _child(name: str, command: list[str]) -> bool:
    """Run a child that speaks JSON lines; what it says goes to stderr."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as child:
        for line in child.stdout or ():
            _tell(name, line)
    return child.returncode == 0


def _tell(name: str, line: str) -> None:
    try:
        said = json.loads(line)
    except ValueError:
        return
    if said.get("kind") == "progress":
        text = f"{name}: {said.get('unit', '')} {said.get('done'):,}/{said.get('total'):,}"
        _talk(text)
    elif said.get("kind") == "failed":
        _talk(f"workbench: {said.get('error')}")
    elif said.get("kind") == "done":
        for text in _account(said.get("manifest") or {}):
            _talk(f"{name}: {text}")
        _talk(f"{name}: built" if "manifest" in said else f"{name}: written to {said['folder']}")


def _account(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a build left out, and what it wondered about: nothing is dropped in silence."""
    if "rows" in manifest:
        passages = manifest["corpus_rows"]
        yield f"{manifest['rows']:,} records" + (f", {passages:,} passages" if passages else "")
    for skipped, examples in (("source_skipped", "source_examples"), ("skipped", "examples")):
        for reason, count in manifest.get(skipped, {}).items():
            first = (manifest.get(examples, {}).get(reason) or [""])[0]
            named = f" (first: {clean_line(first)})" if first else ""
            yield f"left out {count:,}: {reason}{named}"
    for notice in manifest.get("notices", ()):
        yield f"note: {notice}"
    if origin := manifest.get("origin"):
        yield f"from {origin['hub']} at {origin['revision']} = {origin['commit']}"


def _talk(text: str) -> None:
    print(clean_line(text), file=sys.stderr)


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _out(line: str) -> None:
    print(clean(line))
