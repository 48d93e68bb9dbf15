"""Facts of a subset come from a child process once, then from the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets_mm.profile.test_measure_facts import subset
from workbench.audit import data_facts


def test_facts_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = subset(tmp_path / "emoji-1a2b", ["사진"] * 6, blank=5)
    measured = data_facts.measure_subset(folder, tmp_path / "cache", None, None)
    assert measured is not None
    assert (measured.rows, measured.blank) == (6, 5)
    monkeypatch.setattr(data_facts.subprocess, "run", pytest.fail)
    assert data_facts.measure_subset(folder, tmp_path / "cache", None, None) == measured


def test_a_folder_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    assert data_facts.measure_subset(tmp_path / "gone", tmp_path / "cache", None, None) is None
    assert not (tmp_path / "cache").exists()
