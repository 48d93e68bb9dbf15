"""JSON lines of a child process, and children that fail."""

from __future__ import annotations

import sys

import pytest

from workbench.tui.system import child_process


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ('print(\'{"kind": "failed", "error": "no data"}\')', "no data"),
        ("raise SystemExit(3)", "ended with code 3"),
        ("print('x' * 3000)", "longer than 1,024 bytes"),
    ],
)
async def test_a_child_that_comes_to_nothing_says_why(
    monkeypatch: pytest.MonkeyPatch, script: str, sentence: str
) -> None:
    monkeypatch.setattr(child_process, "LINE_BYTES", 1024)
    with pytest.raises(child_process.ChildError, match=sentence):
        async for _ in child_process.read_messages([sys.executable, "-c", script]):
            pass
