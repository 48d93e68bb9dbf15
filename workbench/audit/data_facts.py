"""Facts of built subsets for the audit, measured by a child process and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from datasets_mm.atomic_files import write_atomic
from datasets_mm.profile.subset_facts import SubsetFacts

SECONDS = 20.0
"""Longest time for one subset; a disk that is slower leaves it unmeasured."""


def measure_subset(
    folder: Path, cache_root: Path, tokenizer: Path | None, judge: Path | None
) -> SubsetFacts | None:
    """Facts of the subset that is built in `folder`; None: it cannot be read.

    `tokenizer`, `judge`: folders with a `tokenizer.json`, of the language model and the judge.
    """
    options = {"--tokenizer": tokenizer, "--judge": judge}
    arguments = [part for name, value in options.items() if value for part in (name, str(value))]
    path = _cache_path(folder, cache_root, arguments)
    try:
        return SubsetFacts.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        pass
    command = [sys.executable, "-m", "datasets_mm.profile.measure_facts", *arguments]
    try:
        child = subprocess.run(
            [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=SECONDS, check=True,
        )  # fmt: skip
        facts = SubsetFacts.model_validate(json.loads(child.stdout)["facts"])
    except (subprocess.SubprocessError, OSError, ValueError, KeyError):
        return None
    _write_cached(path, facts)
    return facts


def _cache_path(folder: Path, cache_root: Path, arguments: list[str]) -> Path:
    """The name of a built folder has the digest of its content; its images lie elsewhere."""
    try:
        root = (folder / "image_root").read_bytes()
    except OSError:
        root = b""
    content = "\0".join([folder.name, *arguments]).encode() + root
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    return cache_root / "audit" / f"{digest}.json"


def _write_cached(path: Path, facts: SubsetFacts) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, facts.model_dump_json())
    except OSError:
        return  # what cannot be kept is measured again
