"""Limits: configurable, checked, documented."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from workbench.processes.limits import Limits


def test_the_grace_is_configurable_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_GRACE", "0.5")
    assert Limits.from_environment().grace_seconds == 0.5
    for wrong in ("-1", "nan", "1e9", "soon"):
        monkeypatch.setenv("WORKBENCH_GRACE", wrong)
        with pytest.raises(ValueError, match="WORKBENCH_GRACE"):
            Limits.from_environment()


def test_the_documented_limits_are_the_real_ones() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/warden.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+)(?: (KiB|MiB))? \|$", text, re.MULTILINE)
    unit = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    documented = {name: float(value) * unit[size] for name, value, size in rows}
    assert documented == {name: float(value) for name, value in asdict(Limits()).items()}
