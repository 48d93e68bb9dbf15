"""Cache check: `python -m datasets_mm.cache_health CACHE_ROOT` prints JSON lines.

Runs as a child of `workbench doctor`, which must not load Arrow or Pillow. It only reads, and takes
no lock: a run that fills a cache meanwhile can make its end look torn, never a row look wrong.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from datasets_mm.media.decode import UnusableError, decode, read_inside
from datasets_mm.media.image_cache import VERSION, content_key
from datasets_mm.media.pixel_file import HASH_BYTES
from datasets_mm.storage import arrow_store
from datasets_mm.storage.corpus import map_table

SAMPLE: Final = 24
"""Pictures decoded again per cache: 3 ms each. One wrong row in eight is found at 96 %."""


def check_image_cache(folder: Path, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Sizes against each other, index against rows, a seeded sample of pixels against the files."""
    size, resample = parse_transform_name(folder.name)
    row_bytes = size * size * 3
    pixels, hashes = (_file_size(folder / name) for name in ("rows.u8", "hashes.bin"))
    rows = min(pixels // row_bytes, hashes // HASH_BYTES)
    result: dict[str, Any] = {
        "kind": "images", "name": folder.name, "folder": str(folder), "rows": rows,
        "bytes": pixels + hashes, "checked": 0, "gone": 0, "lost": 0, "bad": [],
        "torn_bytes": pixels - rows * row_bytes + hashes - rows * HASH_BYTES,
    }  # fmt: skip
    entries: list[tuple[Path, str, int]] = []
    for index in sorted(folder.glob("index-*.arrow")):
        rows_of_index, lost = _read_index(index, rows)
        entries += rows_of_index
        result["lost"] += lost
    if not folder.name.endswith(f"-v{VERSION}"):  # decoded by another version
        return result | {"old": True}
    pixels_by_row: Any = (
        np.memmap(folder / "rows.u8", np.uint8, "r", shape=(rows, size, size, 3)) if rows else []
    )
    keys = (folder / "hashes.bin").read_bytes() if rows else b""
    for root, path, row in random.Random(seed).sample(entries, min(sample, len(entries))):
        key = keys[row * HASH_BYTES : (row + 1) * HASH_BYTES]
        try:
            data = read_inside(root, path)
            if content_key(data) != key:
                result["gone"] += 1  # the file has changed since; the next run decodes it anew
                continue
            result["checked"] += 1
            if not np.array_equal(decode(data, size, resample), pixels_by_row[row]):
                result["bad"].append(f"row {row} does not hold the pixels of {path}")
        except UnusableError:
            result["gone"] += 1
    return result


def parse_transform_name(name: str) -> tuple[int, Any]:
    """Edge and filter of a transform's folder, `224-bicubic-center-v1`."""
    size, resample, _ = name.split("-", 2)
    return int(size), resample


def _read_index(index: Path, rows: int) -> tuple[list[tuple[Path, str, int]], int]:
    """(root, path, row) of one index, and how many of its rows are not there.

    Indexes of before the root was written into them name no files that could be compared.
    """
    try:
        table = map_table(index)
        paths, row_numbers = table["path"].to_pylist(), table["row"].to_pylist()
    except (OSError, KeyError, pa.ArrowException):
        return [], 0
    root = os.fsdecode((table.schema.metadata or {}).get(b"root", b""))
    missing = sum(row >= rows for row in row_numbers)
    if not root:
        return [], missing
    pairs = zip(paths, row_numbers, strict=True)
    return [(Path(root), path, row) for path, row in pairs if 0 <= row < rows], missing


def check_subset(folder: Path) -> dict[str, Any]:
    """Check a built subset folder against its manifest."""
    manifest = _read_manifest(folder)
    size = sum(_file_size(path) for path in folder.iterdir())
    result = {"kind": "subset", "name": folder.name, "bytes": size, "problem": ""}
    if manifest is None:
        result["problem"] = "its manifest is missing or broken"
    elif manifest.get("format") == arrow_store.FORMAT and arrow_store.read_manifest(folder) is None:
        result["problem"] = "its files are not those of its manifest"
    return result


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _list_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def main(argv: list[str]) -> int:
    """Entry point: one JSON line for each cache and subset, then an `end` line."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m datasets_mm.cache_health CACHE_ROOT\n")
        return 2
    root = Path(argv[1])
    rows = []
    for folder in _list_folders(root / "images"):
        try:
            rows.append(check_image_cache(folder))
        except (ValueError, OSError) as error:
            broken = {"name": folder.name, "folder": str(folder), "rows": 0, "bytes": 0}
            counts = {"checked": 0, "gone": 0, "lost": 0, "torn_bytes": 0}
            rows.append({"kind": "images", **broken, **counts, "bad": [str(error)]})
    rows += [check_subset(folder) for folder in _list_folders(root / "subsets")]
    for row in [*rows, {"kind": "end"}]:
        sys.stdout.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
