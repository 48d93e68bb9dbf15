"""Shared by the tests of the data room: one build of OpenMoji-KB, and recipes of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets_mm.building.build import Subset, build


@pytest.fixture(scope="session")
def kb_cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A cache root in which OpenMoji-KB is built once (7 s on two cores) for all test processes."""
    pytest.importorskip("resvg_py", reason="the [demo] extra is not installed")
    own = tmp_path_factory.getbasetemp()
    cache = (own if worker_id == "master" else own.parent) / "kb"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def kb(kb_cache: Path) -> Callable[[str], Subset]:
    """Builds (or opens) an emoji subset."""
    return lambda name: build(name, kb_cache)


@pytest.fixture
def own_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a recipe into the user's own folder."""
    folder = tmp_path / "config" / "recipes"
    folder.mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))

    def write(name: str, text: str) -> Path:
        path = folder / f"{name}.toml"
        path.write_text(text, "utf-8")
        return path

    return write
