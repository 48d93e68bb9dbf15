from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches, locks and user TOML under the test's folder."""
    for name in ("CACHE", "LOCKS", "CONFIG"):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(tmp_path / name.lower()))


@pytest.fixture
def log_root(tmp_path: Path) -> Path:
    """An empty log root."""
    root = tmp_path / "bench_logs"
    root.mkdir()
    return root
