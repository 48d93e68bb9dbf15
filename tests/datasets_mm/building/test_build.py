"""Building: whole or not at all, once, and again when what is there is damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import pytest

from datasets_mm import catalog
from datasets_mm.adapters import m2kr_tables
from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.storage import arrow_store

RECIPE = """
schema = 1
name = "small"
title = "Fifty records"
evaluate_on = ["small"]
[source]
adapter = "jsonl"
uri = "small.jsonl"
licences = ["own, CC0"]
[[steps]]
do = "sample"
n = 20
"""


@pytest.fixture
def data_root(tmp_path: Path, own_recipes: Callable[[str, str], Path]) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    with (root / "small.jsonl").open("w") as file:
        for number in range(50):
            row = {"data_id": f"q{number}", "question": "?", "passage_id": [f"p{number % 7}"]}
            file.write(json.dumps(row | {"passage_text": [f"text {number % 7}"]}) + "\n")
    own_recipes("small", RECIPE)
    return root


@pytest.fixture
def small(data_root: Path, tmp_path: Path) -> Callable[[], Subset]:
    return lambda: build("small", tmp_path / "cache", data_root)


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob(".*") if "tmp-" in path.name]


def test_a_subset_is_memory_mapped_and_described(
    small: Callable[[], Subset], data_root: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert not catalog.summary("small", cache).built
    subset = small()
    assert len(subset) == subset.records.num_rows == 20
    assert len(subset.corpus) == 7
    maps = Path("/proc/self/maps").read_text()
    assert str(subset.folder / "records.arrow") in maps
    said = catalog.summary("small", cache)
    assert (said.built, said.rows, said.corpus_rows) == (True, 20, 7)
    assert said.folder == subset.folder
    assert (said.data_root, said.is_partial) == (str(data_root), False)
    assert said.license == ("own, CC0",)
    assert said.evaluate_on == ("small",)
    assert subset.manifest["skipped"] == {"step 1: sample": 30}
    assert (subset.folder.stat().st_mode & 0o777) == 0o700


def test_opening_again_writes_nothing(small: Callable[[], Subset]) -> None:
    folder = small().folder
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    small()
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before


@pytest.mark.parametrize("name", ["records.arrow", "corpus.arrow", "manifest.json", "missing.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found_and_mended(name: str, damage: str, small: Callable[[], Subset]) -> None:
    subset = small()
    good = {path.name: path.read_bytes() for path in subset.folder.iterdir()}
    path, data = subset.folder / name, good[name]
    path.unlink()  # a new file: the corpus is a link to the source's own
    if damage == "flip":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    elif damage == "cut":
        path.write_bytes(data[:-1] if name != "manifest.json" else data[:20])
    again = small()
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == good
    assert again.fingerprint == subset.fingerprint


def test_a_damaged_source_is_mended_too(small: Callable[[], Subset], tmp_path: Path) -> None:
    subset = small()
    source = tmp_path / "cache" / "sources" / subset.manifest["source"]
    (source / "records.arrow").write_bytes(b"")
    good = subset.manifest
    assert small().manifest == good
    assert arrow_store.read_manifest(source)


def test_an_older_format_is_built_again(
    small: Callable[[], Subset], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small()
    monkeypatch.setattr(arrow_store, "FORMAT", arrow_store.FORMAT + 1)
    after = small()
    assert after.manifest["format"] == before.manifest["format"] + 1
    assert after.records.equals(before.records)


def test_a_failing_build_leaves_nothing(
    small: Callable[[], Subset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(m2kr_tables.M2KRWriter, "add_record", fail)
        with pytest.raises(BuildError, match="subset 'small': .*No space left on device"):
            small()
    cache = tmp_path / "cache"
    assert leftovers(cache) == []
    assert not any(path.is_dir() for path in (cache / "sources").iterdir())
    assert len(small()) == 20


def test_a_killed_build_is_taken_up_again(
    small: Callable[[], Subset], data_root: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of the source: the next build sweeps up and finishes."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom datasets_mm.building import build\n"
        "from datasets_mm.adapters import m2kr_tables as intake\n"
        "def slow(*_):\n    print('inside', flush=True)\n    time.sleep(60)\n"
        "intake.M2KRWriter.add_record = slow\n"
        "build.build('small', Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    cache = tmp_path / "cache"
    arguments = [sys.executable, "-c", code, str(cache), str(data_root)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=dict(os.environ)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"inside\n"
        child.send_signal(signal.SIGKILL)
        child.wait(20)
    assert len(leftovers(cache)) == 1
    assert not catalog.summary("small", cache).built
    start = time.monotonic()
    assert len(small()) == 20
    assert time.monotonic() - start < 10  # the dead builder's lock is gone with it
    assert leftovers(cache) == []


def _build(arguments: tuple[str, str]) -> tuple[str, int]:
    subset = build("small", Path(arguments[0]), Path(arguments[1]))
    return subset.fingerprint, (subset.folder / "manifest.json").stat().st_ino


def test_builders_at_once_build_once(data_root: Path, tmp_path: Path) -> None:
    with get_context("spawn").Pool(3) as pool:
        found = pool.map(_build, [(str(tmp_path / "cache"), str(data_root))] * 6)
    assert len(set(found)) == 1
    assert leftovers(tmp_path / "cache") == []


def test_equal_data_elsewhere_has_the_same_fingerprint(
    small: Callable[[], Subset], data_root: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    first = small()
    data_root.rename(moved)
    second = build("small", tmp_path / "cache2", moved)
    assert second.fingerprint == first.fingerprint
    for name in ("records.arrow", "corpus.arrow", "manifest.json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert build("small", tmp_path / "cache", moved).image_root == moved / "images"


def test_prose_in_the_recipe_rebuilds_nothing(
    small: Callable[[], Subset], own_recipes: Callable[[str, str], Path]
) -> None:
    before = small()
    inode = (before.folder / "manifest.json").stat().st_ino
    own_recipes("small", RECIPE.replace("Fifty records", "Another title"))
    assert (small().folder / "manifest.json").stat().st_ino == inode
    own_recipes("small", RECIPE.replace("n = 20", "n = 21"))
    after = small()
    assert after.fingerprint != before.fingerprint
    assert set(before.records["data_id"].to_pylist()) < set(after.records["data_id"].to_pylist())


def test_the_order_of_the_source_decides_nothing(
    small: Callable[[], Subset], data_root: Path
) -> None:
    before = set(small().records["data_id"].to_pylist())
    path = data_root / "small.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert set(small().records["data_id"].to_pylist()) == before


def test_missing_data_is_said_before_anything_is_written(tmp_path: Path, data_root: Path) -> None:
    (data_root / "small.jsonl").unlink()
    with pytest.raises(
        BuildError, match=r"small.jsonl is not in the data folder .*--set data_root"
    ):
        build("small", tmp_path / "cache", data_root)
    with pytest.raises(BuildError, match="give --set data_root"):
        build("small", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_another_version_of_a_data_package_is_said(
    data_root: Path, tmp_path: Path, own_recipes: Callable[[str, str], Path]
) -> None:
    found = metadata.version("pydantic")
    pins = f'packages = ["pydantic==0.1", "numpy=={metadata.version("numpy")}", "pillow"]'
    own_recipes("small", RECIPE.replace("licences", f"{pins}\nlicences"))
    subset = build("small", tmp_path / "cache", data_root)
    assert subset.manifest["notices"] == [f"pydantic {found} is installed; the recipe names 0.1"]
