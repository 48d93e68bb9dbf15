"""Lines that a build or a copy of data prints while it works."""

from __future__ import annotations

import sys

import pytest

from workbench.cli import build

CHILD = """
import json
for at in range(1, 6):
    print(json.dumps({"kind": "progress", "done": at, "total": 5, "unit": "records"}))
print(json.dumps({"kind": "failed", "error": "not here; give --set data_root=/folder"}))
"""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, [f"s: records {n}/5" for n in range(1, 6)]), (60.0, [])]
)
def test_progress_is_printed_at_intervals_and_an_error_names_the_option_of_data(
    seconds: float, expected: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(build, "PROGRESS_SECONDS", seconds)
    assert build._run_child("s", [sys.executable, "-c", CHILD])
    printed = capsys.readouterr().err.splitlines()
    assert printed == [*expected, "workbench: not here; give --data-root /folder"]
