"""The catalogues on the command line: models, subsets, and building the latter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from engines.protocol import RunSpec
from results.text import clean, clean_line
from workbench import paths
from workbench.exits import ExitStatus


def models(*, as_json: bool) -> None:
    """One line per model: for which engine, from where, and what it lacks here."""
    from engines import models as catalogue

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
    """One line per subset: rows, corpus, whether it is built."""
    from datasets_mm import catalog

    cache = paths.cache_root()
    for name in catalog.names():
        row = catalog.summary(name, cache)
        if as_json:
            _out(json.dumps({"name": name, "title": row.title, "rows": row.rows,
                             "corpus_rows": row.corpus_rows, "built": row.built}))  # fmt: skip
            continue
        rows = _count(row.rows if row.built else row.expected_rows)
        built = "built" if row.built else "expected" if row.expected_rows else "not built"
        corpus = _count(row.corpus_rows)
        _out(f"{name:<24} {rows:>9} rows {corpus:>9} passages  {built:<9}  {clean_line(row.title)}")


def build(names: list[str], data_root: Path | None) -> ExitStatus:
    """Build subsets one after the other in a child each, with its progress on stderr."""
    from datasets_mm import catalog

    for name in names:
        catalog.load(name)  # an unknown name is refused before anything is built
    built = all(_build(name, data_root) for name in names)
    return ExitStatus.COMPLETED if built else ExitStatus.FAILED


def build_strict(specs: Iterable[RunSpec]) -> bool:
    """Build now what a recipe wants refused rather than skipped; False: it was refused, and said.

    Which pictures are missing is only known after reading the data, and a plan that cannot run is
    to be refused before anything starts.
    """
    from datasets_mm import catalog

    wanted: dict[str, Path | None] = {}
    for spec in specs:
        root = spec.params.get("data_root")
        if spec.subset in catalog.names() and catalog.load(spec.subset).images.missing == "error":
            wanted[spec.subset] = Path(root) if root else None
    return all(_build(name, root) for name, root in wanted.items())


def _build(name: str, data_root: Path | None) -> bool:
    command = [sys.executable, "-m", "datasets_mm.build", name]
    command += ["--cache-root", str(paths.cache_root())]
    command += ["--data-root", str(data_root)] if data_root else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
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
        print(clean(text), file=sys.stderr)
    elif said.get("kind") == "failed":
        print(f"workbench: {clean(str(said.get('error')))}", file=sys.stderr)
    elif said.get("kind") == "done":
        print(f"{name}: built", file=sys.stderr)


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _out(line: str) -> None:
    print(clean(line))
