"""The sandbox in which documented commands run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent / "recipes"


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """HOME with a reader's own recipes, the cache, and places for data and models."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "home/.config/workbench").mkdir(parents=True)
    for name in ("content/drive/MyDrive", "kaggle/working"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(RECIPES, folder / "home/.config/workbench/recipes")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
