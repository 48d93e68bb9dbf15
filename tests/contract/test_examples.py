"""docs/examples: what another program reads is read by it, where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def test_the_example_for_skypilot() -> None:
    sky = pytest.importorskip("sky")
    task = sky.Task.from_yaml(str(EXAMPLES / "skypilot.yaml"))
    assert task.name == "workbench-week"
    assert next(iter(task.resources)).use_spot
