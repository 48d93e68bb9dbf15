"""The stand-in driver, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.nvml.state import build_library
from tests.fixtures.nvml.stub import Stub


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml-old"), "-DWITHOUT_V2")


@pytest.fixture
def stub(library: Path, tmp_path: Path) -> Stub:
    return Stub(library, tmp_path / "state", 1)
