"""Building of subsets and writing of data, in child processes; their progress goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines.protocol import RunSpec
from results.text.sanitize import clean_line
from workbench import paths
from workbench.exit_codes import ExitCode
from workbench.processes.json_child import run_child

PROGRESS_SECONDS: Final = 1.0
"""Least time between two lines of progress; what takes less has none."""


@dataclass(frozen=True)
class DataLocation:
    """Location of source data. `data_root` None: hub cache; `image_root` "": beside the data."""

    data_root: Path | None = None
    image_root: str = ""
    download: bool = False

    def flags(self) -> list[str]:
        """The location as arguments of the building child process."""
        root = ["--data-root", str(self.data_root)] if self.data_root else []
        images = ["--image-root", self.image_root] if self.image_root else []
        return [*root, *images, *(["--download"] if self.download else [])]


def build_subsets(names: list[str], location: DataLocation) -> ExitCode:
    """Build subsets one after the other, each in a child process; progress goes to stderr."""
    from datasets_mm import catalog

    for name in names:
        catalog.load(name)  # unknown names are rejected before anything is built
    successes = [_build_subset(name, location) for name in names]  # a failure stops no other build
    return ExitCode.COMPLETED if all(successes) else ExitCode.FAILED


def write_copy(layout: str, out: Path, rows: int) -> ExitCode:
    """Write a small synthetic copy of M2KR, or of a VQA challenge, in a child process."""
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
    return ExitCode.COMPLETED if _run_child(layout, command) else ExitCode.FAILED


def write_paraphrases(subset: str, model: str, out: Path, options: list[str]) -> ExitCode:
    """Write a table of paraphrases of a subset's questions, in a child process with the model."""
    command = [sys.executable, "-m", "engines.vqa.data.paraphrase_writer", subset, "--model", model]
    command += ["--out", str(out), "--cache-root", str(paths.cache_root()), *options]
    return ExitCode.COMPLETED if _run_child(subset, command) else ExitCode.FAILED


def build_strict_subsets(specs: Iterable[RunSpec]) -> bool:
    """Build the subsets whose recipes reject missing images; False: a build failed and was printed.

    Missing images are only known after reading the data, and a plan that cannot run has to be
    rejected before a suite starts.
    """
    from datasets_mm import catalog

    locations: dict[str, DataLocation] = {}
    for spec in specs:
        root, images = spec.params.get("data_root"), spec.params.get("image_root")
        if spec.subset in catalog.names() and catalog.load(spec.subset).images.missing == "error":
            locations[spec.subset] = DataLocation(Path(root) if root else None, images or "")
    return all(_build_subset(name, location) for name, location in locations.items())


def _build_subset(name: str, location: DataLocation) -> bool:
    command = [sys.executable, "-m", "datasets_mm.building.build", name]
    return _run_child(name, [*command, "--cache-root", str(paths.cache_root()), *location.flags()])


def _run_child(name: str, command: list[str]) -> bool:
    """Run a child process that writes JSON lines, print them to stderr; whether it succeeded."""
    due = time.monotonic() + PROGRESS_SECONDS

    def print_message(message: Mapping[str, Any]) -> None:
        nonlocal due
        if message.get("kind") != "progress":
            _print_message(name, message)
        elif time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_SECONDS
            done, total = message.get("done"), message.get("total")
            _print_progress(f"{name}: {message.get('unit', '')} {done:,}/{total:,}")

    return run_child(command, print_message) == 0


def _print_message(name: str, message: Mapping[str, Any]) -> None:
    if message.get("kind") == "failed":
        _print_progress(f"workbench: {name_data_option(str(message.get('error')))}")
    elif message.get("kind") == "done":
        for text in _build_summary(message.get("manifest") or {}):
            _print_progress(f"{name}: {text}")
        _print_progress(
            f"{name}: built" if "manifest" in message else f"{name}: written to {message['folder']}"
        )


def name_data_option(error: str) -> str:
    """The sentence with the option that commands of `data` have for a run's setting."""
    return error.replace("--set data_root=", "--data-root ")


def _build_summary(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Lines about a build: records, skipped records by reason, notices and origin."""
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


def _print_progress(text: str) -> None:
    print(clean_line(text), file=sys.stderr)
