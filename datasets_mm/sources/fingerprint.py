"""Identity of a source: installed packages and their folders, digests of files.

Light, so that the workbench can check availability before anything heavy is loaded. Data packages
are located, never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from datasets_mm.atomic_files import write_atomic
from datasets_mm.recipes.recipe import LATER_KEYS, Source


class SourceError(Exception):
    """The source cannot be read; one sentence with place and remedy."""


def package_folder(module: str) -> Path | None:
    """Folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def distribution_name(requirement: str) -> str:
    """`emoji==2.16.0` -> `emoji`."""
    return re.split(r"[=<>!~\[ ;]", requirement, maxsplit=1)[0]


def package_digest(requirement: str) -> str:
    """Version and content of an installed package, from the hashes that its wheel recorded.

    Only data files count: byte-code and installer marks differ between machines.
    """
    name = distribution_name(requirement)
    package = metadata.distribution(name)
    digest = hashlib.blake2b(f"{name}=={package.version}".encode(), digest_size=16)
    for file in sorted(package.files or (), key=str):
        if file.hash and file.suffix in {".svg", ".json"}:
            digest.update(f"{file}:{file.hash.value}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path, cache_root: Path) -> str:
    """blake2b of a file's content; remembered while its size and time stay as they are."""
    stat = path.stat()
    name = hashlib.blake2b(os.fsencode(path.absolute()), digest_size=16).hexdigest()
    cache_file = cache_root / "digests" / f"{name}.json"
    file_state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    try:
        cached = json.loads(cache_file.read_text())
        if cached["mark"] == file_state:
            return str(cached["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    cache_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(cache_file, json.dumps({"mark": file_state, "digest": digest}))
    return digest


def missing_packages(source: Source) -> list[str]:
    """Packages that the source reads and that are not installed."""
    missing = []
    for requirement in source.packages:
        try:
            metadata.version(distribution_name(requirement))
        except metadata.PackageNotFoundError:
            missing.append(requirement)
    return missing


def version_notices(source: Source) -> list[str]:
    """Packages installed in another version than the recipe names: its numbers may differ."""
    notices = []
    for requirement in source.packages:
        name = distribution_name(requirement)
        version_of_recipe, installed = requirement.removeprefix(f"{name}=="), metadata.version(name)
        if version_of_recipe not in {requirement, installed}:
            notices.append(f"{name} {installed} is installed; the recipe names {version_of_recipe}")
    return notices


def _reading_options(source: Source) -> dict[str, object]:
    """Options of the recipe that change how files are read, by keys that older recipes lack."""
    return {key: getattr(source, key) for key in sorted(LATER_KEYS - {"submission"})}


def fingerprint(source: Source, revision: int, files: Mapping[str, Path], cache_root: Path) -> str:
    """Identity of an adapter's input; `revision` is that of the adapter's code.

    `files`: name -> path. The names are part of the identity, the paths are not.
    """
    parts = [source.adapter, str(revision), source.revision if source.packages else ""]
    parts += [source.images, *map(package_digest, source.packages)]
    if files:
        parts += [source.dataset, source.pool]
        parts += [f"{key}={value}" for key, value in _reading_options(source).items() if value]
    for name, path in files.items():
        parts += [name, file_digest(path, cache_root)]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
